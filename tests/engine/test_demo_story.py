"""The first hour of a new user: a fresh clone, no Docker engine, and the commands of the README.

The code is that of this checkout; `test_reception.py` runs that of the clone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from tests.conftest import REPOSITORY, Outcome, Project
from tests.engine.clones import clone

TASKS = ("build", "test", "promote")

pytestmark = pytest.mark.skipif(Path("/var/run/docker.sock").exists(), reason="an engine of this machine would be used")


@dataclass(frozen=True)
class Story:
    """The outcomes of all commands, in order."""

    project: Project
    state: Path
    first: Outcome
    first_seconds: float
    second: Outcome
    second_seconds: float
    cleaned: Outcome


def without_docker(directory: Path) -> str:
    """Return a PATH with all programs of this machine except docker."""
    directory.mkdir()
    for path in reversed(os.get_exec_path()):
        for program in Path(path).glob("*"):
            if not program.name.startswith("docker"):
                link = directory / program.name
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    return str(directory)


def timed(project: Project, *tasks: str) -> tuple[Outcome, float]:
    start = time.monotonic()
    return project.lyra(*tasks, timeout=600), time.monotonic() - start


def state_of(project: Project) -> Path:
    """Return the state directory of the project."""
    (state,) = project.state.iterdir()
    return state


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Story]:
    """Run all tasks twice, then `clean`; only the packages are cached before."""
    directory = tmp_path_factory.mktemp("user")
    project = clone(directory, cache, None)
    own = {"PATH": without_docker(directory / "bin"), "HOME": str(directory / "home"), "PYTHONPATH": str(REPOSITORY)}
    project = replace(project, environment={**project.environment, **own})
    try:
        first, first_seconds = timed(project, *TASKS)
        second, second_seconds = timed(project, *TASKS)
        cleaned = project.lyra("clean")
        yield Story(project, state_of(project), first, first_seconds, second, second_seconds, cleaned)
    finally:
        for state in project.state.glob("*"):
            sandbox.shut_down_sandbox(state, purge=True)


def test_three_tasks_start_engine_and_create_bundle(story: Story) -> None:
    assert story.first.code == 0, story.first.text
    assert "No Docker engine is running; starting this project's private engine" in story.first.err
    assert "17 of 17 checks passed" in story.first.out
    (bundle,) = story.project.bundles()
    assert f"promoted {bundle.name} to {bundle.relative_to(story.project.root)}:" in story.first.out
    assert story.project.git("status", "--porcelain") == "", "the lock file is committed, everything else is ignored"


def test_second_run_is_cached(story: Story) -> None:
    assert story.second.code == 0, story.second.text
    built = story.second.out.partition("\n17 of")[0]
    assert re.findall(r"(?m)  (new|unchanged)$", built) == ["unchanged", "unchanged"]
    assert "is already promoted with the same digests" in story.second.out
    # About a third with a filled cache, a tenth with an empty one (95 MB of downloads); what remains is the test run.
    assert story.second_seconds < story.first_seconds / 2


def test_clean_stops_empty_engine_and_keeps_bundle(story: Story) -> None:
    assert story.cleaned.code == 0, story.cleaned.text
    assert "stopped the private engine" in story.cleaned.out
    assert sandbox.find_sandbox(story.state) is None
    assert story.project.lyra("verify").code == 0
    none = story.project.lyra("engine.status", "--json")
    assert (none.code, json.loads(none.out)) == (0, {})
    assert sandbox.find_sandbox(story.state) is None, "engine.status must not start an engine"


def test_manually_started_engine_is_empty_and_kept(story: Story) -> None:
    up = story.project.lyra("engine.up")
    assert up.code == 0, up.text
    variables = dict(re.findall(r"(?m)^export (\w+)='?(.*?)'?$", up.out))
    for arguments in (("ps",), ("image", "ls"), ("volume", "ls"), ("network", "ls", "--filter", "type=custom")):
        all_option = ("--all",) if arguments[0] in ("ps", "image") else ()
        command = ["docker", *arguments, *all_option, "--quiet"]
        done = subprocess.run(command, env={**os.environ, **variables}, check=True, capture_output=True, text=True)
        assert done.stdout == "", command
    document = json.loads(story.project.lyra("engine.status", "--json").out)
    assert (document["sandboxed"], document["store"]) == (True, "containerd")
    assert "No Docker engine is running" not in story.project.lyra("clean").err
    assert sandbox.find_sandbox(story.state) is not None, "a manually started engine keeps running"
    assert "Stopped the private engine" in story.project.lyra("engine.down").out
    assert "The private engine was not running" in story.project.lyra("engine.down").out


def test_clean_all_keeps_only_source_journal_and_bundles(story: Story) -> None:
    unconfirmed = story.project.lyra("clean", "--all")
    assert unconfirmed.code == 2, "stdin is not a terminal"
    assert (story.state / "sandbox" / "data").is_dir()
    result = story.project.lyra("clean", "--all", "--yes")
    assert result.code == 0, result.text
    assert not (story.state / "sandbox").exists()
    assert not (story.project.root / ".lyra").exists()
    assert sandbox.find_sandbox(story.state) is None
    assert (story.state / "journal.jsonl").is_file()
    assert story.project.lyra("verify").code == 0
