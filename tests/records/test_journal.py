from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
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
    assert journal.find_problems() == []


def test_words_that_are_no_text_are_kept_as_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    command = ["dev.exec", "--", "ls", os.fsdecode(b"caf\xe9"), "ünï"]
    journal.append("r1", "run", command=command)
    journal.append("r1", "word", word="dev.exec")
    assert [entry.data for entry in journal.entries()] == [{"command": command}, {"word": "dev.exec"}]
    assert journal.find_problems() == []


def test_nothing_to_add_adds_nothing(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl", 2)
    assert journal.extend("r1", []) == []
    assert len(list(journal.entries())) == 2
    assert journal.find_problems() == []


def test_a_journal_that_does_not_exist_is_empty_and_sound(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "none.jsonl")
    assert list(journal.entries()) == []
    assert journal.find_problems() == []


@pytest.mark.parametrize(
    ("lines", "last"),
    [(5, {"name": "thing"}), (1, {"name": "the only one"}), (2, {"name": "日本語 ü"}), (2, {"padding": "x" * 9000})],
)
def test_a_torn_last_line_is_repaired_at_every_byte_and_the_repair_is_recorded(
    tmp_path: Path, lines: int, last: dict[str, str]
) -> None:
    sound = filled(tmp_path / "whole.jsonl", lines - 1)
    sound.append("r1", "made", **last)
    whole = sound.path.read_bytes()
    begin = whole.rstrip(b"\n").rfind(b"\n") + 1
    journal = Journal(tmp_path / "torn.jsonl")
    step = 1 if len(whole) < 5000 else 97
    for cut in {begin, *range(begin + 1, len(whole), step), len(whole) - 1}:
        journal.path.write_bytes(whole[:cut])
        journal.head_file.unlink(missing_ok=True)
        journal.append("r2", "made", name="after")
        events = [(entry.event, entry.data.get("name")) for entry in journal.entries()]
        assert events[: lines - 1] == [("made", f"thing-{number}") for number in range(lines - 1)]
        assert [event for event, _ in events[lines - 1 :]] == (["repaired"] if cut > begin else []) + ["made"]
        assert journal.find_problems() == []


def test_a_line_that_was_whole_and_is_torn_later_is_told_although_the_journal_is_repaired(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    journal.path.write_bytes(journal.path.read_bytes()[:-20])
    journal.append("r2", "made", name="after")
    assert [entry.event for entry in journal.entries()][-3:] == ["repaired", "lost", "made"]
    assert journal.find_problems() == ["line 6: when it was written, the entries 5 to 5 were missing before it"]


def edited(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace("thing-1", "thing-9"), *lines[2:]]


def removed(lines: list[str]) -> list[str]:
    return [lines[0], *lines[2:]]


def reordered(lines: list[str]) -> list[str]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def retyped(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"seq":2', '"seq":"2"'), *lines[2:]]


def emptied(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"data":{"name":"thing-1"}', '"data":null'), *lines[2:]]


def nested(lines: list[str]) -> list[str]:
    return [lines[0], "[" * 100_000, *lines[2:]]


def garbled(lines: list[str]) -> list[str]:
    return [lines[0], "nonsense", *lines[2:]]


@pytest.mark.parametrize("change", [edited, removed, reordered, garbled, retyped, emptied, nested])
def test_a_changed_line_is_found(tmp_path: Path, change: object) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    lines = journal.path.read_text().splitlines()
    journal.path.write_text("\n".join(change(lines)) + "\n")  # type: ignore[operator]
    assert lines != change(lines)  # type: ignore[operator]
    assert any("line 2" in problem for problem in journal.find_problems())


def test_a_file_system_that_cannot_sync_takes_a_journal_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fdatasync", refuse)
    journal = filled(tmp_path / "journal.jsonl")
    assert len(list(journal.entries())) == 5


def test_a_line_rewritten_with_a_hash_of_its_own_is_found_by_the_next_one(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    other = filled(tmp_path / "other.jsonl")
    lines, foreign = journal.path.read_text().splitlines(), other.path.read_text().splitlines()
    assert json.loads(lines[1])["hash"] != json.loads(foreign[1])["hash"]
    lines[1] = foreign[1]
    journal.path.write_text("\n".join(lines) + "\n")
    assert journal.find_problems()


def test_a_change_of_any_byte_is_found(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl", 3)
    data = journal.path.read_bytes()
    for place in range(len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        journal.path.write_bytes(changed)
        assert journal.find_problems(), f"byte {place}, {data[place : place + 1]!r}"


@pytest.mark.parametrize("gone", [{0}, {2}, {4}, {3, 4}, {0, 1, 2, 3, 4}])
def test_missing_lines_are_found_wherever_they_stood_also_after_others_were_written(
    tmp_path: Path, gone: set[int]
) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text("".join(line for number, line in enumerate(lines) if number not in gone))
    assert journal.find_problems()
    journal.append("r2", "made", name="after")
    assert journal.find_problems()


def test_lines_in_another_order_are_found(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    lines = journal.path.read_text().splitlines(keepends=True)
    for one, other in combinations(range(len(lines)), 2):
        swapped = list(lines)
        swapped[one], swapped[other] = lines[other], lines[one]
        journal.path.write_text("".join(swapped))
        assert journal.find_problems(), (one, other)


def test_a_crash_before_the_head_was_written_is_no_fault(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl", 2)
    head = journal.head_file.read_bytes()
    journal.append("r1", "made", name="thing-2")
    journal.head_file.write_bytes(head)
    assert journal.find_problems() == []
    journal.head_file.unlink()
    assert journal.find_problems() == []
    journal.append("r1", "made", name="thing-3")
    assert journal.find_problems() == []


def _write(job: tuple[str, int]) -> None:
    path, writer = job
    journal = Journal(Path(path))
    for number in range(5):
        pair = [("made", {"name": f"{writer}-{number}-{part}", "padding": "x" * 3000}) for part in "ab"]
        journal.extend(f"run-{writer}", pair)


def test_forty_writers_lose_and_interleave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with ProcessPoolExecutor(40) as pool:
        list(pool.map(_write, [(str(path), writer) for writer in range(40)]))
    journal = Journal(path)
    assert journal.find_problems() == []
    names = [entry.data["name"] for entry in journal.entries()]
    assert sorted(names) == sorted(f"{w}-{n}-{part}" for w in range(40) for n in range(5) for part in "ab")
    assert all(name[:-1] == names[place + 1][:-1] for place, name in enumerate(names) if name.endswith("a"))
    for writer in range(40):
        own = [name for name in names if name.startswith(f"{writer}-")]
        assert own == [f"{writer}-{n}-{part}" for n in range(5) for part in "ab"]


def test_no_events_write_no_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.extend("r1", []) == []
    journal.append("r1", "run")
    assert journal.extend("r1", []) == []
    assert len(list(journal.entries())) == 1
    assert journal.find_problems() == []


def test_what_was_told_last_of_one_event_is_found_without_reading_the_rest(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl", 1)
    assert list(journal.find_backwards("cleared")) == []
    first = journal.size
    journal.append("r2", "cleared", seen=1)
    journal.append("r2", "made", name='"event":"cleared"', more={"event": "cleared"})
    second = journal.size
    journal.append("r3", "cleared", seen=2)
    journal.append("r4", "made", name="later")
    found = list(journal.find_backwards("cleared"))
    assert [(begin, entry.run) for begin, entry in found] == [(second, "r3"), (first, "r2")]
    assert [entry.run for entry in journal.entries(second)] == ["r3", "r4"]


def test_a_journal_that_is_not_there_has_nothing_to_tell(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.size == 0
    assert not list(journal.find_backwards("cleared"))
    assert not list(journal.entries())
