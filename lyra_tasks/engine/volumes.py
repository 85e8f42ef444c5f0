"""What is inside volumes: streamed in and out as one tar, and removed, through the container that holds them.

A holder has the volumes mounted and nothing else in it, so this works whatever the project's images contain, and
whether their containers run or not.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.hijack import exit_code, output_of
from lyra_tasks.engine.holder import REMOVE
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_ARGUMENTS = 64 * 1024


def put_tar(engine: Engine, container: str, folder: str, tar: IO[bytes]) -> None:
    """Unpack the tar stream `tar` in `folder` of a container; owners and modes are those of its entries."""
    with engine_faults("filling a volume"):
        engine.streams.put_archive(container, folder, tar)


@contextmanager
def tar_of(engine: Engine, container: str, path: str) -> Iterator[tarfile.TarFile | None]:
    """What is at `path` of a container, as a tar to be read from the front to the end; None if nothing is there."""
    from docker.errors import NotFound

    with engine_faults("reading a volume"):
        try:
            chunks, _ = engine.streams.get_archive(container, path)
        except NotFound:
            yield None
            return
        with tarfile.open(fileobj=_Chunks(chunks), mode="r|", errorlevel=1) as archive:
            yield archive


def own_folder(engine: Engine, container: str, folder: str, uid: int, gid: int) -> None:
    """Give `folder`, the root of a volume, to a user."""
    parent, name = posixpath.split(folder)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, uid, gid
        archive.addfile(entry)
    buffer.seek(0)
    put_tar(engine, container, parent, buffer)


def remove_paths(engine: Engine, holder: str, paths: Sequence[str], uid: int, gid: int) -> None:
    """Remove files, and folders that are empty by then, as the user who owns them; those that are missing are fine."""
    for batch in _batches(paths):
        with engine_faults("removing files from a volume"):
            made = engine.api.exec_create(holder, [REMOVE, *batch], user=f"{uid}:{gid}")
            said = output_of(engine, made["Id"])
            code = exit_code(engine, made["Id"])
        if code != 0:
            raise PreconditionError(
                "not everything that is gone here could be removed from the source volume",
                details=tuple(said.decode(errors="replace").splitlines()),
                hint="a folder inside may not be writable for its user; `dev.stop` and `create` begin anew",
            )


def user_ids(engine: Engine, container: str, user: str) -> tuple[int, int]:
    """The numbers of `user` as a container of its image gets them; PreconditionError for a name it does not know."""
    return ids_of(user, lambda path: _text(engine, container, path))


def ids_of(user: str, read: Callable[[str], str]) -> tuple[int, int]:
    """User and group of `USER[:GROUP]`; `read` gives the text of a file of the image, or nothing."""
    name, _, group = user.partition(":")
    name = name or "0"
    found = next((line for line in _fields(read("/etc/passwd")) if name in (line[0], line[2])), None)
    if found is None and not name.isdigit():
        raise PreconditionError(f"the image has no user {name!r}", hint="name its user by number")
    uid = int(found[2]) if found else int(name)
    if not group:
        return uid, int(found[3]) if found else 0
    if group.isdigit():
        return uid, int(group)
    for line in _fields(read("/etc/group")):
        if line[0] == group:
            return uid, int(line[2])
    raise PreconditionError(f"the image has no group {group!r}", hint="name its group by number")


def _fields(text: str) -> list[list[str]]:
    return [fields for line in text.splitlines() if len(fields := line.split(":")) >= 4]


def _text(engine: Engine, container: str, path: str) -> str:
    with tar_of(engine, container, path) as archive:
        for entry in archive or ():
            stream = archive.extractfile(entry) if archive and entry.isfile() else None
            if stream is not None:
                return stream.read().decode(errors="replace")
    return ""


def _batches(paths: Sequence[str]) -> Iterator[list[str]]:
    """`paths` in parts that fit into the arguments of a program."""
    batch: list[str] = []
    size = 0
    for path in paths:
        if size + len(path) > _ARGUMENTS and batch:
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += len(path) + 1
    if batch:
        yield batch


class _Chunks(io.RawIOBase):
    """An iterator of byte chunks as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts = [self._rest]
        have = len(self._rest)
        while size < 0 or have < size:
            chunk: Any = next(self._chunks, None)
            if chunk is None:
                break
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        if size < 0:
            size = len(data)
        self._rest = data[size:]
        return data[:size]
