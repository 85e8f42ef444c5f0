from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lyra_tasks.errors import UsageError
from lyra_tasks.overview.history import entries_about, entries_of_run, select_runs, summarize_runs
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.journal_entry import JournalEntry
from tests.conftest import Project

pytestmark = pytest.mark.slow

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def entries(tmp_path: Path) -> list[JournalEntry]:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("r1-aa", "run", user="ada", command=["build", "test"])
    journal.append("r1-aa", "created", kind="image", name="shop/web:1.0.0", id=DIGEST)
    journal.append("r1-aa", "task", task="build", exit_code=0, message="", seconds=2.5)
    journal.append("r1-aa", "task", task="test", exit_code=5, message="1 of 1 check(s) failed", seconds=1.0)
    journal.append("r2-bb", "run", user="bob", command=["promote"])
    journal.append("r2-bb", "promoted", version="1.0.0", images={"web": DIGEST})
    return list(journal.entries())


def test_run_summary_has_all_task_results(entries: list[JournalEntry]) -> None:
    second, first = summarize_runs(entries)
    assert (first.id, first.user, first.command, first.exit_code) == ("r1-aa", "ada", ("build", "test"), 5)
    assert [(result.task, result.exit_code) for result in first.tasks] == [("build", 0), ("test", 5)]
    assert (first.created, first.removed) == (1, 0)
    assert second.exit_code is None


def test_history_shows_last_runs_without_viewers(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(25):
        for task in ("build", "logs"):
            journal.append(f"r{number:02}-{task}", "run", user="ada", command=[task])
            journal.append(f"r{number:02}-{task}", "task", task=task, exit_code=0, message="", seconds=1.0)
    runs = summarize_runs(journal.entries())
    assert [run.id for run in select_runs(runs, show_all=False)] == [
        f"r{number:02}-build" for number in range(24, 4, -1)
    ]
    assert len(select_runs(runs, show_all=True)) == 50


def test_killed_run_is_shown_whatever_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("r1", "run", user="ada", command=["logs"])
    assert len(select_runs(summarize_runs(journal.entries()), show_all=False)) == 1


def test_run_is_found_by_id_prefix(entries: list[JournalEntry]) -> None:
    assert {entry.run for entry in entries_of_run(entries, "r2")} == {"r2-bb"}
    with pytest.raises(UsageError, match="Ambiguous run 'r'"):
        entries_of_run(entries, "r")
    with pytest.raises(UsageError, match="Unknown run 'x'"):
        entries_of_run(entries, "x")


@pytest.mark.parametrize("query", [DIGEST, "0123456789ab", "sha256:0123456789"])
def test_image_is_found_from_build_to_bundle(entries: list[JournalEntry], query: str) -> None:
    assert [entry.event for entry in entries_about(entries, query)] == ["created", "promoted"]


def test_object_is_found_by_exact_name(entries: list[JournalEntry]) -> None:
    assert [entry.event for entry in entries_about(entries, "shop/web:1.0.0")] == ["created"]
    for query in ("shop/web", "0123", "nothing"):
        with pytest.raises(UsageError, match="No journal entry mentions"):
            entries_about(entries, query)


def test_history_shows_runs_and_detects_edited_line(lonely: Project) -> None:
    assert lonely.lyra("history").out == "No runs yet\n"
    assert lonely.lyra("test").code == 3
    shown = lonely.lyra("history").out
    assert "test: 3" in shown
    assert re.search(r"^20\d\d-\d\d-\d\d \d\d:\d\d  \d+\.\d s ", shown, re.MULTILINE), shown
    (failed_test,) = json.loads(lonely.lyra("history", "--json").out)
    assert failed_test["tasks"][-1]["task"] == "test"
    assert [run["tasks"][-1]["task"] for run in json.loads(lonely.lyra("history", "--all", "--json").out)] == [
        *["history"] * 2, "test", "history",
    ]  # fmt: skip
    run = failed_test["id"]
    assert "exit_code=3" in lonely.lyra("history", "--run", run).out
    assert lonely.lyra("history", "--object", "nothing-of-that-name").code == 2
    assert "all unchanged and in order" in lonely.lyra("history", "--check").out
    (journal,) = lonely.state.glob("*/journal.jsonl")
    journal.write_text(journal.read_text().replace('"exit_code":3', '"exit_code":0'))
    check = lonely.lyra("history", "--check")
    assert check.code == 5
    assert "edited (its hash does not match)" in check.err
