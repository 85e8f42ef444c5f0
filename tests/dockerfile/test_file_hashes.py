"""The hash of a large file is known again, and never when anything could have touched the file."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.dockerfile.input_hashes import MIN_CACHED_FILE_BYTES, FileHashCache

CONTENT = bytes(MIN_CACHED_FILE_BYTES)
OTHER = b"x" + CONTENT[1:]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A large file that nobody has touched for a while, as far as the clock knows."""
    path = tmp_path / "large"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / ".lyra").mkdir()
    return tmp_path / ".lyra" / "hashes" / "context.json"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read and hashed."""
    names: list[str] = []
    real = hashlib.file_digest

    def wrapped(file: Any, digest: str) -> object:
        names.append(Path(file.name).name)
        return real(file, digest)

    monkeypatch.setattr(hashlib, "file_digest", wrapped)
    return names


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an hour later than the files are old."""
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 3600 * 10**9)


def hashed(path: Path, store: Path) -> str:
    hashes = FileHashCache(store)
    found = hashes.digest(path, path.stat().st_size).hex()
    hashes.save()
    return found


def test_a_large_file_that_nobody_touched_is_read_once(large: Path, store: Path, read: list[str], later: None) -> None:
    want = hashlib.sha256(CONTENT).hexdigest()
    assert [hashed(large, store) for _ in range(3)] == [want] * 3
    assert read == ["large"]


def replaced(path: Path) -> None:
    path.with_name("new").write_bytes(OTHER)
    path.with_name("new").replace(path)


def written(path: Path) -> None:
    path.write_bytes(OTHER)


def written_under_the_same_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("touch", [replaced, written, written_under_the_same_time])
def test_a_file_that_was_touched_is_read_again(
    large: Path, store: Path, read: list[str], later: None, touch: Callable[[Path], None]
) -> None:
    hashed(large, store)
    time.sleep(0.02)  # the kernel's clock for files ticks a hundred to a thousand times a second
    touch(large)
    assert hashed(large, store) == hashlib.sha256(OTHER).hexdigest()
    assert read == ["large"] * 2


def test_a_file_that_was_touched_just_now_is_not_remembered(large: Path, store: Path, read: list[str]) -> None:
    hashed(large, store)
    hashed(large, store)
    assert read == ["large"] * 2


def test_small_files_are_not_remembered_and_without_a_folder_nothing_is(
    tmp_path: Path, large: Path, store: Path, read: list[str], later: None
) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"x")
    hashed(small, store)
    hashed(large, tmp_path / "nowhere" / "hashes" / "context.json")
    assert not store.exists()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-10],
        lambda text: "[]",
        lambda text: text.replace("file-hashes/1", "file-hashes/2"),
        lambda text: json.dumps(json.loads(text) | {"more": 1}),
        lambda text: text.replace('"files": {', '"files": {"x": 1,'),
        lambda text: text.replace(hashlib.sha256(CONTENT).hexdigest(), "none"),
    ],
)
def test_what_was_kept_and_is_damaged_is_made_anew(
    large: Path, store: Path, read: list[str], later: None, damage: Callable[[str], str]
) -> None:
    hashed(large, store)
    whole = store.read_text()
    store.write_text(damage(whole))
    assert store.read_text() != whole
    assert hashed(large, store) == hashlib.sha256(CONTENT).hexdigest()
    assert read == ["large"] * 2
    assert store.read_text() == whole
