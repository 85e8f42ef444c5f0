"""Commands killed at random moments, one after the other in one checkout: the next command goes on, nothing is left.

LYRA_TEST_COMMAND_KILLS is the number of kills (200 take about 40 minutes), LYRA_TEST_SEED selects the moments.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lyra_tasks.bundle.verify import verify_bundle
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.client.monitoring import wait_until
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.journal import Journal
from tests.conftest import Project, ours
from tests.engine.test_kills import lab_objects
from tests.faults import becomes, no_traceback, processes_with, reapers

KILLS = int(os.environ.get("LYRA_TEST_COMMAND_KILLS", "5"))
MIN_COUNTED_KILLS = 50
SEED = int(os.environ.get("LYRA_TEST_SEED", str(random.randrange(10**6))))
COMMANDS = ("build", "test", "promote", "create", "clean")
_FIRST_KILL_S = 0.15


@dataclass
class Campaign:
    """The checkout whose commands are killed; `durations` are in seconds, by command."""

    project: Project
    engine: Engine
    moments: random.Random
    durations: dict[str, float] = field(default_factory=dict)
    changes: int = 0

    def run(self, *arguments: str) -> float:
        """Run a command line that must succeed and return how long it took."""
        started = time.monotonic()
        result = self.project.lyra(*arguments)
        assert result.code == 0, f"{arguments}: {result.text}"
        assert no_traceback(result.text), result.text
        return time.monotonic() - started

    def prepare(self, command: str) -> None:
        """Bring the checkout into a state in which the command has all of its work to do."""
        if command in {"build", "promote"}:
            self.changes += 1
            (self.project.root / "app/www/change.txt").write_text(f"{self.changes}\n")
            self.project.commit(f"change {self.changes}")
        if command == "test":
            self.run("build")
        elif command == "promote":
            self.run("build", "test")
        elif command == "clean":
            self.run("build")
            self.run("create")
        elif command == "create":
            self.run("clean")

    def kill(self, command: str) -> tuple[float, bool]:
        """Kill a command at a random moment; return the moment in seconds, and whether it was still running."""
        moment = self.moments.uniform(_FIRST_KILL_S, self.durations[command])
        running = self.project.start(command)
        time.sleep(moment)
        running.send_signal(signal.SIGKILL)
        out, err = running.communicate()
        assert no_traceback(out + err), err
        return moment, running.returncode == -signal.SIGKILL

    def processes(self) -> list[int]:
        """Return the processes of killed commands that still run, their reapers included."""
        return [*reapers(self.project), *processes_with(str(self.project.root))]

    def require_nothing_left(self) -> None:
        """Check that the run has left no objects, except a whole environment, no process and no partial bundle."""
        project = self.project
        assert becomes(lambda: not self.processes(), 30), self.processes()
        (state,) = project.state.iterdir()
        if not DevStore(state).exists:
            assert wait_until(lambda: not lab_objects(self.engine), 5), lab_objects(self.engine)
        for bundle in project.bundles():
            if not bundle.name.startswith("."):
                verify_bundle(bundle)

    def require_recovery(self, command: str) -> None:
        """Check that the same command succeeds now, and that the journal is whole."""
        self.run(command)
        if command == "clean":
            assert ours(self.engine) == []
        (state,) = self.project.state.iterdir()
        assert Journal(state / "journal.jsonl").find_problems() == []


@pytest.fixture
def campaign(tiny: Project, engine: Engine) -> Campaign:
    """Return the tiny project with the time that each command takes."""
    campaign = Campaign(tiny, engine, random.Random(SEED))
    for command in COMMANDS:
        campaign.prepare(command)
        campaign.durations[command] = campaign.run(command)
    return campaign


@pytest.mark.thorough
def test_any_command_killed_at_any_moment_leaves_nothing(campaign: Campaign) -> None:
    hits = Counter[str]()
    for number in range(KILLS):
        command = COMMANDS[number % len(COMMANDS)]
        campaign.prepare(command)
        moment, was_running = campaign.kill(command)
        hits[command] += was_running
        place = f"seed {SEED}, kill {number} of `{command}` after {moment:.2f} s"
        try:
            campaign.require_nothing_left()
            campaign.require_recovery(command)
        except AssertionError as error:
            raise AssertionError(place) from error
        print(f"{place}: {'killed' if was_running else 'had ended'}")
    # a few kills on a busy machine may all come late
    assert KILLS < MIN_COUNTED_KILLS or hits.total() * 2 > KILLS, f"seed {SEED}: most had ended before: {hits}"
    campaign.run("clean")
    assert ours(campaign.engine) == []
    directories = Path(tempfile.gettempdir()).glob("lyra-private-*")
    assert [path for path in directories if not Path("/proc", path.name.split("-")[-2]).exists()] == []
