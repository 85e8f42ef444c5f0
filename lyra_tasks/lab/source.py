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

from lyra_tasks.config.git import git
from lyra_tasks.records.dev import CarriedFile


@dataclass(frozen=True)
class Local:
    """The files of a checkout, by path below a context; `unnamed` are those whose names are no UTF-8."""

    files: Mapping[str, os.stat_result]
    unnamed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changes:
    """What must be carried in: new or changed files, files that are gone, and folders that they leave empty."""

    put: tuple[str, ...]
    delete: tuple[str, ...]
    folders: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.put or self.delete)


@dataclass
class Packed:
    """What a tar stream holds; a file that vanished while it was written is not in it."""

    files: dict[str, CarriedFile] = field(default_factory=dict)
    size: int = 0


def local_files(context: Path, without: Path) -> Local:
    """What git knows below `context`, and what it does not ignore; nothing below `without`, and no submodule's folder.

    PreconditionError outside of a repository.
    """
    listed = git(context, "ls-files", "-z", "--cached", "--recurse-submodules")
    listed += git(context, "ls-files", "-z", "--others", "--exclude-standard")
    found: dict[str, os.stat_result] = {}
    links: set[str] = set()
    unnamed = []
    for name in sorted({name for name in listed.split("\0") if name}):
        path = context / name
        if path.is_relative_to(without) or any(parent in links for parent in parents(name)):
            continue
        try:
            seen = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not _is_utf8(name):
            unnamed.append(name.encode(errors="surrogateescape").decode(errors="replace"))
        elif stat.S_ISLNK(seen.st_mode):
            links.add(name)
            found[name] = seen
        elif stat.S_ISREG(seen.st_mode):
            found[name] = seen
    return Local(found, tuple(unnamed))


def changes(context: Path, files: Mapping[str, os.stat_result], carried: Mapping[str, CarriedFile]) -> Changes:
    """What differs from what was carried in before."""
    put = [name for name, seen in files.items() if _differs(context / name, seen, carried.get(name))]
    delete = [name for name in carried if name not in files]
    kept = {parent for name in files for parent in parents(name)}
    empty = {parent for name in delete for parent in parents(name)} - kept
    return Changes(tuple(put), tuple(delete), tuple(sorted(empty, key=lambda name: name.count("/"), reverse=True)))


def pack(context: Path, names: Iterable[str], out: IO[bytes], uid: int, gid: int) -> Packed:
    """Write files and links below `context`, with the folders they lie in, as one tar that belongs to `uid`:`gid`."""
    packed = Packed()
    folders: set[str] = set()
    # GNU's format takes any name as it is, and has one header per file
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for name in names:
            for parent in reversed(list(parents(name))):
                if parent not in folders:
                    folders.add(parent)
                    archive.addfile(_folder(context, parent, uid, gid))
            try:
                packed.files[name] = _add(archive, context, name, uid, gid)
            except (FileNotFoundError, NotADirectoryError):
                continue
            packed.size += packed.files[name].size
    return packed


def parents(name: str) -> Iterator[str]:
    """The folders that a path lies in, the nearest first."""
    while (name := name.rpartition("/")[0]) != "":
        yield name


def carried_as(path: Path, seen: os.stat_result) -> CarriedFile:
    """A file or link of the checkout as it would be carried now."""
    if stat.S_ISLNK(seen.st_mode):
        return _link(os.fsencode(path.readlink()), seen)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _file(digest, seen)


def link_digest(target: bytes) -> str:
    """What stands for the content of a symbolic link."""
    return hashlib.sha256(target).hexdigest()


def _differs(path: Path, seen: os.stat_result, before: CarriedFile | None) -> bool:
    if before is None:
        return True
    if (before.size, before.mtime_ns, before.mode) == (seen.st_size, seen.st_mtime_ns, stat.S_IMODE(seen.st_mode)):
        return stat.S_ISLNK(seen.st_mode) != (before.kind == "link")
    try:
        now = carried_as(path, seen)
    except OSError:
        return True
    return (now.kind, now.mode, now.digest) != (before.kind, before.mode, before.digest)


def _add(archive: tarfile.TarFile, context: Path, name: str, uid: int, gid: int) -> CarriedFile:
    path = context / name
    entry = tarfile.TarInfo(name)
    entry.uid, entry.gid = uid, gid
    seen = path.lstat()
    if stat.S_ISLNK(seen.st_mode):
        target = os.fsencode(path.readlink())
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, os.fsdecode(target), 0o777
        entry.mtime = seen.st_mtime_ns // 10**9
        archive.addfile(entry)
        return _link(target, seen)
    with path.open("rb") as file:
        seen = os.fstat(file.fileno())
        entry.size, entry.mode, entry.mtime = seen.st_size, stat.S_IMODE(seen.st_mode), seen.st_mtime_ns // 10**9
        content = _Measured(file, seen.st_size)
        archive.addfile(entry, content)  # type: ignore[arg-type]
    return _file(content.digest, seen)


def _folder(context: Path, name: str, uid: int, gid: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.uid, entry.gid = tarfile.DIRTYPE, uid, gid
    try:
        entry.mode = stat.S_IMODE((context / name).stat().st_mode) | stat.S_IRWXU
    except OSError:
        entry.mode = 0o755
    return entry


def _file(digest: str, seen: os.stat_result) -> CarriedFile:
    return CarriedFile(
        kind="file", size=seen.st_size, mtime_ns=seen.st_mtime_ns, mode=stat.S_IMODE(seen.st_mode), digest=digest
    )


def _link(target: bytes, seen: os.stat_result) -> CarriedFile:
    return CarriedFile(
        kind="link",
        size=seen.st_size,
        mtime_ns=seen.st_mtime_ns,
        mode=stat.S_IMODE(seen.st_mode),
        digest=link_digest(target),
    )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Measured:
    """A file of exactly `size` bytes, hashed as it is read; one that shrinks meanwhile is filled up with zeros.

    A file that is being written may have another length than it had: the next look finds it changed.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = self._file.read(wanted).ljust(wanted, b"\0")
        self._left -= wanted
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        """The digest of what was read."""
        return self._hash.hexdigest()
