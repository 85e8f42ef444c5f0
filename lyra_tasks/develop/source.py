"""The source of a service in the checkout: tracked and untracked files that git does not ignore, and their changes.

A file to which nothing happened since its last upload, by all that its `stat` says, counts as unchanged; others are
compared by content.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from lyra_tasks.digests import file_sha256, sha256_hex
from lyra_tasks.dockerfile.file_hashes import format_stamp, is_settled
from lyra_tasks.records.dev import UploadedFile
from lyra_tasks.versions.git import run_git


@dataclass(frozen=True)
class LocalFiles:
    """Files of a checkout by path below a context; `invalid_names` are not valid UTF-8."""

    files: Mapping[str, os.stat_result]
    invalid_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceChanges:
    """Files to upload, files to delete, and directories that the deletions leave empty."""

    upload: tuple[str, ...]
    delete: tuple[str, ...]
    empty_directories: tuple[str, ...] = ()


def list_local_files(context: Path, excluded: Path) -> LocalFiles:
    """Return the files below `context` that git tracks or does not ignore, except those below `excluded`."""
    output = run_git(context, "ls-files", "-z", "--cached", "--recurse-submodules")
    output += run_git(context, "ls-files", "-z", "--others", "--exclude-standard")
    files: dict[str, os.stat_result] = {}
    symlinks: set[str] = set()
    invalid_names = []
    for name in sorted({name for name in output.split("\0") if name}):
        path = context / name
        if path.is_relative_to(excluded) or any(parent in symlinks for parent in iter_parents(name)):
            continue
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        printable = name.encode(errors="surrogateescape").decode(errors="replace")
        if printable != name:
            invalid_names.append(printable)
        elif stat.S_ISLNK(status.st_mode):
            symlinks.add(name)
            files[name] = status
        elif stat.S_ISREG(status.st_mode):
            files[name] = status
    return LocalFiles(files, tuple(invalid_names))


def diff_source(
    context: Path, files: Mapping[str, os.stat_result], uploaded: Mapping[str, UploadedFile]
) -> SourceChanges:
    """Compare local files with the last upload."""
    upload = [name for name, status in files.items() if _differs(context / name, status, uploaded.get(name))]
    delete = [name for name in uploaded if name not in files]
    used_directories = {parent for name in files for parent in iter_parents(name)}
    empty_directories = {parent for name in delete for parent in iter_parents(name)} - used_directories
    return SourceChanges(
        tuple(upload), tuple(delete), tuple(sorted(empty_directories, key=lambda name: name.count("/"), reverse=True))
    )


def write_source_archive(
    context: Path, names: Iterable[str], out: IO[bytes], uid: int, gid: int
) -> dict[str, UploadedFile]:
    """Write files and symlinks below `context`, with their parent directories, as a tar owned by `uid`:`gid`.

    Returns the records of the written files; files that disappeared meanwhile are not among them.
    """
    files: dict[str, UploadedFile] = {}
    directories: set[str] = set()
    # The GNU format keeps any name as it is and needs one header per file.
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for name in names:
            for parent in reversed(list(iter_parents(name))):
                if parent not in directories:
                    directories.add(parent)
                    entry = tarfile.TarInfo(parent)
                    entry.type, entry.uid, entry.gid, entry.mode = tarfile.DIRTYPE, uid, gid, 0o755
                    with suppress(OSError):
                        entry.mode = stat.S_IMODE((context / parent).stat().st_mode) | stat.S_IRWXU
                    archive.addfile(entry)
            with suppress(FileNotFoundError, NotADirectoryError):
                files[name] = _add_file(archive, context, name, uid, gid)
    return files


def iter_parents(name: str) -> Iterator[str]:
    """Yield the parent directories of a path, nearest first."""
    while (name := name.rpartition("/")[0]) != "":
        yield name


def read_file_record(path: Path, status: os.stat_result) -> UploadedFile:
    """Return the record that an upload of this file or symlink would leave now."""
    if stat.S_ISLNK(status.st_mode):
        return _build_record("link", sha256_hex(os.fsencode(path.readlink())), status)
    return _build_record("file", file_sha256(path), status)


def _differs(path: Path, status: os.stat_result, previous: UploadedFile | None) -> bool:
    if previous is None:
        return True
    if previous.stamp == format_stamp(status):
        return False
    try:
        current = read_file_record(path, status)
    except OSError:
        return True
    return (current.kind, current.mode, current.digest) != (previous.kind, previous.mode, previous.digest)


def _add_file(archive: tarfile.TarFile, context: Path, name: str, uid: int, gid: int) -> UploadedFile:
    path = context / name
    entry = tarfile.TarInfo(name)
    entry.uid, entry.gid = uid, gid
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        target = os.fsencode(path.readlink())
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, os.fsdecode(target), 0o777
        entry.mtime = status.st_mtime_ns // 10**9
        archive.addfile(entry)
        return _build_record("link", sha256_hex(target), status)
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        entry.size, entry.mode, entry.mtime = status.st_size, stat.S_IMODE(status.st_mode), status.st_mtime_ns // 10**9
        content = _HashingReader(file, status.st_size)
        archive.addfile(entry, content)  # type: ignore[arg-type]
    return _build_record("file", content.hash.hexdigest(), status)


def _build_record(kind: Literal["file", "link"], digest: str, status: os.stat_result) -> UploadedFile:
    mode = stat.S_IMODE(status.st_mode)
    stamp = format_stamp(status) if is_settled(status, time.time_ns()) else ""
    return UploadedFile(kind=kind, size=status.st_size, stamp=stamp, mode=mode, digest=digest)


class _HashingReader:
    """Reader of exactly `size` bytes that hashes them; a file that shrinks meanwhile is padded with zeros.

    The next sync finds such a file changed.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._remaining = size
        self.hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        length = min(size, self._remaining)
        data = self._file.read(length).ljust(length, b"\0")
        self._remaining -= length
        self.hash.update(data)
        return data
