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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lyra_tasks.engine import volumes
from lyra_tasks.lab.payload import HOLDER_FOLDER
from lyra_tasks.lab.source import carried_as, changes, link_digest, local_files, pack
from lyra_tasks.records.dev import Carried, CarriedFile, DevLab, DevSource, DevStore

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Mirror:
    """The source volume of one service, and the checkout that it mirrors; `without` is where bundles are written."""

    engine: Engine
    store: DevStore
    service: str
    holder: str
    source: DevSource
    root: Path
    without: Path

    @property
    def context(self) -> Path:
        """The folder of the checkout that is mirrored."""
        return self.root / self.source.context

    @property
    def inside(self) -> str:
        """The volume's folder in its holder."""
        return f"{HOLDER_FOLDER}/{self.source.volume}"


@dataclass(frozen=True)
class CarriedIn:
    """What one sync did; bytes and seconds."""

    service: str
    put: tuple[str, ...]
    deleted: tuple[str, ...]
    unnamed: tuple[str, ...]
    size: int
    seconds: float


@dataclass(frozen=True)
class Edits:
    """What exists only inside: files changed, added or removed there since they were carried in."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)


class Content(NamedTuple):
    """What a path holds: `file` or `link`, and the digest of the content or target."""

    kind: str
    digest: str


def mirrors(lab: DevLab, engine: Engine, store: DevStore, root: Path, without: Path) -> dict[str, Mirror]:
    """The mirrors of a lab's services that have a source volume."""
    return {
        name: Mirror(engine, store, name, lab.holder, service.source, root, without)
        for name, service in lab.services.items()
        if service.source is not None
    }


def carry_in(mirror: Mirror) -> CarriedIn:
    """Bring the volume to the state of the checkout: one tar stream in, what is gone removed."""
    began = time.monotonic()
    local = local_files(mirror.context, mirror.without)
    before = mirror.store.carried(mirror.service).files
    todo = changes(mirror.context, local.files, before)
    uid, gid = mirror.source.uid, mirror.source.gid
    gone = [f"{mirror.inside}/{name}" for name in (*todo.delete, *todo.folders)]
    volumes.remove_paths(mirror.engine, mirror.holder, gone, uid, gid)
    now = {name: each for name, each in before.items() if name in local.files}
    size = 0
    if todo.put:
        with tempfile.TemporaryFile() as tar:
            packed = pack(mirror.context, todo.put, tar, uid, gid)
            tar.seek(0)
            volumes.put_tar(mirror.engine, mirror.holder, mirror.inside, tar)
        now |= packed.files
        size = packed.size
    if todo:
        mirror.store.write_carried(mirror.service, Carried(files=now))
    seconds = round(time.monotonic() - began, 3)
    return CarriedIn(mirror.service, todo.put, todo.delete, local.unnamed, size, seconds)


def only_inside(mirror: Mirror) -> Edits:
    """The edits in a volume that the checkout does not have; what git ignores is none."""
    seen = _look_inside(mirror)
    before = mirror.store.carried(mirror.service).files
    changed = [name for name, each in before.items() if name in seen and content_of(each) != seen[name]]
    added = [name for name in seen if name not in before]
    removed = [name for name in before if name not in seen and (mirror.context / name).exists()]
    ignored = ignored_by_git(mirror.context, added)
    return Edits(
        changed=tuple(name for name in changed if here(mirror, name) != seen[name]),
        added=tuple(n for n in added if n not in ignored and here(mirror, n) != seen[n]),
        removed=tuple(removed),
    )


def here(mirror: Mirror, name: str) -> Content | None:
    """What the checkout holds at a path now; None if that is neither a file nor a symbolic link."""
    path = mirror.context / name
    try:
        seen = path.lstat()
        if not (stat.S_ISREG(seen.st_mode) or stat.S_ISLNK(seen.st_mode)):
            return None
        return content_of(carried_as(path, seen))
    except (FileNotFoundError, NotADirectoryError):
        return None


def content_of(file: CarriedFile) -> Content:
    """A carried file without what is only of this side."""
    return Content(file.kind, file.digest)


def _look_inside(mirror: Mirror) -> dict[str, Content]:
    seen: dict[str, Content] = {}
    with volumes.tar_of(mirror.engine, mirror.holder, f"{mirror.inside}/.") as archive:
        for entry in archive or ():
            name = os.path.normpath(entry.name)
            if entry.issym():
                seen[name] = Content("link", link_digest(os.fsencode(entry.linkname)))
            elif entry.islnk():
                seen[name] = seen[os.path.normpath(entry.linkname)]
            elif entry.isfile() and archive is not None:
                seen[name] = Content("file", _digest_of(archive, entry))
    return seen


def _digest_of(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    digest = hashlib.sha256()
    content = archive.extractfile(entry)
    for chunk in iter(lambda: content.read(_CHUNK) if content else b"", b""):
        digest.update(chunk)
    return digest.hexdigest()


def ignored_by_git(context: Path, names: list[str]) -> set[str]:
    """Those of `names` that git ignores, such as caches and compiled files; they are no edits."""
    if not names:
        return set()
    done = subprocess.run(
        ["git", "check-ignore", "-z", "--stdin"],
        cwd=context,
        input="\0".join(names).encode(errors="surrogateescape"),
        capture_output=True,
        check=False,
    )
    return set(done.stdout.decode(errors="surrogateescape").split("\0"))
