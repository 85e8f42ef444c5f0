"""`test --watch`: build and test again after each change, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.faults import becomes, labs, processes_with, refused

WAITING = "waiting for a change"
TESTS = """
[[tests]]
name = "another environment is healthy"
service = "web"
http = "GET /"
group = "other"
"""


class Output:
    """What a process has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._descriptor, self.text = process.stdout.fileno(), ""
        os.set_blocking(self._descriptor, False)

    def count(self, text: str) -> int:
        with suppress(BlockingIOError):
            self.text += os.read(self._descriptor, 1 << 20).decode()
        return self.text.count(text)


@pytest.fixture(scope="module")
def shared(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Return a project with two groups of checks."""
    project = make_tiny()
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(TESTS)
    (project.root / ".gitignore").write_text("*.log\n.lyra/\n")
    project.commit("checks")
    yield project
    project.clean()


@pytest.fixture
def project(shared: Project) -> Iterator[Project]:
    """Return the same project, whose files are restored afterwards."""
    yield shared
    shared.git("checkout", "--quiet", "--", ".")


def test_change_is_built_and_tested_until_ctrl_c(project: Project, engine: Engine) -> None:
    running = project.start("test", "--watch")
    try:
        output = Output(running)
        assert becomes(lambda: output.count(WAITING) == 1, 120), output.text
        assert "passed in" in output.text
        (project.root / "ignored.log").write_text("nothing")
        project.replace(".lyra.toml", 'body = "It is tiny."', 'body = "It is large."')
        assert becomes(lambda: output.count(WAITING) == 2, 120), output.text
        second = output.text.partition(WAITING)[2]
        assert "changed: .lyra.toml\n" in second and "ignored.log" not in second
        assert "FAIL the page is there" in second and "ok   other: another environment is healthy (cached)" in second
        assert "failed in" in second
        project.replace(".lyra.toml", 'body = "It is large."', 'body = "It is tiny."')
        assert becomes(lambda: output.count(WAITING) == 3, 120), output.text
        assert "(cached)" in output.text.rpartition("changed: ")[2]
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
        assert "stopped watching" in output.text or output.count("stopped watching")
    finally:
        running.kill()
        running.communicate()
    assert labs(engine) == [] and processes_with("--failed-first", project) == []


def test_ctrl_c_during_a_round_removes_everything(project: Project, engine: Engine) -> None:
    with (project.root / ".lyra.toml").open("a") as file:
        file.write('\n[[tests]]\nname = "slow"\nrun = "sleep 61"\ntimeout = "90s"\n')
    running = project.start("test", "--watch")
    try:
        assert becomes(lambda: bool(processes_with("sleep 61", project)), 120)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 0
    assert labs(engine) == [] and processes_with("sleep 61", project) == []


def test_failed_groups_start_first(project: Project) -> None:
    project.replace(".lyra.toml", TESTS, TESTS.replace("GET /", "GET /missing"))
    with (project.root / ".lyra.toml").open("a") as file:
        file.write("\n[resources]\nhost_share = 1.0\n")
    refused(project.lyra("build", "test"), 5, "1 of 5 check(s) failed")
    result = project.lyra("test", "--failed-first", "--dry-run")
    assert result.code == 0, result.text
    assert result.out.index("other: would start") < result.out.index("the page is there")


def test_watch_refuses_options_that_make_no_sense(lonely: Project) -> None:
    refused(lonely.lyra("test", "--watch", "--json"), 2, "takes neither --keep-running nor --json")
