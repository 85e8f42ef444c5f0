"""Tests of the cache of file hashes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from lyra_tasks.dockerfile import file_hashes
from lyra_tasks.dockerfile.file_hashes import MIN_CACHED_FILE_BYTES, ContentHash, FileHashCache

CONTENT = bytes(MIN_CACHED_FILE_BYTES)
OTHER = b"x" + CONTENT[1:]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Create a large file."""
    path = tmp_path / "large"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    (tmp_path / ".lyra").mkdir()
    return tmp_path / ".lyra" / "hashes" / "context.json"


@pytest.fixture
def read_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of files that are read and hashed."""
    names: list[str] = []
    real = file_hashes._hash_open_file

    def wrapped(file: IO[bytes], size: int) -> ContentHash:
        names.append(os.readlink(f"/proc/self/fd/{file.fileno()}").rpartition("/")[2])
        return real(file, size)

    monkeypatch.setattr(file_hashes, "_hash_open_file", wrapped)
    return names


@pytest.fixture
def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the clock one hour ahead of the files."""
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 3600 * 10**9)


def hash_file(path: Path, cache_file: Path) -> str:
    cache = FileHashCache(cache_file)
    digest = cache.hash_file(str(path), path.lstat()).sha256
    cache.save([str(path)])
    return digest


def test_unchanged_large_file_is_read_once(
    large: Path, cache_file: Path, read_names: list[str], an_hour_later: None
) -> None:
    expected = hashlib.sha256(CONTENT).hexdigest()
    assert [hash_file(large, cache_file) for _ in range(3)] == [expected] * 3
    assert read_names == ["large"]


def replace_file(path: Path) -> None:
    path.with_name("new").write_bytes(OTHER)
    path.with_name("new").replace(path)


def rewrite(path: Path) -> None:
    path.write_bytes(OTHER)


def rewrite_with_same_mtime(path: Path) -> None:
    before = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [replace_file, rewrite, rewrite_with_same_mtime])
def test_changed_file_is_read_again(
    large: Path, cache_file: Path, read_names: list[str], an_hour_later: None, change: Callable[[Path], None]
) -> None:
    hash_file(large, cache_file)
    time.sleep(0.02)  # file times of the kernel advance only every 1 to 10 ms
    change(large)
    assert hash_file(large, cache_file) == hashlib.sha256(OTHER).hexdigest()
    assert read_names == ["large"] * 2


def test_just_changed_file_is_not_cached(large: Path, cache_file: Path, read_names: list[str]) -> None:
    hash_file(large, cache_file)
    hash_file(large, cache_file)
    assert read_names == ["large"] * 2


def test_small_files_are_not_cached_on_disk(
    tmp_path: Path, large: Path, cache_file: Path, read_names: list[str], an_hour_later: None
) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"x")
    hash_file(small, cache_file)
    hash_file(large, tmp_path / "nowhere" / "hashes" / "context.json")
    assert not cache_file.exists()
    assert not (tmp_path / "nowhere").exists()


def test_small_file_is_read_once_in_a_process(
    tmp_path: Path, cache_file: Path, read_names: list[str], an_hour_later: None
) -> None:
    small, cache = tmp_path / "small", FileHashCache(cache_file)
    for content in (b"x", b"y"):
        small.write_bytes(content)
        for _ in range(2):
            assert cache.hash_file(str(small), small.lstat()).sha256 == hashlib.sha256(content).hexdigest()
        time.sleep(0.02)
    assert read_names == ["small"] * 2


def test_file_is_hashed_as_git_does(tmp_path: Path, large: Path, cache_file: Path) -> None:
    for path in (large, tmp_path / "small"):
        path.write_bytes(OTHER if path == large else b"x")
        expected = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout
        assert FileHashCache(cache_file).hash_file(str(path), path.lstat()).git_id == expected.strip()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-10],
        lambda text: "[]",
        lambda text: text.replace("file-hashes/2", "file-hashes/1"),
        lambda text: json.dumps(json.loads(text) | {"more": 1}),
        lambda text: text.replace('"files": {', '"files": {"x": 1,'),
        lambda text: text.replace(hashlib.sha256(CONTENT).hexdigest(), "none"),
    ],
)
def test_damaged_cache_is_rebuilt(
    large: Path, cache_file: Path, read_names: list[str], an_hour_later: None, damage: Callable[[str], str]
) -> None:
    hash_file(large, cache_file)
    original = cache_file.read_text()
    cache_file.write_text(damage(original))
    assert cache_file.read_text() != original
    assert hash_file(large, cache_file) == hashlib.sha256(CONTENT).hexdigest()
    assert read_names == ["large"] * 2
    assert cache_file.read_text() == original
