"""Files brought out of a source volume into the checkout, which is never overwritten where it is newer."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from pathlib import Path

from lyra_tasks.develop.source import hash_link_target, read_file_record
from lyra_tasks.develop.sync import FileContent, SourceSync, content_of, find_git_ignored, read_local_content
from lyra_tasks.engine.objects.volumes import open_tar
from lyra_tasks.errors import PreconditionError, UsageError
from lyra_tasks.records.dev import UploadedFiles

_CHUNK_BYTES = 1 << 20


def copy_out(sync: SourceSync, path: str) -> tuple[str, ...]:
    """Bring a file or folder out of the volume into the checkout; returns the files that were written.

    PreconditionError, and nothing is written, if a file was changed here since it was carried in, or cannot be brought.
    """
    requested = _requested_path(sync, path)
    scratch = sync.root / ".lyra"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="back-", dir=scratch) as directory:
        contents = _extract_files(sync, requested, Path(directory))
        newer_files = [name for name in contents if _is_newer_locally(sync, name, contents[name])]
        if newer_files:
            raise PreconditionError(
                f"{len(newer_files)} file(s) were changed here too since they were carried in; nothing was brought back",
                hint="commit or move your version away, or carry it in with `dev.sync`",
                details=tuple(newer_files[:20]),
            )
        changed_files = [name for name in contents if read_local_content(sync, name) != contents[name]]
        if conflicts := [reason for name in changed_files if (reason := _conflict_reason(sync.context, name))]:
            raise PreconditionError(
                f"{len(conflicts)} file(s) have no place here; nothing was brought back",
                hint="move away what is in their place here",
                details=tuple(conflicts[:20]),
            )
        uploaded = dict(sync.store.read_uploads(sync.service).files)
        for name in contents:
            if name in changed_files:
                _write_file(sync.context, name, Path(directory) / name)
            uploaded[name] = read_file_record(sync.context / name, (sync.context / name).lstat())
    sync.store.write_uploads(sync.service, UploadedFiles(files=uploaded))
    return tuple(changed_files)


def _requested_path(sync: SourceSync, path: str) -> str:
    """A path below the context; as it is inside, it may be given in full."""
    name = path
    if path.startswith("/"):
        if not path.startswith(f"{sync.source.path}/"):
            raise UsageError(f"{path} is not below {sync.source.path}", hint="name a path below the source folder")
        name = path.removeprefix(f"{sync.source.path}/")
    name = os.path.normpath(name)
    if name.startswith(("..", "/")):
        raise UsageError(f"{path} leads out of the source folder", hint="name a path below the source folder")
    return name


def _extract_files(sync: SourceSync, requested: str, directory: Path) -> dict[str, FileContent]:
    """Write what is at `wanted` inside into `folder`; kinds, modes and digests by path below the context."""
    contents: dict[str, FileContent] = {}
    parent = requested.rpartition("/")[0]
    with open_tar(sync.engine, sync.holder, os.path.normpath(f"{sync.holder_path}/{requested}")) as archive:
        if archive is None:
            raise PreconditionError(f"there is no {requested} inside", hint="`dev.exec -- ls` shows what there is")
        top = None
        for entry in archive:
            top = entry.name.split("/")[0] if top is None else top
            rest = entry.name.partition("/")[2] if requested == "." else entry.name
            name = os.path.normpath(f"{parent}/{rest}" if parent and requested != "." else rest)
            if entry.isdir():
                continue
            if name.startswith(("..", "/")):
                raise PreconditionError(f"the volume holds a file of an unsafe name: {name!r}")
            contents[name] = _extract_entry(archive, entry, directory, name)
    if requested in find_git_ignored(sync.context, [requested]):
        return contents
    ignored = find_git_ignored(sync.context, [name for name in contents if name != requested])
    return {name: content for name, content in contents.items() if name not in ignored}


def _extract_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo, directory: Path, name: str) -> FileContent:
    target = directory / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.issym():
        target.symlink_to(entry.linkname)
        return FileContent("link", hash_link_target(os.fsencode(entry.linkname)))
    content = archive.extractfile(entry) if entry.isfile() else None
    if content is None:
        raise PreconditionError(
            f"{name} is no ordinary file or symbolic link inside", hint="copy it there, then bring the copy back"
        )
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    target.chmod(entry.mode & 0o777)
    return FileContent("file", digest.hexdigest())


def _is_newer_locally(sync: SourceSync, name: str, content: FileContent) -> bool:
    """Whether the checkout's file is not the one that was carried in, nor the one that is inside."""
    uploaded = sync.store.read_uploads(sync.service).files.get(name)
    local = read_local_content(sync, name)
    if local is None:
        return uploaded is not None or (sync.context / name).is_dir()
    return local != content and (uploaded is None or local != content_of(uploaded))


def _conflict_reason(context: Path, name: str) -> str:
    """Why a file cannot be put into the checkout, or nothing: no symbolic link on the way may lead elsewhere."""
    parent = (context / name).parent
    if not parent.resolve().is_relative_to(context.resolve()):
        return f"{name} lies behind a symbolic link that leads out of {context}"
    ancestor = next(path for path in (parent, *parent.parents) if os.path.lexists(path))
    return "" if ancestor.is_dir() else f"{name}: {ancestor} is no folder"


def _write_file(context: Path, name: str, source: Path) -> None:
    target = context / name
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
