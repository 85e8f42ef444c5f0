"""Docker contexts as stored by the docker command, and engines on other machines."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import docker
import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.engine.buildx import builder
from lyra_tasks.engine.client.connect import Engine, connect_engine, reconnect_engine
from lyra_tasks.engine.client.contexts import read_context_endpoint
from lyra_tasks.engine.client.endpoint import is_remote_endpoint
from lyra_tasks.engine.client.facts import EngineFacts
from lyra_tasks.engine.client.tunnel import resolve_engine_address
from lyra_tasks.engine.objects.host_footprint import list_builders
from lyra_tasks.errors import EngineUnavailableError, PreconditionError
from lyra_tasks.paths import project_paths
from lyra_tasks.registry.client import is_loopback


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration directory with one context and no `config.json`."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    write_context(tmp_path, "far", "ssh://ada@builder")
    return tmp_path


def local_engine(environment: dict[str, str], cli: str = "docker") -> Engine:
    """Return an engine object without a connection."""
    facts = EngineFacts("id", "26.1", (1, 45), "classic", 2, 1 << 30, "linux/amd64", sandboxed=False)
    client = docker.DockerClient("unix:///run/near.sock", version="1.41")
    return Engine(client, None, facts, "", cli, environment)


def write_context(directory: Path, name: str, host: str) -> None:
    meta = directory / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    document = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
    (meta / "meta.json").write_text(json.dumps(document))


def test_context_is_found_without_config_json(client: Path) -> None:
    assert read_context_endpoint("far") == "ssh://ada@builder"
    assert read_context_endpoint("default") == "unix:///var/run/docker.sock"


def test_current_context_precedence(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_context_endpoint("") == "unix:///var/run/docker.sock"
    (client / "config.json").write_text('{"currentContext": "far"}')
    assert read_context_endpoint("") == "ssh://ada@builder"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert read_context_endpoint("") == "unix:///var/run/docker.sock"


def test_user_without_home_has_default_context(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "DOCKER_CONFIG", "DOCKER_CONTEXT", "BUILDX_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # a user without a passwd entry
    assert read_context_endpoint("") == "unix:///var/run/docker.sock"
    assert list_builders() == []


def test_unknown_or_unreadable_context_is_reported(client: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="Unknown Docker context 'near'"):
        read_context_endpoint("near")
    (client / "config.json").write_text("{")
    with pytest.raises(EngineUnavailableError, match=r"Cannot read .*config\.json: not valid JSON"):
        read_context_endpoint("")


def test_reconnect_prefers_docker_host_to_context(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{client}/own.sock")
    with pytest.raises(EngineUnavailableError, match=r"Docker engine at unix://.*/own\.sock"):
        reconnect_engine()


def test_engine_host_resolves_context(client: Path) -> None:
    write_context(client, "near", "unix:///run/near.sock")
    assert local_engine({"DOCKER_CONTEXT": "near", "DOCKER_HOST": ""}).host == "unix:///run/near.sock"


def test_too_long_socket_path_is_reported(client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_context(client, "tls", "tcp://127.0.0.1:1")
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    (tmp_path / "docker").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    config = Configuration.model_validate(
        {"schema": 1, "project": {"name": "tests"}, "engine": {"context": "tls", "sandbox": "never"}}
    )
    with pytest.raises(EngineUnavailableError, match="Docker engine at tcp://127"):
        connect_engine(config, project_paths(tmp_path, "tests"))


def test_unresponsive_builder_times_out(client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\nexec sleep 20\n")
    program.chmod(0o755)
    monkeypatch.setattr(builder, "_BUILDER_TIMEOUT_S", 0.2)
    with pytest.raises(PreconditionError, match=r"Builder 'far' did not answer within 0\.2 s"):
        builder.find_builder(local_engine({}, str(program)), "far")


@pytest.mark.parametrize(
    ("host", "is_remote"),
    [
        ("unix:///var/run/docker.sock", False),
        ("npipe:////./pipe/docker_engine", False),
        ("tcp://127.0.0.1:2375", True),
        ("ssh://ada@builder:2222/run/docker.sock", True),
    ],
)
def test_local_sockets_are_not_remote(host: str, is_remote: bool) -> None:
    assert is_remote_endpoint(host) == is_remote


def test_engine_address_is_loopback_or_remote() -> None:
    assert resolve_engine_address("unix:///var/run/docker.sock") == "127.0.0.1"
    assert resolve_engine_address("tcp://192.0.2.7:2376") == "192.0.2.7"
    with pytest.raises(EngineUnavailableError, match=r"nowhere\.invalid"):
        resolve_engine_address("tcp://nowhere.invalid:2376")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("registry.example", False),
        ("localhost.example:5000", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_plain_http_only_for_loopback_registries(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
