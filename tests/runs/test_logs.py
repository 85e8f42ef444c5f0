"""Logs of a lab whose engine does not answer any more."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from lyra_tasks.config.load import load_config
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.client.facts import EngineFacts
from lyra_tasks.engine.workspace import Workspace, open_workspace
from lyra_tasks.errors import EngineUnavailableError
from lyra_tasks.lab import container_logs
from lyra_tasks.records.dev import DevLab, DevService
from lyra_tasks.runs import logs


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project whose engine was connected, and does not exist any more."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / ".lyra.toml").write_text('schema = 1\n[project]\nname = "tiny"\n')
    workspace = open_workspace(load_config(tmp_path))
    client = docker.DockerClient(f"unix://{tmp_path}/gone.sock", version="1.41")
    facts = EngineFacts("id", "26.1", (1, 41), "classic", 2, 1 << 30, "linux/amd64", sandboxed=False)
    vars(workspace)["engine"] = Engine(client, client.api, facts, "", "docker", {})
    return workspace


def test_following_logs_of_vanished_engine_fails(work: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    service = DevService(id="web", ports={}, source=None, is_developed=True, secret_variables=[])
    lab = DevLab(run="r1", engine="id", config="", holder="", services={"web": service})
    source = logs.LogSource("r1", work.root, ("web",), lab)
    with pytest.raises(EngineUnavailableError, match="while inspecting a container"):
        list(logs.follow_logs(work, source, ""))
    monkeypatch.setattr(container_logs, "_collect_secrets", lambda *_: ())
    with pytest.raises(EngineUnavailableError, match="while reading a container's log"):
        list(logs.follow_logs(work, source, ""))
