"""What the engine kept of a container's output, and what must not be shown of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.volumes import tar_of

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine


def lines(
    engine: Engine, container: str, *, follow: bool = False, streams: Sequence[str] = ("out", "err")
) -> Iterator[tuple[str, str]]:
    """Time stamp and text of every line of `streams`, in the order they came; with `follow`, until the container ends.

    Nothing if the container is gone.
    """
    from docker.errors import NotFound

    rest = b""
    with engine_faults("reading a container's log"):
        try:
            chunks = engine.streams.logs(
                container, stream=True, follow=follow, timestamps=True, stdout="out" in streams, stderr="err" in streams
            )
            for chunk in chunks:
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield _parted(line)
        except NotFound:
            return
    if rest:
        yield _parted(rest)


def secret_values(engine: Engine, container: str, variables: Sequence[str]) -> list[str]:
    """The values that a container has in environment `variables`."""
    from docker.errors import NotFound

    with engine_faults("looking at a container"):
        try:
            environment = engine.api.inspect_container(container)["Config"].get("Env") or []
        except NotFound:
            return []
    pairs = dict(each.split("=", 1) for each in environment)
    return [pairs[name] for name in variables if name in pairs]


def secret_files(engine: Engine, holder: str, folder: str) -> list[str]:
    """The lines of the files in a folder of the holder."""
    found: list[str] = []
    with tar_of(engine, holder, folder) as archive:
        for entry in archive or ():
            stream = archive.extractfile(entry) if archive and entry.isfile() else None
            if stream is not None:
                found += [line.strip() for line in stream.read().decode(errors="replace").splitlines()]
    return found


def _parted(line: bytes) -> tuple[str, str]:
    at, _, text = line.rstrip(b"\r").decode(errors="replace").partition(" ")
    return at, text
