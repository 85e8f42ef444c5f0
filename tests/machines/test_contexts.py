"""Docker contexts as the docker command keeps them, and what is on another machine."""

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
from lyra_tasks.engine.client.connect import Engine, EngineFacts, connect_engine, reconnect_engine
from lyra_tasks.engine.client.contexts import read_context_endpoint
from lyra_tasks.engine.client.tunnel import is_remote_endpoint, resolve_engine_address
from lyra_tasks.engine.objects.host_footprint import list_builders
from lyra_tasks.errors import EngineUnavailableError, PreconditionError
from lyra_tasks.paths import project_paths
from lyra_tasks.registry.client import is_loopback


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A client folder with one context and no `config.json`."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    write(tmp_path, "far", "ssh://ada@builder")
    return tmp_path


def near(environment: dict[str, str], cli: str = "docker") -> Engine:
    """An engine that is not asked anything, with the variables and the command of its client."""
    facts = EngineFacts("id", "26.1", (1, 45), "classic", 2, 1 << 30, "linux/amd64", sandboxed=False)
    client = docker.DockerClient("unix:///run/near.sock", version="1.41")
    return Engine(client, None, facts, "", "", cli, environment)


def write(folder: Path, name: str, host: str) -> None:
    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    document = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
    (meta / "meta.json").write_text(json.dumps(document))


def test_a_context_is_found_where_there_is_no_config_json(client: Path) -> None:
    assert read_context_endpoint("far") == "ssh://ada@builder"
    assert read_context_endpoint("default") == "unix:///var/run/docker.sock"


def test_the_current_context_is_the_variable_s_then_the_file_s_then_the_default(
    client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_context_endpoint("") == "unix:///var/run/docker.sock"
    (client / "config.json").write_text('{"currentContext": "far"}')
    assert read_context_endpoint("") == "ssh://ada@builder"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert read_context_endpoint("") == "unix:///var/run/docker.sock"


def test_a_user_without_a_home_has_no_contexts_and_the_default_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "DOCKER_CONFIG", "DOCKER_CONTEXT", "BUILDX_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # a user whom the system does not know
    assert read_context_endpoint("") == "unix:///var/run/docker.sock"
    assert list_builders() == []


def test_a_context_that_is_not_there_or_cannot_be_read_is_said(client: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="no Docker context named 'near'"):
        read_context_endpoint("near")
    (client / "config.json").write_text("{")
    with pytest.raises(EngineUnavailableError, match=r"config\.json cannot be read"):
        read_context_endpoint("")


def test_a_process_that_is_started_with_a_host_goes_there_whatever_context_its_user_has_chosen(
    client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{client}/own.sock")
    with pytest.raises(EngineUnavailableError, match=r"answers at unix://.*/own\.sock"):
        reconnect_engine()


def test_programs_that_know_no_contexts_are_told_where_the_engine_of_one_is(client: Path) -> None:
    write(client, "near", "unix:///run/near.sock")
    assert near({"DOCKER_CONTEXT": "near", "DOCKER_HOST": ""}).host == "unix:///run/near.sock"


def test_a_folder_for_temporary_files_that_is_too_deep_for_a_socket_is_no_traceback(
    client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(client, "tls", "tcp://127.0.0.1:1")
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    (tmp_path / "docker").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    config = Configuration.model_validate(
        {"schema": 1, "project": {"name": "tests"}, "engine": {"context": "tls", "sandbox": "never"}}
    )
    with pytest.raises(EngineUnavailableError, match="answers at tcp://127"):
        connect_engine(config, project_paths(tmp_path, "tests"))


def test_a_builder_whose_machine_is_gone_is_told_in_time(
    client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\nexec sleep 20\n")
    program.chmod(0o755)
    monkeypatch.setattr(builder, "_PATIENCE", 0.2)
    with pytest.raises(PreconditionError, match=r"`docker buildx inspect far` took longer than 0\.2 s"):
        builder.find_builder(near({}, str(program)), "far")


@pytest.mark.parametrize(
    ("host", "remote"),
    [
        ("unix:///var/run/docker.sock", False),
        ("npipe:////./pipe/docker_engine", False),
        ("tcp://127.0.0.1:2375", True),
        ("ssh://ada@builder:2222/run/docker.sock", True),
    ],
)
def test_only_sockets_of_this_machine_are_not_remote(host: str, remote: bool) -> None:
    assert is_remote_endpoint(host) == remote


def test_ports_of_another_machine_are_at_its_address_and_of_this_one_on_the_loopback() -> None:
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
def test_plain_http_is_for_registries_of_this_machine(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
