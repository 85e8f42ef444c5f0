"""Copy files from a source volume to the checkout; a newer file there is never overwritten."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lyra_tasks.develop.source import read_file_record
from lyra_tasks.develop.sync import FileContent, SourceSync, content_of, find_git_ignored, read_local_content
from lyra_tasks.digests import file_sha256, sha256_hex
from lyra_tasks.engine.objects.volumes import open_tar
from lyra_tasks.errors import PreconditionError, UsageError
from lyra_tasks.records.dev import UploadedFile, UploadedFiles

_MAX_DETAILS = 20


def copy_out(sync: SourceSync, path: str) -> tuple[str, ...]:
    """Copy a file or directory from the volume to the checkout and return the files that were written.

    Nothing is written if a file was changed in the checkout since its upload, or cannot be copied.
    """
    requested = _requested_path(sync, path)
    scratch = sync.root / ".lyra"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="back-", dir=scratch) as directory:
        contents = _extract_files(sync, requested, Path(directory))
        uploaded = dict(sync.store.read_uploads(sync.service).files)
        local = {name: read_local_content(sync, name) for name in contents}
        newer_files = [name for name in contents if _is_newer_locally(sync, name, local, contents, uploaded)]
        _require_none(
            newer_files,
            "also changed in the checkout since the last sync",
            hint="Commit or move your version, or upload it with `dev.sync`",
        )
        changed_files = [name for name in contents if local[name] != contents[name]]
        _require_none(
            [reason for name in changed_files if (reason := _conflict_reason(sync.context, name))],
            "conflict with paths in the checkout",
            hint="Move the conflicting paths away",
        )
        for name in contents:
            if name in changed_files:
                (sync.context / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(directory) / name).replace(sync.context / name)
            uploaded[name] = read_file_record(sync.context / name, (sync.context / name).lstat())
    sync.store.write_uploads(sync.service, UploadedFiles(files=uploaded))
    return tuple(changed_files)


def _require_none(details: Sequence[str], problem: str, *, hint: str) -> None:
    if details:
        message = f"Nothing copied: {len(details)} file(s) {problem}"
        raise PreconditionError(message, hint=hint, details=tuple(details[:_MAX_DETAILS]))


def _requested_path(sync: SourceSync, path: str) -> str:
    """Return `path` relative to the context; it may be absolute, as it is in the container."""
    name = os.path.normpath(path.removeprefix(f"{sync.source.path}/"))
    if name.startswith(("..", "/")):
        raise UsageError(f"{path} is not below {sync.source.path}", hint="Choose a path below the source directory")
    return name


def _extract_files(sync: SourceSync, requested: str, directory: Path) -> dict[str, FileContent]:
    """Extract the `requested` path of the volume into `directory` and return the contents by path below the context."""
    contents: dict[str, FileContent] = {}
    parent = requested.rpartition("/")[0]
    with open_tar(sync.engine, sync.holder, os.path.normpath(f"{sync.holder_path}/{requested}")) as archive:
        if archive is None:
            raise PreconditionError(
                f"{requested}: not found in the container", hint="Run `dev.exec -- ls` to list the files"
            )
        for entry in archive:
            rest = entry.name.partition("/")[2] if requested == "." else entry.name
            name = os.path.normpath(f"{parent}/{rest}" if parent and requested != "." else rest)
            if entry.isdir():
                continue
            if name.startswith(("..", "/")):
                raise PreconditionError(f"Unsafe file name in the volume: {name!r}")
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
        return FileContent("link", sha256_hex(os.fsencode(entry.linkname)))
    content = archive.extractfile(entry) if entry.isfile() else None
    if content is None:
        raise PreconditionError(
            f"{name}: not a regular file or symlink", hint="Copy it to a regular file in the container first"
        )
    with target.open("wb") as file:
        shutil.copyfileobj(content, file)
    digest = file_sha256(target)
    target.chmod(entry.mode & 0o777)
    return FileContent("file", digest)


def _is_newer_locally(
    sync: SourceSync,
    name: str,
    local: Mapping[str, FileContent | None],
    contents: Mapping[str, FileContent],
    uploads: Mapping[str, UploadedFile],
) -> bool:
    """Return whether the checkout's file is neither the one uploaded last nor the one in the container."""
    uploaded = uploads.get(name)
    if local[name] is None:
        return uploaded is not None or (sync.context / name).is_dir()
    return local[name] != contents[name] and (uploaded is None or local[name] != content_of(uploaded))


def _conflict_reason(context: Path, name: str) -> str:
    """Return why a file cannot be written into the checkout, or ''. No symlink on its path may leave the context."""
    parent = (context / name).parent
    if not parent.resolve().is_relative_to(context.resolve()):
        return f"{name}: a symlink on its path leaves {context}"
    ancestor = next(path for path in (parent, *parent.parents) if os.path.lexists(path))
    return "" if ancestor.is_dir() else f"{name}: {ancestor} is not a directory"
