"""Status: the suggested command, the screen at two widths, and a time that does not depend on the history."""

from __future__ import annotations

import datetime
import json
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.digests import canonical_json
from lyra_tasks.overview.status import status_lines, suggest_next_step
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.journal_entry import JOURNAL_SCHEMA, JournalEntry
from lyra_tasks.results import to_document
from lyra_tasks.results.overview import (
    DeviationRow,
    DeviationState,
    ImageRow,
    LabRow,
    LabService,
    RunRow,
    Status,
    TaskResult,
    TestStatus,
)
from tests.conftest import Project

pytestmark = pytest.mark.slow

NO_ENGINE = "unix:///nowhere.sock"
TODAY = datetime.date(2026, 11, 24)
IMAGE = ImageRow(
    "web", "0.1.0-dev.3+g1a2b3c4", "1a2b3c4", False, "2026-11-24T05:42:22+00:00", 31_400_000, "sha256:1", ""
)
PASSED = TestStatus(True, "20261124t054210-95fc5c", "2026-11-24T05:42:23+00:00", 15, (), {"passed": 12, "deviation": 1})


def deviation_row(rule: str, scope: str, owner: str, expires: datetime.date) -> DeviationRow:
    days_left = (expires - TODAY).days
    state: DeviationState = "expired" if days_left < 0 else "used"
    return DeviationRow(rule, scope, owner, expires.isoformat(), state, days_left, expires_soon=0 <= days_left <= 30)


DEVIATIONS = (
    deviation_row("container.non-root", "services.old", "bob", datetime.date(2026, 11, 25)),
    deviation_row("container.egress", "services.web", "ada", datetime.date(2027, 3, 31)),
)
RUN_TASKS = (TaskResult("build", 0, "", 3.0), TaskResult("test", 5, "1 of 1 checks failed", 2.0))
STATUS = Status(
    project="guestbook",
    version="0.1.0-dev.3+g1a2b3c4",
    branch="main",
    commit="1a2b3c4",
    dirty=True,
    engine="private engine 26.1.5, containerd image store",
    has_engine=True,
    images=(IMAGE, replace(IMAGE, name="counter", problem="was built before its context changed")),
    test=None,
    unknown_reason="not all images are current",
    promoted_version="",
    newest_version="0.1.0-dev.2+g0000000",
    deviations=DEVIATIONS,
    labs=(
        LabRow(
            "20261124t060000-123abc",
            "development",
            (
                LabService("web", "running", {"http": "127.0.0.1:32768"}, 12_000_000, 128_000_000, 0.02, 0.5),
                LabService("seed", "exited", {}, None, 0, None, 0.5),
            ),
        ),
    ),
    leftovers=tuple(f"lyra-20261124t050000-{number}" for number in range(8)),
    runs=(RunRow("r", "2026-11-24T05:42:10.000+00:00", "build test", RUN_TASKS),),
    next_command="build test promote",
    next_reason="counter was built before its context changed",
)


@pytest.mark.parametrize("width", [80, 200])
def test_status_screen_is_complete_and_fits(width: int) -> None:
    screen = status_lines(STATUS, width)
    assert max(map(len, screen)) <= width
    text = " ".join(" ".join(screen).split())
    for expected in (
        "guestbook 0.1.0-dev.3+g1a2b3c4, main at 1a2b3c4, uncommitted changes",
        "counter 0.1.0-dev.3+g1a2b3c4 29.9 MiB stale: was built before its context changed",
        "not this set; the newest bundle is 0.1.0-dev.2+g0000000",
        "container.non-root for services.old (bob) until 2026-11-25, in 1 day",
        "container.egress for services.web (ada) until 2027-03-31",
        "development, run 20261124t060000-123abc",
        "web: running, http at 127.0.0.1:32768, 11.4 MiB of 122.1 MiB for memory and files, 0.02 of 0.5 CPUs",
        "and 2 more",
        "build test: test failed with 5",
        "next `build test promote`: counter was built before its context changed",
    ):
        assert expected in text
    assert len(screen) < (40 if width == 80 else 25), "one screen"


def test_third_party_image_is_shown_by_its_reference() -> None:
    cache = ImageRow("cache", "", "", False, "2026-11-24T05:42:22+00:00", 12_000_000, "sha256:2", "", "redis:7")
    missing = replace(cache, name="queue", digest="", problem="has not been fetched")
    text = " ".join(" ".join(status_lines(replace(STATUS, images=(IMAGE, cache, missing)), 200)).split())
    assert "cache redis:7 11.4 MiB fetched, test unknown" in text
    assert "queue redis:7 has not been fetched" in text


def test_status_json_is_complete() -> None:
    document = json.loads(json.dumps(to_document(STATUS)))
    assert document["schema"] == "lyra.status/1"
    assert document["deviations"][0] == {
        "rule": "container.non-root", "scope": "services.old", "owner": "bob", "expires": "2026-11-25",
        "state": "used", "days_left": 1, "expires_soon": True,
    }  # fmt: skip
    assert document["runs"][0]["tasks"][1] == {
        "task": "test", "exit_code": 5, "message": "1 of 1 checks failed", "seconds": 2.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "promote"),
        ({"images": ()}, ""),
        ({"images": (IMAGE, STATUS.images[1])}, "build test promote"),
        ({"test": None}, "test promote"),
        ({"test": replace(PASSED, passed=False, failed=("front page greets",))}, ""),
        ({"test": replace(PASSED, promotion_refusal="images.web@linux/arm64 (rule test.platform)")}, ""),
        ({"promoted_version": "1.0.0"}, ""),
        ({"leftovers": ("lyra-x",)}, "clean"),
        ({"deviations": (deviation_row("r", "s", "o", datetime.date(2026, 11, 23)),)}, ""),
    ],
)
def test_next_step_is_first_missing_one(changes: dict[str, object], command: str) -> None:
    facts: dict[str, object] = {
        "images": (IMAGE,), "test": PASSED, "promoted_version": "", "deviations": (), "leftovers": (), "dirty": False
    }  # fmt: skip
    suggested, reason = suggest_next_step(**{**facts, **changes})  # type: ignore[arg-type]
    assert suggested == command
    assert reason


def test_recent_entries_are_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.read_recent() == []
    journal.extend("r", [("intent", {"number": number}) for number in range(100)])
    entries = list(journal.entries())
    assert journal.read_recent() == entries
    assert journal.read_recent(2000) == entries[-len(journal.read_recent(2000)) :]
    assert 0 < len(journal.read_recent(2000)) < 12
    with journal.path.open("ab") as file:
        file.write(b'{"torn')
    assert journal.read_recent(2000)[-1] == entries[-1]


def test_status_time_does_not_grow_with_history(lonely: Project) -> None:
    """Measured without an engine, whose answers would hide the difference."""
    first = lonely.lyra("status", "--json", DOCKER_HOST=NO_ENGINE)
    assert first.code == 0, first.text
    (state,) = lonely.state.iterdir()
    initial_seconds = _least_seconds(lonely)
    (state / "journal.jsonl").write_text("".join(_history(1000)))
    _bundles(lonely.root / "promotion" / "tiny", 100)
    result = lonely.lyra("status", "--json", DOCKER_HOST=NO_ENGINE)
    assert result.code == 0, result.text
    document = json.loads(result.out)
    assert [run["run"] for run in document["runs"]] == [f"run-{number}" for number in range(999, 994, -1)]
    assert document["newest_version"] == "1.99.0"
    assert not document["has_engine"]
    assert document["next_command"] == "build test promote"
    assert _least_seconds(lonely) < 1.5 * initial_seconds


def test_status_watch_refreshes_until_interrupt(lonely: Project) -> None:
    watching = lonely.start("status", "--watch", DOCKER_HOST=NO_ENGINE)
    assert watching.stdout is not None
    refreshes = 0
    for line in watching.stdout:
        refreshes += line.startswith("next")
        if refreshes == 2:
            break
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert "KeyboardInterrupt" not in errors and "error:" not in errors


def _history(runs: int) -> Iterator[str]:
    """Yield the journal lines of `runs` runs, without valid hashes."""
    created = {"kind": "container", "name": "lyra-20261124t054210-95fc5c-web", "id": "a" * 64}
    events: list[tuple[str, dict[str, Any]]] = [
        ("run", {"user": "ada", "command": ["build", "test", "promote"]}),
        *[("created", created)] * 40,
    ]
    events.append(("task", {"task": "test", "exit_code": 0, "message": "", "seconds": 1.0}))
    for number in range(runs):
        for event, data in events:
            entry = JournalEntry(0, "2026-11-24T05:42:10.000+00:00", f"run-{number}", event, data)
            yield canonical_json({"schema": JOURNAL_SCHEMA, **entry.__dict__}) + "\n"


def _least_seconds(project: Project) -> float:
    """Return the least processor time of a few, since other load makes one of them larger by half."""
    return min(_seconds(project) for _ in range(4))


def _seconds(project: Project) -> float:
    """Return the processor time of `status`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = project.start("status", DOCKER_HOST=NO_ENGINE)
    process.communicate(timeout=60)
    assert process.returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _bundles(directory: Path, count: int) -> None:
    directory.mkdir(parents=True)
    versions = [
        {
            "commit": "c" * 40, "created": "2026-11-24T05:42:22Z", "is_snapshot": False,
            "set_digest": f"sha256:{number:064x}", "version": f"1.{number}.0",
        }
        for number in reversed(range(count))
    ]  # fmt: skip
    index = {"project": "tiny", "schema": "lyra.promotion-index/1", "versions": versions}
    (directory / "index.json").write_text(json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
