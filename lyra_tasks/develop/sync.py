"""Sync source volumes with the checkout: upload changes, find edits that exist only in a container.

A file changed on both sides gets the checkout's content: the checkout is what persists.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lyra_tasks.develop.source import diff_source, list_local_files, read_file_record, write_source_archive
from lyra_tasks.digests import sha256_hex
from lyra_tasks.engine.objects.volumes import open_tar, put_tar, remove_paths
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.payload import HOLDER_MOUNT_ROOT
from lyra_tasks.records.dev import DevLab, DevSource, DevStore, UploadedFile, UploadedFiles
from lyra_tasks.results.development import ContainerEdits, Upload

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.workspace import Workspace


@dataclass(frozen=True)
class SourceSync:
    """The source volume of one service and the checkout that it mirrors; `excluded` is the bundle directory."""

    engine: Engine
    store: DevStore
    service: str
    holder: str
    source: DevSource
    root: Path
    excluded: Path

    @property
    def context(self) -> Path:
        """Directory of the checkout that is mirrored."""
        return self.root / self.source.context

    @property
    def holder_path(self) -> str:
        """Mount path of the volume in its holder."""
        return f"{HOLDER_MOUNT_ROOT}/{self.source.volume}"


class FileContent(NamedTuple):
    """The kind of a path (`file` or `link`) and the digest of its content or target."""

    kind: str
    digest: str


def find_source_syncs(work: Workspace, lab: DevLab, services: Sequence[str] = ()) -> dict[str, SourceSync]:
    """Return the syncs of `services` (default: all with a source volume); raise PreconditionError if one has none."""
    store, excluded = DevStore(work.paths.state), work.root / work.config.promotion.directory
    syncs = {
        name: SourceSync(work.engine, store, name, lab.holder, service.source, work.root, excluded)
        for name, service in lab.services.items()
        if service.source is not None
    }
    for name in services:
        if name not in syncs:
            hint = f"Choose one of: {', '.join(syncs)}" if syncs else f"Add [services.{name}.dev]"
            raise PreconditionError(f"{name} has no source volume", hint=hint)
    return {name: sync for name, sync in syncs.items() if not services or name in services}


def upload_changes(sync: SourceSync) -> Upload:
    """Bring the volume to the state of the checkout: delete removed files, upload the others as one tar."""
    started = time.monotonic()
    local = list_local_files(sync.context, sync.excluded)
    previous = sync.store.read_uploads(sync.service).files
    changes = diff_source(sync.context, local.files, previous)
    uid, gid = sync.source.uid, sync.source.gid
    removed_paths = [f"{sync.holder_path}/{name}" for name in (*changes.delete, *changes.empty_directories)]
    remove_paths(sync.engine, sync.holder, removed_paths, uid, gid)
    new_files: dict[str, UploadedFile] = {}
    if changes.upload:
        with tempfile.TemporaryFile() as tar:
            new_files = write_source_archive(sync.context, changes.upload, tar, uid, gid)
            tar.seek(0)
            put_tar(sync.engine, sync.holder, sync.holder_path, tar)
    if changes.upload or changes.delete:
        uploaded = {name: file for name, file in previous.items() if name in local.files}
        sync.store.write_uploads(sync.service, UploadedFiles(files=uploaded | new_files))
    size = sum(file.size for file in new_files.values())
    seconds = round(time.monotonic() - started, 3)
    return Upload(sync.service, changes.upload, changes.delete, local.invalid_names, size, seconds)


def find_container_edits(sync: SourceSync) -> ContainerEdits:
    """Return the edits in a volume that the checkout does not have; files that git ignores do not count."""
    contents = _read_volume_contents(sync)
    previous = sync.store.read_uploads(sync.service).files
    changed = [name for name, file in previous.items() if name in contents and content_of(file) != contents[name]]
    added = [name for name in contents if name not in previous]
    ignored = find_git_ignored(sync.context, added)
    return ContainerEdits(
        changed=tuple(name for name in changed if read_local_content(sync, name) != contents[name]),
        added=tuple(name for name in added if name not in ignored and read_local_content(sync, name) != contents[name]),
        removed=tuple(name for name in previous if name not in contents and (sync.context / name).exists()),
    )


def read_local_content(sync: SourceSync, name: str) -> FileContent | None:
    """Return the content of a path in the checkout, or None if it is neither a file nor a symlink."""
    path = sync.context / name
    try:
        status = path.lstat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return None
        return content_of(read_file_record(path, status))
    except (FileNotFoundError, NotADirectoryError):
        return None


def content_of(file: UploadedFile) -> FileContent:
    """Return the part of an upload record that a container can confirm."""
    return FileContent(file.kind, file.digest)


def _read_volume_contents(sync: SourceSync) -> dict[str, FileContent]:
    contents: dict[str, FileContent] = {}
    with open_tar(sync.engine, sync.holder, f"{sync.holder_path}/.") as archive:
        for entry in archive or ():
            name = os.path.normpath(entry.name)
            if entry.issym():
                contents[name] = FileContent("link", sha256_hex(os.fsencode(entry.linkname)))
            elif entry.islnk():
                contents[name] = contents[os.path.normpath(entry.linkname)]
            elif archive is not None and (file := archive.extractfile(entry)) is not None:
                digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # a BufferedReader
                contents[name] = FileContent("file", digest.hexdigest())
    return contents


def find_git_ignored(context: Path, names: list[str]) -> set[str]:
    """Return those of `names` that git ignores, such as caches and compiled files."""
    if not names:
        return set()
    result = subprocess.run(
        ["git", "check-ignore", "-z", "--stdin"],
        cwd=context,
        input="\0".join(names).encode(errors="surrogateescape"),
        capture_output=True,
        check=False,
    )
    return set(result.stdout.decode(errors="surrogateescape").split("\0"))
