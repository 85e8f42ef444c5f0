"""The first hour of a new user: a fresh clone, no Docker on the machine, the words as the README has them."""

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
from tests.conftest import Outcome, Project
from tests.engine.clones import clone

WORDS = ("build", "test", "promote")

pytestmark = pytest.mark.skipif(Path("/var/run/docker.sock").exists(), reason="an engine of this machine would be used")


@dataclass(frozen=True)
class Told:
    """What happened, in order; times in seconds."""

    project: Project
    state: Path
    first: Outcome
    first_seconds: float
    second: Outcome
    second_seconds: float
    cleaned: Outcome


def without_docker(folder: Path) -> str:
    """A PATH with all of this machine's programs but docker."""
    folder.mkdir()
    for place in reversed(os.get_exec_path()):
        for program in Path(place).glob("*"):
            if not program.name.startswith("docker"):
                link = folder / program.name
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    return str(folder)


def timed(project: Project, *words: str) -> tuple[Outcome, float]:
    began = time.monotonic()
    return project.lyra(*words, timeout=600), time.monotonic() - began


def state_of(project: Project) -> Path:
    """The one state folder that the project has by now."""
    (state,) = project.state.iterdir()
    return state


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Told]:
    """The words twice, then `clean`; the packages are in the cache, and nothing else is anywhere."""
    folder = tmp_path_factory.mktemp("user")
    project = clone(folder, cache, None)
    project = replace(
        project,
        environment={**project.environment, "PATH": without_docker(folder / "bin"), "HOME": str(folder / "home")},
    )
    try:
        first, first_seconds = timed(project, *WORDS)
        second, second_seconds = timed(project, *WORDS)
        cleaned = project.lyra("clean")
        yield Told(project, state_of(project), first, first_seconds, second, second_seconds, cleaned)
    finally:
        for state in project.state.glob("*"):
            sandbox.shut_down_sandbox(state, purge=True)


def test_three_tasks_start_engine_and_create_bundle(told: Told) -> None:
    assert told.first.code == 0, told.first.text
    assert "No Docker engine is running; starting this project's private engine" in told.first.err
    assert "17 of 17 checks passed" in told.first.out
    (bundle,) = told.project.bundles()
    assert f"promoted {bundle.name} to {bundle.relative_to(told.project.root)}:" in told.first.out
    assert told.project.git("status", "--porcelain") == "", "the lock is committed, and all else is ignored"


def test_second_run_is_cached(told: Told) -> None:
    assert told.second.code == 0, told.second.text
    built = told.second.out.partition("\n17 of")[0]
    assert re.findall(r"(?m)  (new|unchanged)$", built) == ["unchanged", "unchanged"]
    assert "is promoted already, with the same digests" in told.second.out
    # The first time also downloads 95 MB where the cache is empty: then this is a tenth, and as it is here, a third.
    # What is left is the lab, which every `test` makes anew.
    assert told.second_seconds < told.first_seconds / 2


def test_clean_stops_empty_engine_and_keeps_bundle(told: Told) -> None:
    assert told.cleaned.code == 0, told.cleaned.text
    assert "stopped the sandbox engine" in told.cleaned.out
    assert sandbox.find_sandbox(told.state) is None
    assert told.project.lyra("verify").code == 0
    up = told.project.lyra("engine.up")
    assert up.code == 0, up.text
    variables = dict(re.findall(r"(?m)^  export (\w+)='(.*)'$", up.out))
    try:
        for words in (("ps",), ("image", "ls"), ("volume", "ls"), ("network", "ls", "--filter", "type=custom")):
            every = ("--all",) if words[0] in ("ps", "image") else ()
            command = ["docker", *words, *every, "--quiet"]
            done = subprocess.run(command, env={**os.environ, **variables}, check=True, capture_output=True, text=True)
            assert done.stdout == "", command
    finally:
        assert told.project.lyra("engine.down").code == 0


def test_manually_started_engine_is_used_and_kept(told: Told) -> None:
    none = told.project.lyra("engine.status", "--json")
    assert (none.code, json.loads(none.out)) == (0, {})
    assert sandbox.find_sandbox(told.state) is None, "to ask is not to start"
    assert told.project.lyra("engine.up").code == 0
    status = told.project.lyra("engine.status", "--json")
    document = json.loads(status.out)
    assert (document["sandboxed"], document["store"]) == (True, "containerd")
    assert "No Docker engine is running" not in told.project.lyra("clean").err
    assert sandbox.find_sandbox(told.state) is not None, "who started it by hand also ends it"
    assert "the engine is down" in told.project.lyra("engine.down").out
    assert "the engine was not running" in told.project.lyra("engine.down").out


def test_clean_all_keeps_only_source_journal_and_bundles(told: Told) -> None:
    asked = told.project.lyra("clean", "--all")
    assert asked.code == 2, "nobody could answer"
    assert (told.state / "sandbox" / "data").is_dir()
    result = told.project.lyra("clean", "--all", "--yes")
    assert result.code == 0, result.text
    assert not (told.state / "sandbox").exists()
    assert not (told.project.root / ".lyra").exists()
    assert sandbox.find_sandbox(told.state) is None
    assert (told.state / "journal.jsonl").is_file()
    assert told.project.lyra("verify").code == 0
