"""Export base images from the engine as OCI image layouts, for builders that cannot use the engine's images."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.documents import translate_failures
from lyra_tasks.engine.bases.resolve import BASE_REPOSITORY, ResolvedBase
from lyra_tasks.engine.buildx.save_stream import open_save_stream
from lyra_tasks.errors import BuildError
from lyra_tasks.images.archive.write import ArchiveEntry, write_archive
from lyra_tasks.images.stream.pack import ImageRequest, pack_saved_images

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_LOCAL_CONTEXT_PREFIX = f"docker-image://{BASE_REPOSITORY}/"


def export_local_bases(engine: Engine, bases: Mapping[str, ResolvedBase], directory: Path) -> dict[str, ResolvedBase]:
    """Return `bases`, with those that exist only in the engine replaced by identical layouts below `directory`."""
    local_bases = {key: base for key, base in bases.items() if base.context.startswith(_LOCAL_CONTEXT_PREFIX)}
    return {
        **bases,
        **{key: _write_layout(engine, base, directory / key.replace("/", "_")) for key, base in local_bases.items()},
    }


def _write_layout(engine: Engine, base: ResolvedBase, directory: Path) -> ResolvedBase:
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "spool").mkdir(parents=True)
    tag = base.context.removeprefix("docker-image://")
    with open_save_stream(engine, [tag]) as stream:
        image = pack_saved_images(stream, {tag: ImageRequest(tag)}, directory / "spool", "gzip")[tag]
    archive = directory / "image.tar"
    write_archive(archive, [ArchiveEntry(image, [tag])], 0)
    shutil.rmtree(directory / "spool")
    with (
        translate_failures(lambda problem: BuildError(f"Cannot write base {base.key} to {directory}: {problem}")),
        tarfile.open(archive) as archive_file,
    ):
        archive_file.extractall(directory, filter="data")
    archive.unlink()
    return replace(base, context=f"oci-layout://{directory}@{image.identity.manifest_digest}", install=None)
