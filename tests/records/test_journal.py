from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from lyra_tasks.records.journal import Journal


def filled(path: Path, count: int = 5) -> Journal:
    journal = Journal(path)
    for number in range(count):
        journal.append("r1", "made", name=f"thing-{number}")
    return journal


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    assert [entry.data["name"] for entry in journal.entries()] == [f"thing-{number}" for number in range(5)]
    assert [entry.seq for entry in journal.entries()] == [1, 2, 3, 4, 5]
    assert journal.problems() == []


def test_a_journal_that_does_not_exist_is_empty_and_sound(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "none.jsonl")
    assert list(journal.entries()) == []
    assert journal.problems() == []


def test_a_torn_last_line_is_repaired_at_every_byte_and_the_repair_is_recorded(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole.jsonl").path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last + 1, len(whole)):
        path = tmp_path / "torn.jsonl"
        path.write_bytes(whole[:cut])
        journal = Journal(path)
        journal.append("r2", "made", name="after")
        events = [(entry.event, entry.data.get("name")) for entry in journal.entries()]
        assert events[:4] == [("made", f"thing-{number}") for number in range(4)]
        assert [event for event, _ in events[4:]] == ["repaired", "made"]
        assert journal.problems() == []


def edited(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace("thing-1", "thing-9"), *lines[2:]]


def removed(lines: list[str]) -> list[str]:
    return [lines[0], *lines[2:]]


def reordered(lines: list[str]) -> list[str]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def garbled(lines: list[str]) -> list[str]:
    return [lines[0], "nonsense", *lines[2:]]


@pytest.mark.parametrize("change", [edited, removed, reordered, garbled])
def test_a_changed_line_is_found(tmp_path: Path, change: object) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    lines = journal.path.read_text().splitlines()
    journal.path.write_text("\n".join(change(lines)) + "\n")  # type: ignore[operator]
    assert any("line 2" in problem for problem in journal.problems())


def test_a_line_rewritten_with_a_hash_of_its_own_is_found_by_the_next_one(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    other = filled(tmp_path / "other.jsonl")
    lines, foreign = journal.path.read_text().splitlines(), other.path.read_text().splitlines()
    assert json.loads(lines[1])["hash"] != json.loads(foreign[1])["hash"]
    lines[1] = foreign[1]
    journal.path.write_text("\n".join(lines) + "\n")
    assert journal.problems()


def _write(job: tuple[str, int]) -> None:
    path, writer = job
    journal = Journal(Path(path))
    for number in range(10):
        journal.append(f"run-{writer}", "made", name=f"{writer}-{number}", padding="x" * 3000)


def test_many_writers_lose_and_interleave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with ProcessPoolExecutor(8) as pool:
        list(pool.map(_write, [(str(path), writer) for writer in range(8)]))
    journal = Journal(path)
    assert journal.problems() == []
    assert len({entry.data["name"] for entry in journal.entries()}) == 80
