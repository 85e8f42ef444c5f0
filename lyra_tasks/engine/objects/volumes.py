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

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.client.exec_stream import read_exec_output, wait_for_exit_code
from lyra_tasks.engine.objects.holder import REMOVE_PATH
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_MAX_ARGUMENT_BYTES = 64 * 1024


def put_tar(engine: Engine, container: str, directory: str, tar: IO[bytes]) -> None:
    """Unpack the tar stream `tar` in `folder` of a container; owners and modes are those of its entries."""
    with translate_errors("filling a volume"):
        engine.stream_api.put_archive(container, directory, tar)


@contextmanager
def open_tar(engine: Engine, container: str, path: str) -> Iterator[tarfile.TarFile | None]:
    """What is at `path` of a container, as a tar to be read from the front to the end; None if nothing is there."""
    from docker.errors import NotFound

    with translate_errors("reading a volume"):
        try:
            chunks, _ = engine.stream_api.get_archive(container, path)
        except NotFound:
            yield None
            return
        with tarfile.open(fileobj=_ChunkReader(chunks), mode="r|", errorlevel=1) as archive:
            yield archive


def set_volume_owner(engine: Engine, container: str, directory: str, uid: int, gid: int) -> None:
    """Give `folder`, the root of a volume, to a user."""
    parent, name = posixpath.split(directory)
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
        with translate_errors("removing files from a volume"):
            exec_document = engine.api.exec_create(holder, [REMOVE_PATH, *batch], user=f"{uid}:{gid}")
            output = read_exec_output(engine, exec_document["Id"])
            code = wait_for_exit_code(engine, exec_document["Id"])
        if code != 0:
            raise PreconditionError(
                "not everything that is gone here could be removed from the source volume",
                details=tuple(output.decode(errors="replace").splitlines()),
                hint="a folder inside may not be writable for its user; `dev.stop` and `create` begin anew",
            )


def resolve_user_ids(engine: Engine, container: str, user: str) -> tuple[int, int]:
    """The numbers of `user` as a container of its image gets them; PreconditionError for a name it does not know."""
    return parse_user_ids(user, lambda path: _read_text(engine, container, path))


def parse_user_ids(user: str, read_text: Callable[[str], str]) -> tuple[int, int]:
    """User and group of `USER[:GROUP]`; `read` gives the text of a file of the image, or nothing."""
    name, _, group = user.partition(":")
    name = name or "0"
    user_fields = next(
        (fields for fields in _split_fields(read_text("/etc/passwd")) if name in (fields[0], fields[2])), None
    )
    if user_fields is None and not name.isdigit():
        raise PreconditionError(f"the image has no user {name!r}", hint="name its user by number")
    uid = int(user_fields[2]) if user_fields else int(name)
    if not group:
        return uid, int(user_fields[3]) if user_fields else 0
    if group.isdigit():
        return uid, int(group)
    for fields in _split_fields(read_text("/etc/group")):
        if fields[0] == group:
            return uid, int(fields[2])
    raise PreconditionError(f"the image has no group {group!r}", hint="name its group by number")


def _split_fields(text: str) -> list[list[str]]:
    return [fields for line in text.splitlines() if len(fields := line.split(":")) >= 4]


def _read_text(engine: Engine, container: str, path: str) -> str:
    with open_tar(engine, container, path) as archive:
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
        if size + len(path) > _MAX_ARGUMENT_BYTES and batch:
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += len(path) + 1
    if batch:
        yield batch


class _ChunkReader(io.RawIOBase):
    """An iterator of byte chunks as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts = [self._buffer]
        length = len(self._buffer)
        while size < 0 or length < size:
            chunk: Any = next(self._chunks, None)
            if chunk is None:
                break
            parts.append(chunk)
            length += len(chunk)
        data = b"".join(parts)
        if size < 0:
            size = len(data)
        self._buffer = data[size:]
        return data[:size]
