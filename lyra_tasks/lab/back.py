"""Files brought out of a source volume into the checkout, which is never overwritten where it is newer."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from pathlib import Path

from lyra_tasks.engine import volumes
from lyra_tasks.errors import PreconditionError, UsageError
from lyra_tasks.lab.source import carried_as, link_digest
from lyra_tasks.lab.sync import Content, Mirror, content_of, here, ignored_by_git
from lyra_tasks.records.dev import Carried

_CHUNK = 1 << 20


def bring_back(mirror: Mirror, path: str) -> tuple[str, ...]:
    """Bring a file or folder out of the volume into the checkout; returns the files that were written.

    PreconditionError, and nothing is written, if a file was changed here since it was carried in, or cannot be brought.
    """
    wanted = _wanted(mirror, path)
    scratch = mirror.root / ".lyra"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="back-", dir=scratch) as folder:
        staged = _stage(mirror, wanted, Path(folder))
        newer = [name for name in staged if _newer_here(mirror, name, staged[name])]
        if newer:
            raise PreconditionError(
                f"{len(newer)} file(s) were changed here too since they were carried in; nothing was brought back",
                hint="commit or move your version away, or carry it in with `dev.sync`",
                details=tuple(newer[:20]),
            )
        written = [name for name in staged if here(mirror, name) != staged[name]]
        if blocked := [reason for name in written if (reason := _blocked(mirror.context, name))]:
            raise PreconditionError(
                f"{len(blocked)} file(s) have no place here; nothing was brought back",
                hint="move away what is in their place here",
                details=tuple(blocked[:20]),
            )
        carried = dict(mirror.store.carried(mirror.service).files)
        for name in staged:
            if name in written:
                _place(mirror.context, name, Path(folder) / name)
            carried[name] = carried_as(mirror.context / name, (mirror.context / name).lstat())
    mirror.store.write_carried(mirror.service, Carried(files=carried))
    return tuple(written)


def _wanted(mirror: Mirror, path: str) -> str:
    """A path below the context; as it is inside, it may be given in full."""
    name = path
    if path.startswith("/"):
        if not path.startswith(f"{mirror.source.path}/"):
            raise UsageError(f"{path} is not below {mirror.source.path}", hint="name a path below the source folder")
        name = path.removeprefix(f"{mirror.source.path}/")
    name = os.path.normpath(name)
    if name.startswith(("..", "/")):
        raise UsageError(f"{path} leads out of the source folder", hint="name a path below the source folder")
    return name


def _stage(mirror: Mirror, wanted: str, folder: Path) -> dict[str, Content]:
    """Write what is at `wanted` inside into `folder`; kinds, modes and digests by path below the context."""
    staged: dict[str, Content] = {}
    above = wanted.rpartition("/")[0]
    with volumes.tar_of(mirror.engine, mirror.holder, os.path.normpath(f"{mirror.inside}/{wanted}")) as archive:
        if archive is None:
            raise PreconditionError(f"there is no {wanted} inside", hint="`dev.exec -- ls` shows what there is")
        top = None
        for entry in archive:
            top = entry.name.split("/")[0] if top is None else top
            rest = entry.name.partition("/")[2] if wanted == "." else entry.name
            name = os.path.normpath(f"{above}/{rest}" if above and wanted != "." else rest)
            if entry.isdir():
                continue
            if name.startswith(("..", "/")):
                raise PreconditionError(f"the volume holds a file of an unsafe name: {name!r}")
            staged[name] = _unpack(archive, entry, folder, name)
    if wanted in ignored_by_git(mirror.context, [wanted]):
        return staged
    ignored = ignored_by_git(mirror.context, [name for name in staged if name != wanted])
    return {name: each for name, each in staged.items() if name not in ignored}


def _unpack(archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path, name: str) -> Content:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.issym():
        target.symlink_to(entry.linkname)
        return Content("link", link_digest(os.fsencode(entry.linkname)))
    content = archive.extractfile(entry) if entry.isfile() else None
    if content is None:
        raise PreconditionError(
            f"{name} is no ordinary file or symbolic link inside", hint="copy it there, then bring the copy back"
        )
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    target.chmod(entry.mode & 0o777)
    return Content("file", digest.hexdigest())


def _newer_here(mirror: Mirror, name: str, inside: Content) -> bool:
    """Whether the checkout's file is not the one that was carried in, nor the one that is inside."""
    before = mirror.store.carried(mirror.service).files.get(name)
    now = here(mirror, name)
    if now is None:
        return before is not None or (mirror.context / name).is_dir()
    return now != inside and (before is None or now != content_of(before))


def _blocked(context: Path, name: str) -> str:
    """Why a file cannot be put into the checkout, or nothing: no symbolic link on the way may lead elsewhere."""
    parent = (context / name).parent
    if not parent.resolve().is_relative_to(context.resolve()):
        return f"{name} lies behind a symbolic link that leads out of {context}"
    there = next(each for each in (parent, *parent.parents) if os.path.lexists(each))
    return "" if there.is_dir() else f"{name}: {there} is no folder"


def _place(context: Path, name: str, staged: Path) -> None:
    target = context / name
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(target)
