"""A private engine whose state directory was moved away or removed while it ran: it is found by what runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.sandbox import cgroups
from lyra_tasks.engine.sandbox.layout import SandboxPaths, answers_ping
from lyra_tasks.errors import PreconditionError
from tests.conftest import Project
from tests.engine.sandboxes import host_state, up
from tests.faults import becomes, refused
from tests.thorough import THOROUGH


def move(state: Path) -> None:
    state.rename(state.with_name("moved"))


def remove(state: Path) -> None:
    shutil.rmtree(state, ignore_errors=True)


def processes(paths: SandboxPaths) -> set[int]:
    """Return the processes of an engine."""
    return {
        pid for tree in cgroups.list_cgroup_trees() for pid in cgroups.list_cgroup_processes(tree.path / paths.name)
    }


@pytest.mark.parametrize(
    ("lose", "marked"),
    [
        (move, True),
        (remove, False),
        pytest.param(move, False, marks=THOROUGH),
        pytest.param(remove, True, marks=THOROUGH),
    ],
)
def test_second_engine_is_not_started_beside_a_stray_one(
    tmp_path: Path, lose: Callable[[Path], None], marked: bool
) -> None:
    state = tmp_path / "state"
    paths, before = SandboxPaths(state), host_state(state)
    try:
        box = up(state)
        lose(state)
        if not marked:
            paths.marker.unlink()
        pids = processes(paths)
        assert pids and sandbox.find_sandbox(state) is None
        stray = sandbox.find_stray_sandbox(state)
        assert stray is not None and stray.pid == box.pid
        with pytest.raises(PreconditionError, match="without its state directory") as caught:
            up(state)
        assert "`clean`" in caught.value.hint
        assert (str(state.with_name("moved")) in caught.value.message) == (lose is move)
        assert processes(paths) >= {box.pid} and answers_ping(paths.socket, 5), "the engine is still running"
    finally:
        report = sandbox.shut_down_sandbox(state)
    assert report.was_running and not report.leftovers
    assert sandbox.find_stray_sandbox(state) is None
    assert host_state(state) == before


@pytest.fixture
def astray(lonely: Project) -> Iterator[Project]:
    """A project whose private engine has lost its state directory."""
    lonely.replace(".lyra.toml", "[images.web]", '[engine]\nsandbox = "auto"\n\n[images.web]')
    lonely.commit("a private engine")
    assert lonely.lyra("engine.up").code == 0
    (state,) = lonely.state.glob("tiny-*")
    state.rename(lonely.state.parent / "moved")
    yield lonely
    sandbox.shut_down_sandbox(state, purge=True)
    assert not SandboxPaths(state).runtime.exists()


def test_stray_engine_is_named_and_ended_by_clean(astray: Project, tmp_path: Path) -> None:
    moved = astray.state.parent / "moved"
    (finding,) = [item for item in json.loads(astray.lyra("doctor", "--json").out) if item["subject"] == "sandbox"]
    assert finding["state"] == "error" and str(moved) in finding["message"] and "clean" in finding["fix"]
    refused(astray.lyra("engine.up"), 3, "without its state directory", str(moved), "`lyra clean`")
    refused(astray.lyra("build"), 3, "without its state directory")
    planned = astray.lyra("clean", "--dry-run")
    assert planned.code == 0 and "the private engine" in planned.out, planned.text
    paths = SandboxPaths(next(astray.state.glob("tiny-*")))
    assert processes(paths)
    cleaned = astray.lyra("clean")
    assert cleaned.code == 0 and "stopped the private engine" in cleaned.out, cleaned.text
    assert not processes(paths) and not paths.runtime.exists()
    again = astray.lyra("engine.up")
    assert again.code == 0, again.text
    assert moved.is_dir(), "its data are kept"
    paths.state.rename(moved.with_name("moved-again"))
    require_named_to_another_project(astray, tmp_path)


def require_named_to_another_project(astray: Project, tmp_path: Path) -> None:
    """Assert that `doctor` of another project names the engine and how to end it, and that this ends it."""
    findings = json.loads(astray.lyra("doctor", "--json", XDG_STATE_HOME=str(tmp_path / "another-state")).out)
    (finding,) = [item for item in findings if item["subject"] == "sandbox" and item["state"] == "warning"]
    assert str(astray.state) in finding["message"]
    pid = int(finding["fix"].rpartition("kill ")[2].rstrip("`"))
    os.kill(pid, signal.SIGTERM)
    assert becomes(lambda: not Path(f"/proc/{pid}").exists())
