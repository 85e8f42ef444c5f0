"""Which engine is used, what is needed to use one on another machine, and what is said where it cannot be used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lyra_tasks.config.load import load_config
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import RemoteEngineError, connect_engine, connect_running_engine
from lyra_tasks.engine.client.credentials import find_missing_helpers, require_credential_helper
from lyra_tasks.engine.client.endpoint import Endpoint, is_on_this_machine, select_endpoint
from lyra_tasks.engine.client.tunnel import resolve_engine_address
from lyra_tasks.errors import EngineUnavailableError, LyraError, PreconditionError
from lyra_tasks.paths import Paths, project_paths
from tests.machines.test_contexts import write_context

CONFIG = 'schema = 1\n[project]\nname = "p"\n[engine]\nsandbox = "auto"\n'


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a Docker client whose only context is on another machine; no engine can be started."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "LYRA_ENGINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "client"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    write_context(tmp_path / "client", "far", "ssh://ada@builder")
    monkeypatch.setattr(sandbox, "launch_sandbox", lambda *_, **__: pytest.fail("a private engine was started"))
    (tmp_path / ".lyra.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "client"


def connection_error() -> LyraError:
    """Return the one error of both ways to connect."""
    config, paths = load_config().config, project()
    with pytest.raises(EngineUnavailableError) as first:
        connect_engine(config, paths)
    with pytest.raises(EngineUnavailableError) as second:
        connect_running_engine(config, paths)
    assert (first.value.message, first.value.hint) == (second.value.message, second.value.hint)
    return first.value


def project() -> Paths:
    return project_paths(Path.cwd(), "p")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("unix:///var/run/docker.sock", True),
        ("tcp://127.0.0.1:2375", True),
        ("tcp://127.1.2.3:2375", True),
        ("http://localhost:2375", True),
        ("tcp://LOCALHOST.:2376", True),
        ("tcp://[::1]:2375", True),
        ("tcp://[::ffff:127.0.0.1]:2375", True),
        ("tcp://0.0.0.0:2375", True),
        ("tcp://docker:2375", False),
        ("tcp://localhost.example:2375", False),
        ("tcp://127.0.0.1.example:2375", False),
        ("tcp://user@10.0.0.1:2375", False),
        ("tcp://127.0.0.1@10.0.0.1:2375", False),
        ("ssh://localhost", False),
        ("ssh://ada@builder", False),
    ],
)
def test_only_sockets_and_loopback_are_this_machine(host: str, expected: bool) -> None:
    assert is_on_this_machine(host) == expected


def test_published_ports_of_loopback_engine_are_on_loopback() -> None:
    assert resolve_engine_address("tcp://0.0.0.0:2375") == "127.0.0.1"
    assert resolve_engine_address("tcp://localhost:2375") == "127.0.0.1"
    assert resolve_engine_address("tcp://[::1]:2375") == "::1"


@pytest.mark.parametrize("host", ["tcp://docker:2375", "docker:2375", "10.0.0.5:2375"])
def test_engine_of_ci_service_is_refused_with_variable(
    client: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    address = host if "://" in host else f"tcp://{host}"
    error = connection_error()
    assert isinstance(error, RemoteEngineError)
    assert f"({address}): selected by DOCKER_HOST" in error.message
    assert f"`export LYRA_ENGINE={address}`" in error.hint


def test_remote_current_context_is_refused_by_name(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (client / "config.json").write_text('{"currentContext": "far"}')
    assert "`export LYRA_ENGINE=far`" in connection_error().hint
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    assert "selected by DOCKER_CONTEXT" in connection_error().message


def test_engine_variable_permits_address_or_context(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    monkeypatch.setenv("LYRA_ENGINE", "tcp://docker:2376")
    loaded = load_config()
    assert loaded.overrides == {("engine", "context"): "LYRA_ENGINE"}
    endpoint = select_endpoint(loaded.config.engine.context)
    assert endpoint == Endpoint("tcp://docker:2376", is_chosen=True, is_permitted=True)
    monkeypatch.setenv("LYRA_ENGINE", "far")
    endpoint = select_endpoint(load_config().config.engine.context)
    assert (endpoint.host, endpoint.context, endpoint.is_permitted) == ("ssh://ada@builder", "far", True)


def test_engine_variable_outweighs_private_engine(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".lyra.toml").write_text(CONFIG.replace("auto", "always"))
    monkeypatch.setenv("LYRA_ENGINE", f"unix://{client}/none.sock")
    assert f"unix://{client}/none.sock: no such socket" in connection_error().message


def test_certificates_of_environment_are_for_addresses_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", "/certs/client")
    remote = Endpoint("tcp://docker:2376").cli_environment
    assert remote == {
        "DOCKER_HOST": "tcp://docker:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs/client"
    }  # fmt: skip
    assert Endpoint("unix:///run/docker.sock").cli_environment == {"DOCKER_HOST": "unix:///run/docker.sock"}
    assert Endpoint("tcp://far:2376", "far").cli_environment == {"DOCKER_CONTEXT": "far", "DOCKER_HOST": ""}


@pytest.mark.parametrize("source", ["DOCKER_CONTEXT", "LYRA_ENGINE", "[engine]", "config.json"])
def test_unknown_context_never_starts_private_engine(
    client: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    if source == "config.json":
        (client / source).write_text('{"currentContext": "nosuch"}')
    elif source == "[engine]":
        Path(".lyra.toml").write_text(f'{CONFIG}context = "nosuch"\n')
    else:
        monkeypatch.setenv(source, "nosuch")
    error = connection_error()
    assert error.message.startswith("Unknown Docker context 'nosuch'")
    assert "docker context ls" in error.hint


@pytest.mark.parametrize("content", ["{", '{"currentContext": "a"', "\ufeff{}", "[" * 5000])
def test_damaged_settings_never_start_private_engine(client: Path, content: str) -> None:
    (client / "config.json").write_text(content)
    error = connection_error()
    assert f"Cannot read {client}/config.json" in error.message
    assert "`mv " in error.hint


def test_missing_socket_of_selected_engine_never_starts_private_engine(
    client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_context(client, "desktop", f"unix://{client}/desktop.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "desktop")
    error = connection_error()
    assert error.message == f"Cannot connect to a Docker engine at unix://{client}/desktop.sock: no such socket"
    assert error.hint.startswith("Start that engine")


@pytest.mark.parametrize(
    ("settings", "host", "key"),
    [
        ({"credsStore": "desktop.exe"}, "docker.io", "credsStore"),
        ({"credsStore": "desktop.exe"}, "registry.example", "credsStore"),
        ({"credHelpers": {"registry.example": "none"}}, "registry.example", "credHelpers"),
        ({"credHelpers": {"https://index.docker.io/v1/": "none"}}, "docker.io", "credHelpers"),
    ],
)
def test_missing_credential_helper_is_named_with_file(
    client: Path, settings: dict[str, object], host: str, key: str
) -> None:
    (client / "config.json").write_text(json.dumps(settings))
    with pytest.raises(PreconditionError, match=rf"docker-credential-\S+ is not installed; {key} in {client}") as error:
        require_credential_helper(host)
    assert f"remove {key} from" in error.value.hint
    assert [error.message for error in find_missing_helpers()] == [error.value.message]


def test_helper_of_other_registry_is_not_needed(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = client / "docker-credential-there"
    helper.write_text("#!/bin/sh\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client}:{os.environ['PATH']}")
    settings = {"credsStore": "there", "credHelpers": {"registry.example": "none"}}
    (client / "config.json").write_text(json.dumps(settings))
    require_credential_helper("docker.io")
    (client / "config.json").write_text("[]")
    assert find_missing_helpers() == []
