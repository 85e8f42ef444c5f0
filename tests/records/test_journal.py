"""Tests of the journal and its hash chain."""

from __future__ import annotations

import errno
import gzip
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest

from lyra_tasks.files import write_file
from lyra_tasks.records.journal import LASTING_EVENTS, Journal
from lyra_tasks.records.journal_entry import JournalEntry


def create_journal(path: Path, count: int = 5) -> Journal:
    journal = Journal(path)
    for number in range(count):
        journal.append("r1", "created", name=f"thing-{number}")
    return journal


def test_entries_are_read_in_order(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal.jsonl")
    assert [entry.data["name"] for entry in journal.entries()] == [f"thing-{number}" for number in range(5)]
    assert [entry.seq for entry in journal.entries()] == [1, 2, 3, 4, 5]
    assert journal.find_problems() == []


def test_entries_without_a_key_are_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    data: list[dict[str, str]] = [{"kind": "image"}, {"name": "kind"}, {}, {"name": "a", "kind": "volume"}]
    for entry in data:
        journal.append("run", "created", **entry)
    found = [entry.data for entry in journal.entries(key="kind")]
    assert [entry for entry in found if "kind" in entry] == [data[0], data[3]]
    assert {} not in found


def test_undecodable_arguments_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    command = ["dev.exec", "--", "ls", os.fsdecode(b"caf\xe9"), "ünï"]
    journal.append("r1", "run", command=command)
    journal.append("r1", "task", task="dev.exec")
    assert [entry.data for entry in journal.entries()] == [{"command": command}, {"task": "dev.exec"}]
    assert journal.find_problems() == []


def test_extend_without_events_adds_nothing(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal.jsonl", 2)
    assert journal.extend("r1", []) == []
    assert len(list(journal.entries())) == 2
    assert journal.find_problems() == []


def test_missing_journal_is_empty_and_valid(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "none.jsonl")
    assert list(journal.entries()) == []
    assert journal.find_problems() == []


@pytest.mark.parametrize(
    ("lines", "last"),
    [(5, {"name": "thing"}), (1, {"name": "the only one"}), (2, {"name": "日本語 ü"}), (2, {"padding": "x" * 9000})],
)
def test_torn_last_line_is_repaired_and_recorded(tmp_path: Path, lines: int, last: dict[str, str]) -> None:
    original = create_journal(tmp_path / "whole.jsonl", lines - 1)
    original.append("r1", "created", **last)
    content = original.path.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    journal = Journal(tmp_path / "torn.jsonl")
    step = 1 if len(content) < 5000 else 97
    head = f"{lines - 1:020d} {[*original.entries()][-1].prev}\n"
    for cut in {start, *range(start + 1, len(content), step), len(content) - 1}:
        journal.path.write_bytes(content[:cut])
        journal.head_file.write_text(head)
        journal.append("r2", "created", name="after")
        events = [(entry.event, entry.data.get("name")) for entry in journal.entries()]
        assert events[: lines - 1] == [("created", f"thing-{number}") for number in range(lines - 1)]
        assert [event for event, _ in events[lines - 1 :]] == (["repaired"] if cut > start else []) + ["created"]
        assert journal.find_problems() == []


def test_entry_torn_later_is_reported_after_the_repair(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal.jsonl")
    journal.path.write_bytes(journal.path.read_bytes()[:-20])
    journal.append("r2", "created", name="after")
    assert [entry.event for entry in journal.entries()][-3:] == ["repaired", "entries-missing", "created"]
    assert journal.find_problems() == ["line 6: the entries 5 to 5 before it were missing when it was written"]


def edit_entry(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace("thing-1", "thing-9"), *lines[2:]]


def remove_entry(lines: list[str]) -> list[str]:
    return [lines[0], *lines[2:]]


def reorder_entries(lines: list[str]) -> list[str]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def change_type(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"seq":2', '"seq":"2"'), *lines[2:]]


def empty_data(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"data":{"name":"thing-1"}', '"data":null'), *lines[2:]]


def nest_deeply(lines: list[str]) -> list[str]:
    return [lines[0], "[" * 100_000, *lines[2:]]


def write_garbage(lines: list[str]) -> list[str]:
    return [lines[0], "nonsense", *lines[2:]]


def repeat_key(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace("{", '{"run":"another",', 1), *lines[2:]]


def repeat_inner_key(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('{"name"', '{"name":"another","name"'), *lines[2:]]


def add_space(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace(",", ", ", 1), *lines[2:]]


def add_carriage_return(lines: list[str]) -> list[str]:
    return [lines[0], lines[1] + "\r", *lines[2:]]


def escape_letter(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace("thing-1", "\\u0074hing-1"), *lines[2:]]


def reorder_keys(lines: list[str]) -> list[str]:
    return [lines[0], json.dumps(dict(reversed(json.loads(lines[1]).items())), separators=(",", ":")), *lines[2:]]


def spell_number(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"seq":2', '"seq":2.0'), *lines[2:]]


@pytest.mark.parametrize(
    "change",
    [
        *(edit_entry, remove_entry, reorder_entries, write_garbage, change_type, empty_data, nest_deeply, repeat_key),
        *(repeat_inner_key, add_space, add_carriage_return, escape_letter, reorder_keys, spell_number),
    ],
)
def test_changed_entry_is_reported(tmp_path: Path, change: object) -> None:
    journal = create_journal(tmp_path / "journal.jsonl")
    lines = journal.path.read_text().splitlines()
    journal.path.write_text("\n".join(change(lines)) + "\n")  # type: ignore[operator]
    assert lines != change(lines)  # type: ignore[operator]
    assert any(problem.startswith("line 2:") for problem in journal.find_problems())


def test_file_system_without_sync_accepts_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fdatasync", refuse)
    journal = create_journal(tmp_path / "journal.jsonl")
    assert len(list(journal.entries())) == 5


def test_entry_rewritten_with_valid_hash_is_reported(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal.jsonl")
    other = create_journal(tmp_path / "other.jsonl")
    lines, other_lines = journal.path.read_text().splitlines(), other.path.read_text().splitlines()
    assert json.loads(lines[1])["hash"] != json.loads(other_lines[1])["hash"]
    lines[1] = other_lines[1]
    journal.path.write_text("\n".join(lines) + "\n")
    assert journal.find_problems()


def test_change_of_any_byte_is_reported(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal.jsonl", 3)
    data = journal.path.read_bytes()
    for position in range(len(data) - 1):
        changed = bytearray(data)
        changed[position] ^= 1
        journal.path.write_bytes(changed)
        assert journal.find_problems(), f"byte {position}, {data[position : position + 1]!r}"


@pytest.mark.parametrize("missing", [{0}, {2}, {4}, {3, 4}, {0, 1, 2, 3, 4}])
def test_missing_entries_are_reported_after_later_writes(tmp_path: Path, missing: set[int]) -> None:
    journal = create_journal(tmp_path / "journal.jsonl")
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text("".join(line for number, line in enumerate(lines) if number not in missing))
    assert journal.find_problems()
    journal.append("r2", "created", name="after")
    assert journal.find_problems()


def test_reordered_entries_are_reported(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal.jsonl")
    lines = journal.path.read_text().splitlines(keepends=True)
    for first, second in combinations(range(len(lines)), 2):
        swapped = list(lines)
        swapped[first], swapped[second] = lines[second], lines[first]
        journal.path.write_text("".join(swapped))
        assert journal.find_problems(), (first, second)


def test_crash_before_the_head_is_written_is_valid(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal.jsonl", 2)
    head = journal.head_file.read_bytes()
    journal.append("r1", "created", name="thing-2")
    journal.head_file.write_bytes(head)
    assert journal.find_problems() == []
    journal.append("r1", "created", name="thing-3")
    assert journal.find_problems() == []


def test_crash_within_the_first_append_is_valid(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal.jsonl", 1)
    line = journal.path.read_bytes()
    for written in (b"", line[:30], line):
        journal.path.write_bytes(b"")
        journal.head_file.unlink()
        with pytest.raises(OSError, match="stop"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fdatasync", _stop)
            journal.append("r1", "created", name="thing-0")
        journal.path.write_bytes(written)
        assert journal.find_problems() == []


def _stop(_descriptor: int) -> None:
    raise OSError(errno.EIO, "stop")


DAMAGED_HEADS = [
    None, b"", b"9" * 5000, b"9" * 5000 + b" " + b"a" * 64 + b"\n", b"garbage", b"\xff" * 86, b"5 abc\n", b"0" * 86,
    "\N{SUPERSCRIPT TWO}".encode() * 20 + b" " + b"a" * 64 + b"\n",
]  # fmt: skip


@pytest.mark.parametrize("head", DAMAGED_HEADS)
def test_missing_or_damaged_head_is_reported_ever_after(tmp_path: Path, head: bytes | None) -> None:
    journal = create_journal(tmp_path / "journal.jsonl")
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text("".join(lines[:3]))
    if head is None:
        journal.head_file.unlink()
    else:
        journal.head_file.write_bytes(head)
    state = "missing" if head is None else "damaged"
    assert journal.find_problems() == [f"{journal.head_file}: {state}, so entries may be missing after line 3"]
    journal.append("r2", "created", name="after")
    assert [entry.event for entry in journal.entries()][-2:] == ["head-lost", "created"]
    assert journal.find_problems() == [
        f"line 4: the head file was {state} when it was written, so entries before it may be missing"
    ]


def _write(job: tuple[str, int]) -> None:
    path, writer = job
    journal = Journal(Path(path))
    for number in range(5):
        pair = [("created", {"name": f"{writer}-{number}-{part}", "padding": "x" * 3000}) for part in "ab"]
        journal.extend(f"run-{writer}", pair)


def test_forty_writers_lose_and_interleave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with ProcessPoolExecutor(40, multiprocessing.get_context("fork")) as pool:
        list(pool.map(_write, [(str(path), writer) for writer in range(40)]))
    journal = Journal(path)
    assert journal.find_problems() == []
    names = [entry.data["name"] for entry in journal.entries()]
    assert sorted(names) == sorted(f"{w}-{n}-{part}" for w in range(40) for n in range(5) for part in "ab")
    assert all(name[:-1] == names[position + 1][:-1] for position, name in enumerate(names) if name.endswith("a"))
    for writer in range(40):
        own = [name for name in names if name.startswith(f"{writer}-")]
        assert own == [f"{writer}-{n}-{part}" for n in range(5) for part in "ab"]


def test_extend_without_events_writes_no_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.extend("r1", []) == []
    journal.append("r1", "run")
    assert journal.extend("r1", []) == []
    assert len(list(journal.entries())) == 1
    assert journal.find_problems() == []


def test_latest_entries_of_an_event_are_found_backwards(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal.jsonl", 1)
    assert list(journal.find_backwards("cleared")) == []
    first = journal.size
    journal.append("r2", "cleared", journal_bytes=1)
    journal.append("r2", "created", name='"event":"cleared"', more={"event": "cleared"})
    second = journal.size
    journal.append("r3", "cleared", journal_bytes=2)
    journal.append("r4", "created", name="later")
    entries = list(journal.find_backwards("cleared"))
    assert [(start, entry.run) for start, entry in entries] == [(second, "r3"), (first, "r2")]
    assert [entry.run for entry in journal.entries(second)] == ["r3", "r4"]


def test_missing_journal_has_no_entries(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.size == 0
    assert not list(journal.find_backwards("cleared"))
    assert not list(journal.entries())


@pytest.mark.parametrize("digits", [5000, 4000, 19])
def test_damaged_head_never_stops_a_command(tmp_path: Path, digits: int) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("run", "first")
    journal.head_file.write_text(f"{'9' * digits} {'0' * 64}\n")
    journal.append("run", "second")
    assert [entry.event for entry in journal.entries()] == ["first", "head-lost", "second"]


@pytest.mark.parametrize("seq", ["9" * 5000, "9" * 4000, "-1", "1e999", "true"])
def test_entry_with_impossible_number_is_no_entry(tmp_path: Path, seq: str) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("run", "first")
    line = journal.path.read_text().replace('"seq":1', f'"seq":{seq}')
    journal.path.write_text(line)
    journal.append("run", "second")
    assert [entry.event for entry in journal.entries()][-1] == "second"
    assert "line 1: not a journal entry" in journal.find_problems()


def fill(journal: Journal, count: int) -> None:
    """Append entries of runs r1, r2, …"""
    for number in range(1, count + 1):
        journal.append(f"r{number}", "task", number=number)


def needs_third(entry: JournalEntry) -> bool:
    return entry.seq == 3


def test_archived_entries_leave_the_journal_but_not_the_chain(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    fill(journal, 10)
    before = list(journal.entries())
    assert journal.archive(needs_third, 4) is not None
    assert [entry.seq for entry in journal.entries()] == [3, 7, 8, 9, 10]
    assert list(journal.recent_entries()) == before[6:]
    assert list(journal.all_entries()) == before
    assert [entry.seq for entry in journal.all_entries({"r2", "r8"})] == [2, 8]
    fill(journal, 6)
    assert journal.archive(lambda entry: False, 4) is not None
    assert [entry.seq for entry in journal.entries()] == [13, 14, 15, 16]
    assert [entry.seq for entry in journal.all_entries()] == list(range(1, 17))
    assert journal.find_problems(archived=True) == []
    assert journal.recent_count == 4


def test_process_that_waited_for_the_lock_writes_to_the_new_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    fill(journal, 5)
    with ThreadPoolExecutor(1) as pool, journal._open_locked():
        waiting = pool.submit(journal.append, "late", "task")
        time.sleep(0.2)
        write_file(journal.path, journal.path.read_bytes())  # as `archive` does
    assert waiting.result().seq == 6
    assert [entry.run for entry in journal.entries()][-1] == "late"
    assert journal.find_problems() == []


def test_edited_journal_is_not_archived(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    fill(journal, 5)
    data = journal.path.read_bytes().replace(b'"number":2', b'"number":7')
    journal.path.write_bytes(data)
    assert journal.archive(lambda entry: False, 2) is None
    assert journal.path.read_bytes() == data


def test_changes_of_archives_are_found(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    fill(journal, 9)
    journal.archive(needs_third, 3)
    (archive,) = journal.archives
    original = archive.path.read_bytes()
    edited = gzip.compress(gzip.decompress(original).replace(b'"number":2', b'"number":5'))
    for data, expected in ((edited, "line 2: edited"), (b"no archive", "archive"), (original[:-9], "archive")):
        archive.path.write_bytes(data)
        assert any(expected in problem for problem in journal.find_problems(archived=True)), expected
    archive.path.write_bytes(original)
    assert journal.find_problems(archived=True) == []
    archive.path.unlink()
    assert journal.find_problems(), "entries before the third are missing"


def test_entry_that_stayed_is_compared_with_the_archive(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path / "journal.jsonl"), Journal(tmp_path / "other" / "journal.jsonl")
    fill(journal, 9)
    fill(other, 2)
    other.append("r3", "task", number=33)
    journal.archive(needs_third, 3)
    lines = journal.path.read_bytes().split(b"\n")
    journal.path.write_bytes(b"\n".join([other.path.read_bytes().split(b"\n")[2], *lines[1:]]))
    assert journal.find_problems(archived=True) == ["line 1: differs from the archived entry 3"]


def test_removed_archive_is_recorded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for _ in range(3):
        fill(journal, 5)
        journal.archive(lambda entry: entry.event in LASTING_EVENTS, 2)
    journal.remove_archive(journal.archives[0], "r9")
    fill(journal, 6)
    journal.archive(lambda entry: entry.event in LASTING_EVENTS, 2)
    assert journal.find_problems(archived=True) == []
    assert journal.first_seq == 4
    assert next(journal.all_entries()).seq == 4


def test_lost_journal_continues_after_its_archives(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    fill(journal, 9)
    journal.archive(lambda entry: False, 3)
    journal.path.unlink()
    journal.append("r10", "task")
    assert [entry.seq for entry in journal.recent_entries()] == [7, 8]
    assert journal.find_problems() == ["line 1: the entries 7 to 9 before it were missing when it was written"]
