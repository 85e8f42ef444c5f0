"""Source volumes against the checkout: changes carried in, and edits found that exist only inside.

What was changed on both sides since it was carried in becomes the checkout's: the checkout is what persists.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lyra_tasks.develop.source import (
    diff_source,
    hash_link_target,
    list_local_files,
    read_file_record,
    write_source_archive,
)
from lyra_tasks.engine.objects.volumes import open_tar, put_tar, remove_paths
from lyra_tasks.lab.payload import HOLDER_MOUNT_ROOT
from lyra_tasks.records.dev import DevLab, DevSource, DevStore, UploadedFile, UploadedFiles

if TYPE_CHECKING:
    from watchfiles import Change

    from lyra_tasks.engine.client.connect import Engine

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceSync:
    """The source volume of one service, and the checkout that it mirrors; `without` is where bundles are written."""

    engine: Engine
    store: DevStore
    service: str
    holder: str
    source: DevSource
    root: Path
    excluded: Path

    @property
    def context(self) -> Path:
        """The folder of the checkout that is mirrored."""
        return self.root / self.source.context

    @property
    def holder_path(self) -> str:
        """The volume's folder in its holder."""
        return f"{HOLDER_MOUNT_ROOT}/{self.source.volume}"


@dataclass(frozen=True)
class UploadResult:
    """What one sync did; bytes and seconds."""

    service: str
    uploaded: tuple[str, ...]
    deleted: tuple[str, ...]
    invalid_names: tuple[str, ...]
    size: int
    seconds: float


@dataclass(frozen=True)
class ContainerEdits:
    """What exists only inside: files changed, added or removed there since they were carried in."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)


class FileContent(NamedTuple):
    """What a path holds: `file` or `link`, and the digest of the content or target."""

    kind: str
    digest: str


def list_source_syncs(
    lab: DevLab, engine: Engine, store: DevStore, root: Path, excluded: Path
) -> dict[str, SourceSync]:
    """The mirrors of a lab's services that have a source volume."""
    return {
        name: SourceSync(engine, store, name, lab.holder, service.source, root, excluded)
        for name, service in lab.services.items()
        if service.source is not None
    }


def upload_changes(sync: SourceSync) -> UploadResult:
    """Bring the volume to the state of the checkout: one tar stream in, what is gone removed."""
    started = time.monotonic()
    local = list_local_files(sync.context, sync.excluded)
    previous = sync.store.read_uploads(sync.service).files
    source_changes = diff_source(sync.context, local.files, previous)
    uid, gid = sync.source.uid, sync.source.gid
    removed_paths = [
        f"{sync.holder_path}/{name}" for name in (*source_changes.delete, *source_changes.empty_directories)
    ]
    remove_paths(sync.engine, sync.holder, removed_paths, uid, gid)
    uploaded = {name: file for name, file in previous.items() if name in local.files}
    size = 0
    if source_changes.upload:
        with tempfile.TemporaryFile() as tar:
            source_archive = write_source_archive(sync.context, source_changes.upload, tar, uid, gid)
            tar.seek(0)
            put_tar(sync.engine, sync.holder, sync.holder_path, tar)
        uploaded |= source_archive.files
        size = source_archive.size
    if source_changes:
        sync.store.write_uploads(sync.service, UploadedFiles(files=uploaded))
    seconds = round(time.monotonic() - started, 3)
    return UploadResult(sync.service, source_changes.upload, source_changes.delete, local.invalid_names, size, seconds)


def find_container_edits(sync: SourceSync) -> ContainerEdits:
    """The edits in a volume that the checkout does not have; what git ignores is none."""
    contents = _read_volume_contents(sync)
    previous = sync.store.read_uploads(sync.service).files
    changed = [name for name, file in previous.items() if name in contents and content_of(file) != contents[name]]
    added = [name for name in contents if name not in previous]
    removed = [name for name in previous if name not in contents and (sync.context / name).exists()]
    ignored = find_git_ignored(sync.context, added)
    return ContainerEdits(
        changed=tuple(name for name in changed if read_local_content(sync, name) != contents[name]),
        added=tuple(n for n in added if n not in ignored and read_local_content(sync, n) != contents[n]),
        removed=tuple(removed),
    )


def read_local_content(sync: SourceSync, name: str) -> FileContent | None:
    """What the checkout holds at a path now; None if that is neither a file nor a symbolic link."""
    path = sync.context / name
    try:
        status = path.lstat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return None
        return content_of(read_file_record(path, status))
    except (FileNotFoundError, NotADirectoryError):
        return None


def content_of(file: UploadedFile) -> FileContent:
    """A carried file without what is only of this side."""
    return FileContent(file.kind, file.digest)


def _read_volume_contents(sync: SourceSync) -> dict[str, FileContent]:
    contents: dict[str, FileContent] = {}
    with open_tar(sync.engine, sync.holder, f"{sync.holder_path}/.") as archive:
        for entry in archive or ():
            name = os.path.normpath(entry.name)
            if entry.issym():
                contents[name] = FileContent("link", hash_link_target(os.fsencode(entry.linkname)))
            elif entry.islnk():
                contents[name] = contents[os.path.normpath(entry.linkname)]
            elif entry.isfile() and archive is not None:
                contents[name] = FileContent("file", _hash_entry(archive, entry))
    return contents


def _hash_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    digest = hashlib.sha256()
    content = archive.extractfile(entry)
    for chunk in iter(lambda: content.read(_CHUNK_BYTES) if content else b"", b""):
        digest.update(chunk)
    return digest.hexdigest()


def find_git_ignored(context: Path, names: list[str]) -> set[str]:
    """Those of `names` that git ignores, such as caches and compiled files; they are no edits."""
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


_DEBOUNCE_MS = 400  # milliseconds that a burst of changes is gathered before it is carried in
_QUIET_MS = 50  # milliseconds without a change that end a burst
_INITIAL_TIMEOUT_MS = 250  # milliseconds until what was changed before is looked for
_IGNORED_DIRECTORIES = {".git", ".lyra"}


def watch_sources(syncs: Sequence[SourceSync], on_upload: Callable[[UploadResult], None]) -> None:
    """Carry every change in until the user interrupts; `done` is called after each sync that changed something.

    Each time the whole checkout is compared, so that no event can be missed, however many come at once.
    """
    from watchfiles import watch

    directories = {sync.context for sync in syncs}
    batches = watch(
        *directories,
        watch_filter=_is_watched,
        debounce=_DEBOUNCE_MS,
        step=_QUIET_MS,
        raise_interrupt=True,
        rust_timeout=_INITIAL_TIMEOUT_MS,
        yield_on_timeout=True,
    )
    has_started = False
    for batch in batches:
        paths = [Path(path) for _, path in batch]
        for sync in syncs:
            # what was changed before the watching began brings no event
            if not has_started or any(path.is_relative_to(sync.context) for path in paths):
                _upload_and_report(sync, on_upload)
        has_started = True


def _upload_and_report(sync: SourceSync, on_upload: Callable[[UploadResult], None]) -> None:
    result = upload_changes(sync)
    if result.uploaded or result.deleted:
        on_upload(result)


def _is_watched(_change: Change, path: str) -> bool:
    return not _IGNORED_DIRECTORIES & set(Path(path).parts)
