"""Data in the volumes of a rehearsal: a file with owner and mode in each, written and read through the engine.

That works for every image, also one without a shell, and shows whether a backup keeps content, owner and mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lyra_tasks.engine.objects.compose_services import VolumeMount
from lyra_tasks.engine.objects.containers import ContainerFile, put_files
from lyra_tasks.engine.objects.volumes import open_tar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lyra_tasks.engine.client.connect import Engine

_MODE = 0o640


def write_marks(engine: Engine, volumes: Mapping[str, VolumeMount], name: str) -> dict[str, ContainerFile]:
    """Write a file that belongs to the owner of the volume into each, and return what was written."""
    marks = {}
    for volume, mount in volumes.items():
        root = _read_file(engine, mount, ".")
        uid, gid = (root.uid, root.gid) if root else (0, 0)
        marks[volume] = ContainerFile(name, f"{volume}\n".encode(), uid, gid, _MODE)
        put_files(engine, mount.container, mount.path, [marks[volume]])
    return marks


def read_marks(engine: Engine, volumes: Mapping[str, VolumeMount], name: str) -> dict[str, ContainerFile]:
    """Return the file of each volume that has it."""
    marks = {volume: _read_file(engine, mount, name) for volume, mount in volumes.items()}
    return {volume: mark for volume, mark in marks.items() if mark is not None}


def _read_file(engine: Engine, mount: VolumeMount, name: str) -> ContainerFile | None:
    with open_tar(engine, mount.container, f"{mount.path}/{name}") as archive:
        for entry in archive or ():
            stream = archive.extractfile(entry) if archive and entry.isfile() else None
            content = stream.read() if stream else b""
            return ContainerFile(name, content, entry.uid, entry.gid, entry.mode & 0o7777)
    return None
