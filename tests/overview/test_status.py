"""The next sensible word, the screen at two widths, and the history that must not be read."""

from __future__ import annotations

import datetime
import json
import resource
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.overview.status import (
    ImageRow,
    LabRow,
    LabService,
    RunRow,
    Status,
    TestStatus,
    deviation_rows,
    status_document,
    status_lines,
    suggest_next_step,
)
from lyra_tasks.records.journal import JOURNAL_SCHEMA, Journal, JournalEntry
from lyra_tasks.records.record import canonical_json
from tests.conftest import PROJECTS, Project, repository

NOWHERE = "unix:///nowhere.sock"
TODAY = datetime.date(2026, 11, 24)
IMAGE = ImageRow(
    "web", "0.1.0-dev.3+g1a2b3c4", "1a2b3c4", False, "2026-11-24T05:42:22+00:00", 31_400_000, "sha256:1", ""
)
PASSED = TestStatus(True, "20261124t054210-95fc5c", "2026-11-24T05:42:23+00:00", 15, (), {"kept": 12, "deviation": 1})
DEVIATIONS = deviation_rows(
    [
        ("container.egress", "services.web", "ada", datetime.date(2027, 3, 31)),
        ("container.non-root", "services.old", "bob", datetime.date(2026, 11, 25)),
    ],
    TODAY,
)
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
    unknown_reason="not before all images are current",
    promoted_version="",
    newest_version="0.1.0-dev.2+g0000000",
    deviations=tuple(DEVIATIONS),
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
    runs=(RunRow("r", "2026-11-24T05:42:10.000+00:00", "build test", (("build", 0, 3.0), ("test", 5, 2.0))),),
    next_command="build",
    next_reason="counter was built before its context changed",
)


@pytest.mark.parametrize("width", [80, 200])
def test_the_screen_says_all_of_it_and_fits(width: int) -> None:
    screen = status_lines(STATUS, width)
    assert max(map(len, screen)) <= width
    text = " ".join(" ".join(screen).split())
    for said in (
        "guestbook 0.1.0-dev.3+g1a2b3c4, main at 1a2b3c4, uncommitted changes",
        "counter 0.1.0-dev.3+g1a2b3c4 31.4 MB stale: was built before its context changed",
        "not this set; the newest bundle is 0.1.0-dev.2+g0000000",
        "container.non-root for services.old (bob) until 2026-11-25, in 1 day",
        "container.egress for services.web (ada) until 2027-03-31",
        "development, run 20261124t060000-123abc",
        "web: running, http at 127.0.0.1:32768, 12.0 MB of 128.0 MB, 0.02 of 0.5 CPUs",
        "and 2 more",
        "build test: test ended with 5",
        "next `build`: counter was built before its context changed",
    ):
        assert said in text
    assert len(screen) < (40 if width == 80 else 25), "one screen"


def test_for_programs_it_is_all_there_as_plain_json() -> None:
    found = json.loads(json.dumps(status_document(STATUS)))
    assert found["schema"] == "lyra.status/1"
    assert found["deviations"][0] == {
        "rule": "container.non-root", "scope": "services.old", "owner": "bob", "expires": "2026-11-25", "days": 1,
        "ends_soon": True,
    }  # fmt: skip
    assert found["runs"][0]["words"][1] == {"word": "test", "exit_code": 5, "seconds": 2.0}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "promote"),
        ({"images": ()}, ""),
        ({"images": (IMAGE, STATUS.images[1])}, "build"),
        ({"tested": None}, "test"),
        ({"tested": replace(PASSED, passed=False, failed=("front page greets",))}, ""),
        ({"tested": replace(PASSED, promotion_refusal="images.web@linux/arm64 (rule test.platform)")}, ""),
        ({"promoted": "1.0.0"}, ""),
        ({"leftovers": ("lyra-x",)}, "clean"),
        ({"deviations": deviation_rows([("r", "s", "o", datetime.date(2026, 11, 23))], TODAY)}, ""),
    ],
)
def test_the_next_word_is_the_first_thing_that_is_missing(changes: dict[str, object], word: str) -> None:
    facts: dict[str, object] = {
        "images": (IMAGE,), "tested": PASSED, "promoted": "", "deviations": (), "leftovers": (), "dirty": False
    }  # fmt: skip
    found, why = suggest_next_step(**{**facts, **changes})  # type: ignore[arg-type]
    assert found == word
    assert why


def test_the_newest_entries_are_whole_lines_of_the_end(tmp_path: Path) -> None:
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


@pytest.fixture
def lonely(tmp_path: Path, cache: Path) -> Project:
    """The tiny project where no engine answers; it is never built."""
    shutil.copytree(PROJECTS / "tiny", tmp_path / "project")
    return repository(tmp_path / "project", tmp_path, cache, None)


def test_it_takes_as_long_after_a_thousand_runs_and_a_hundred_bundles(lonely: Project) -> None:
    """Without an engine, whose answers would hide the difference."""
    first = lonely.lyra("status", "--json", DOCKER_HOST=NOWHERE)
    assert first.code == 0, first.text
    (state,) = lonely.state.iterdir()
    fresh = _seconds(lonely)
    (state / "journal.jsonl").write_text("".join(_history(1000)))
    _bundles(lonely.root / "promotion" / "tiny", 100)
    found = lonely.lyra("status", "--json", DOCKER_HOST=NOWHERE)
    assert found.code == 0, found.text
    shown = json.loads(found.out)
    assert [each["run"] for each in shown["runs"]] == [f"run-{number}" for number in range(999, 994, -1)]
    assert shown["newest"] == "1.99.0"
    assert not shown["has_engine"]
    assert shown["next"] == "build"
    assert _seconds(lonely) < 1.5 * fresh


def test_watching_shows_it_again_and_ends_in_order_with_ctrl_c(lonely: Project) -> None:
    watching = lonely.start("status", "--watch", DOCKER_HOST=NOWHERE)
    assert watching.stdout is not None
    seen = 0
    for line in watching.stdout:
        seen += line.startswith("next")
        if seen == 2:
            break
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert "KeyboardInterrupt" not in errors and "error:" not in errors


def _history(runs: int) -> Iterator[str]:
    """The lines of so many runs; the chain of hashes is not what is looked at."""
    made = {"kind": "container", "name": "lyra-20261124t054210-95fc5c-web", "id": "a" * 64}
    events: list[tuple[str, dict[str, Any]]] = [
        ("run", {"user": "ada", "command": ["build", "test", "promote"]}),
        *[("made", made)] * 40,
    ]
    events.append(("word", {"word": "test", "exit_code": 0, "message": "", "seconds": 1.0}))
    for number in range(runs):
        for event, data in events:
            entry = JournalEntry(0, "2026-11-24T05:42:10.000+00:00", f"run-{number}", event, data)
            yield canonical_json({"schema": JOURNAL_SCHEMA, **entry.__dict__}) + "\n"


def _seconds(project: Project) -> float:
    """Processor time, since what else goes on on the machine is not the question."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert project.lyra("status", DOCKER_HOST=NOWHERE).code == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _bundles(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    versions = [
        {
            "commit": "c" * 40, "created": "2026-11-24T05:42:22Z", "is_snapshot": False,
            "set_digest": f"sha256:{number:064x}", "version": f"1.{number}.0",
        }
        for number in reversed(range(count))
    ]  # fmt: skip
    index = {"project": "tiny", "schema": "lyra.promotion-index/1", "versions": versions}
    (folder / "index.json").write_text(json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
