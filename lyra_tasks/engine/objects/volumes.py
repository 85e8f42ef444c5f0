"""Copy files into and out of volumes, and remove them, through the holder container that mounts the volumes.

That works for any image of the project, whether its containers run or not.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from lyra_tasks.documents import translate_failures
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.client.exec import exec_command
from lyra_tasks.engine.objects.holder import REMOVE_PATH
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_MAX_ARGUMENT_BYTES = 64 * 1024


class UnknownUserError(PreconditionError):
    """An image does not know the name of its user or group."""


def put_tar(engine: Engine, container: str, directory: str, tar: IO[bytes]) -> None:
    """Extract a tar stream in a directory of a container, with the owners and modes of its entries."""
    with translate_errors("copying files to a volume"):
        engine.stream_api.put_archive(container, directory, tar)


@contextmanager
def open_tar(engine: Engine, container: str, path: str) -> Iterator[tarfile.TarFile | None]:
    """Open `path` of a container as a tar that can be read once, front to back; None if the path does not exist."""
    from docker.errors import NotFound

    with translate_errors("reading a volume"):
        try:
            chunks, _ = engine.stream_api.get_archive(container, path)
        except NotFound:
            yield None
            return
        with tarfile.open(fileobj=ChunkReader(chunks), mode="r|", errorlevel=1) as archive:
            yield archive


def set_volume_owner(engine: Engine, container: str, directory: str, uid: int, gid: int) -> None:
    """Set the owner of the root directory of a volume."""
    parent, name = posixpath.split(directory)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, uid, gid
        archive.addfile(entry)
    buffer.seek(0)
    put_tar(engine, container, parent, buffer)


def remove_paths(engine: Engine, holder: str, paths: Sequence[str], uid: int, gid: int) -> None:
    """Remove files, and directories once they are empty, as a user; missing ones are ignored."""
    for batch in _batches(paths):
        code, output = exec_command(engine, holder, [REMOVE_PATH, *batch], user=f"{uid}:{gid}")
        if code != 0:
            raise PreconditionError(
                "Cannot remove all deleted files from the source volume: permission denied",
                details=tuple(output.splitlines()),
                hint="Recreate the development environment with `dev.stop create`",
            )


def resolve_user_ids(engine: Engine, container: str, user: str) -> tuple[int, int]:
    """Return user and group id of `USER[:GROUP]` in a container."""
    return parse_user_ids(user, lambda path: next(_read_texts(engine, container, path), ""))


def parse_user_ids(user: str, read_text: Callable[[str], str]) -> tuple[int, int]:
    """Return user and group id of `USER[:GROUP]`; `read_text` returns a file of the image, empty if it is missing."""
    with translate_failures(
        lambda problem: PreconditionError(
            f"The image has no valid user {user!r}: {problem}", hint="Use a numeric user id"
        )
    ):
        return _parse_user_ids(user, read_text)


def _parse_user_ids(user: str, read_text: Callable[[str], str]) -> tuple[int, int]:
    name, _, group = user.partition(":")
    name = name or "0"
    user_fields = next(
        (fields for fields in _split_fields(read_text("/etc/passwd")) if name in (fields[0], fields[2])), None
    )
    if user_fields is None and not name.isdigit():
        raise UnknownUserError(f"The image has no user {name!r}", hint="Use a numeric user id")
    uid = int(user_fields[2]) if user_fields else int(name)
    if not group:
        return uid, int(user_fields[3]) if user_fields else 0
    if group.isdigit():
        return uid, int(group)
    for fields in _split_fields(read_text("/etc/group")):
        if fields[0] == group:
            return uid, int(fields[2])
    raise UnknownUserError(f"The image has no group {group!r}", hint="Use a numeric group id")


def _split_fields(text: str) -> list[list[str]]:
    return [fields for line in text.splitlines() if len(fields := line.split(":")) >= 4]


def read_lines_below(engine: Engine, container: str, directory: str) -> list[str]:
    """Return the stripped lines of all files in a directory of a container."""
    return [line.strip() for text in _read_texts(engine, container, directory) for line in text.splitlines()]


def _read_texts(engine: Engine, container: str, path: str) -> Iterator[str]:
    with open_tar(engine, container, path) as archive:
        for entry in archive or ():
            stream = archive.extractfile(entry) if archive and entry.isfile() else None
            if stream is not None:
                yield stream.read().decode(errors="replace")


def _batches(paths: Sequence[str]) -> Iterator[list[str]]:
    """Split paths into batches that fit on a command line."""
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


class ChunkReader(io.RawIOBase):
    """A file object over an iterator of byte chunks, for one pass."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._remainder = memoryview(b"")

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes into `buffer`; return how many."""
        self._remainder = self._remainder or memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._remainder))
        buffer[:size], self._remainder = self._remainder[:size], self._remainder[size:]
        return size
