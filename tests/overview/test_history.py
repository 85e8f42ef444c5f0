from __future__ import annotations

import json
from pathlib import Path

import pytest

from lyra_tasks.errors import UsageError
from lyra_tasks.overview.history import entries_about, entries_of_run, summarize_runs
from lyra_tasks.records.journal import Journal, JournalEntry
from tests.conftest import Project

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def entries(tmp_path: Path) -> list[JournalEntry]:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("r1-aa", "run", user="ada", command=["build", "test"])
    journal.append("r1-aa", "made", kind="image", name="shop/web:1.0.0", id=DIGEST)
    journal.append("r1-aa", "word", word="build", exit_code=0, message="", seconds=2.5)
    journal.append("r1-aa", "word", word="test", exit_code=5, message="1 of 1 check(s) failed", seconds=1.0)
    journal.append("r2-bb", "run", user="bob", command=["promote"])
    journal.append("r2-bb", "promoted", version="1.0.0", images={"web": DIGEST})
    return list(journal.entries())


def test_a_run_is_its_words_and_how_each_of_them_ended(entries: list[JournalEntry]) -> None:
    first, second = summarize_runs(entries)
    assert (first.id, first.user, first.command, first.exit_code) == ("r1-aa", "ada", ("build", "test"), 5)
    assert [(each.task, each.exit_code) for each in first.tasks] == [("build", 0), ("test", 5)]
    assert (first.created, first.removed) == (1, 0)
    assert second.exit_code is None


def test_one_run_is_found_by_the_beginning_of_its_id(entries: list[JournalEntry]) -> None:
    assert {entry.run for entry in entries_of_run(entries, "r2")} == {"r2-bb"}
    with pytest.raises(UsageError, match="several runs begin with 'r'"):
        entries_of_run(entries, "r")
    with pytest.raises(UsageError, match="no run 'x'"):
        entries_of_run(entries, "x")


@pytest.mark.parametrize("thing", [DIGEST, "0123456789ab", "sha256:0123456789"])
def test_an_image_is_followed_from_the_build_to_the_bundle(entries: list[JournalEntry], thing: str) -> None:
    assert [entry.event for entry in entries_about(entries, thing)] == ["made", "promoted"]


def test_an_object_is_found_by_its_name_and_nothing_else_is(entries: list[JournalEntry]) -> None:
    assert [entry.event for entry in entries_about(entries, "shop/web:1.0.0")] == ["made"]
    for thing in ("shop/web", "0123", "nothing"):
        with pytest.raises(UsageError, match="nothing about"):
            entries_about(entries, thing)


def test_the_word_tells_what_happened_and_finds_a_line_that_was_changed(lonely: Project) -> None:
    assert lonely.lyra("history").out == "nothing has happened yet\n"
    assert lonely.lyra("test").code == 3
    told = lonely.lyra("history")
    assert "test: 3" in told.out
    assert json.loads(lonely.lyra("history", "--json").out)[-2]["words"][-1]["word"] == "test"
    run = json.loads(lonely.lyra("history", "--json").out)[1]["id"]
    assert "exit_code=3" in lonely.lyra("history", "--run", run).out
    assert lonely.lyra("history", "--object", "nothing-of-that-name").code == 2
    assert "each as it was written" in lonely.lyra("history", "--check").out
    (journal,) = lonely.state.glob("*/journal.jsonl")
    journal.write_text(journal.read_text().replace('"exit_code":3', '"exit_code":0'))
    checked = lonely.lyra("history", "--check")
    assert checked.code == 5
    assert "edited (its hash does not match)" in checked.err
