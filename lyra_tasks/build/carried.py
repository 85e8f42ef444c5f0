"""Bases that the engine holds, carried to a builder that does not see the engine's images: as OCI image layouts."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.engine.bases import REPOSITORY, ResolvedBase
from lyra_tasks.engine.save import saved
from lyra_tasks.errors import BuildError
from lyra_tasks.images.archive import write_archive
from lyra_tasks.images.pack import Wanted, pack

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_HELD = f"docker-image://{REPOSITORY}/"


def carried(engine: Engine, bases: Mapping[str, ResolvedBase], folder: Path) -> dict[str, ResolvedBase]:
    """`bases`, those that only the engine holds replaced by layouts below `folder`, layer by layer the same."""
    held = {key: base for key, base in bases.items() if base.context.startswith(_HELD)}
    return {**bases, **{key: _layout(engine, base, folder / key.replace("/", "_")) for key, base in held.items()}}


def _layout(engine: Engine, base: ResolvedBase, folder: Path) -> ResolvedBase:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "spool").mkdir(parents=True)
    tag = base.context.removeprefix("docker-image://")
    with saved(engine, [tag]) as stream:
        image = pack(stream, {tag: Wanted(tag)}, folder / "spool", "gzip")[tag]
    archive = folder / "image.tar"
    write_archive(archive, image, [tag], {}, 0)
    shutil.rmtree(folder / "spool")
    try:
        with tarfile.open(archive) as content:
            content.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise BuildError(f"the base {base.key} could not be written to {folder}: {error}") from error
    archive.unlink()
    return replace(base, context=f"oci-layout://{folder}@{image.identity.manifest_digest}", supply=None)
