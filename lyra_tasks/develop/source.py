"""The source of a service, on this side: git's files and untracked ones that are not ignored, and what of them changed.

What has the size and time stamp it had is taken as unchanged; the rest is compared by content.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lyra_tasks.records.dev import UploadedFile
from lyra_tasks.versions.git import run_git


@dataclass(frozen=True)
class LocalFiles:
    """The files of a checkout, by path below a context; `unnamed` are those whose names are no UTF-8."""

    files: Mapping[str, os.stat_result]
    invalid_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceChanges:
    """What must be carried in: new or changed files, files that are gone, and folders that they leave empty."""

    upload: tuple[str, ...]
    delete: tuple[str, ...]
    empty_directories: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upload or self.delete)


@dataclass
class SourceArchive:
    """What a tar stream holds; a file that vanished while it was written is not in it."""

    files: dict[str, UploadedFile] = field(default_factory=dict)
    size: int = 0


def list_local_files(context: Path, excluded: Path) -> LocalFiles:
    """What git knows below `context`, and what it does not ignore; nothing below `without`, and no submodule's folder.

    PreconditionError outside of a repository.
    """
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
        if not _is_utf8(name):
            invalid_names.append(name.encode(errors="surrogateescape").decode(errors="replace"))
        elif stat.S_ISLNK(status.st_mode):
            symlinks.add(name)
            files[name] = status
        elif stat.S_ISREG(status.st_mode):
            files[name] = status
    return LocalFiles(files, tuple(invalid_names))


def diff_source(
    context: Path, files: Mapping[str, os.stat_result], uploaded: Mapping[str, UploadedFile]
) -> SourceChanges:
    """What differs from what was carried in before."""
    upload = [name for name, status in files.items() if _differs(context / name, status, uploaded.get(name))]
    delete = [name for name in uploaded if name not in files]
    used_directories = {parent for name in files for parent in iter_parents(name)}
    empty_directories = {parent for name in delete for parent in iter_parents(name)} - used_directories
    return SourceChanges(
        tuple(upload), tuple(delete), tuple(sorted(empty_directories, key=lambda name: name.count("/"), reverse=True))
    )


def write_source_archive(context: Path, names: Iterable[str], out: IO[bytes], uid: int, gid: int) -> SourceArchive:
    """Write files and links below `context`, with the folders they lie in, as one tar that belongs to `uid`:`gid`."""
    result = SourceArchive()
    directories: set[str] = set()
    # GNU's format takes any name as it is, and has one header per file
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for name in names:
            for parent in reversed(list(iter_parents(name))):
                if parent not in directories:
                    directories.add(parent)
                    archive.addfile(_directory_entry(context, parent, uid, gid))
            try:
                result.files[name] = _add_file(archive, context, name, uid, gid)
            except (FileNotFoundError, NotADirectoryError):
                continue
            result.size += result.files[name].size
    return result


def iter_parents(name: str) -> Iterator[str]:
    """The folders that a path lies in, the nearest first."""
    while (name := name.rpartition("/")[0]) != "":
        yield name


def read_file_record(path: Path, status: os.stat_result) -> UploadedFile:
    """A file or link of the checkout as it would be carried now."""
    if stat.S_ISLNK(status.st_mode):
        return _link_record(os.fsencode(path.readlink()), status)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _file_record(digest, status)


def hash_link_target(target: bytes) -> str:
    """What stands for the content of a symbolic link."""
    return hashlib.sha256(target).hexdigest()


def _differs(path: Path, status: os.stat_result, previous: UploadedFile | None) -> bool:
    if previous is None:
        return True
    if (previous.size, previous.mtime_ns, previous.mode) == (
        status.st_size,
        status.st_mtime_ns,
        stat.S_IMODE(status.st_mode),
    ):
        return stat.S_ISLNK(status.st_mode) != (previous.kind == "link")
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
        return _link_record(target, status)
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        entry.size, entry.mode, entry.mtime = status.st_size, stat.S_IMODE(status.st_mode), status.st_mtime_ns // 10**9
        content = _HashingReader(file, status.st_size)
        archive.addfile(entry, content)  # type: ignore[arg-type]
    return _file_record(content.digest, status)


def _directory_entry(context: Path, name: str, uid: int, gid: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.uid, entry.gid = tarfile.DIRTYPE, uid, gid
    try:
        entry.mode = stat.S_IMODE((context / name).stat().st_mode) | stat.S_IRWXU
    except OSError:
        entry.mode = 0o755
    return entry


def _file_record(digest: str, status: os.stat_result) -> UploadedFile:
    return UploadedFile(
        kind="file", size=status.st_size, mtime_ns=status.st_mtime_ns, mode=stat.S_IMODE(status.st_mode), digest=digest
    )


def _link_record(target: bytes, status: os.stat_result) -> UploadedFile:
    return UploadedFile(
        kind="link",
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        mode=stat.S_IMODE(status.st_mode),
        digest=hash_link_target(target),
    )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _HashingReader:
    """A file of exactly `size` bytes, hashed as it is read; one that shrinks meanwhile is filled up with zeros.

    A file that is being written may have another length than it had: the next look finds it changed.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._remaining = size
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        length = min(size, self._remaining)
        data = self._file.read(length).ljust(length, b"\0")
        self._remaining -= length
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        """The digest of what was read."""
        return self._hash.hexdigest()
