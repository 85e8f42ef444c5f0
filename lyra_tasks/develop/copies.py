"""Copy changed files into the own file system of a container, as `target` of a rule says."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.client.exec import exec_command
from lyra_tasks.engine.objects.containers import read_container_user
from lyra_tasks.engine.objects.volumes import put_tar, resolve_user_ids
from lyra_tasks.errors import PreconditionError


def copy_into_container(
    engine: Engine, container: str, root: Path, copies: Sequence[tuple[str, str]], removals: Sequence[str]
) -> None:
    """Copy files below `root` to paths in a container, owned by its user, and remove other paths there."""
    if copies:
        uid, gid = resolve_user_ids(engine, container, read_container_user(engine, container))
        with tempfile.TemporaryFile() as archive:
            _write_archive(archive, root, copies, uid, gid)
            archive.seek(0)
            put_tar(engine, container, "/", archive)
    if removals:
        code, output = exec_command(engine, container, ["rm", "-f", "--", *removals])
        if code != 0:
            raise PreconditionError(
                f"Cannot remove {', '.join(removals)} from the container: rm exited with code {code}",
                hint="Recreate the development environment with `dev.stop create`",
                details=tuple(output.splitlines()),
            )


def _write_archive(file: IO[bytes], root: Path, copies: Sequence[tuple[str, str]], uid: int, gid: int) -> None:
    """Write a tar of the files that still exist; it has no directories, whose owners and modes so stay as they are."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for name, destination in copies:
            with suppress(FileNotFoundError, NotADirectoryError):
                entry = archive.gettarinfo(root / name, arcname=destination.lstrip("/"))
                entry.uid, entry.gid, entry.uname, entry.gname = uid, gid, "", ""
                if entry.isfile():
                    with (root / name).open("rb") as content:
                        archive.addfile(entry, content)
                else:
                    archive.addfile(entry)
