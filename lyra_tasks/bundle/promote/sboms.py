"""Write the SBOMs of a bundle, in CycloneDX and in SPDX."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.bundle.content.sbom_process import ReleaseName, SbomProcess, SbomRequest
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.manifest import BundledImage
from lyra_tasks.bundle.format.staging import write_staged
from lyra_tasks.bundle.promote.contents import commit_time
from lyra_tasks.bundle.promote.plan import PromotionPlan
from lyra_tasks.files import format_json
from lyra_tasks.images.archive.write import write_layout
from lyra_tasks.images.oci import Layer
from lyra_tasks.images.stream.codec import decompress_blocks, detect_codec, read_file_blocks
from lyra_tasks.images.stream.layers import blob_path
from lyra_tasks.images.stream.pack import PackedImage
from lyra_tasks.images.stream.packages import (
    LayerPackages,
    load_layer_packages,
    merge_layer_packages,
    read_layer_packages,
    save_layer_packages,
)

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


@contextmanager
def write_sboms(
    plan: PromotionPlan,
    work: Workspace,
    stage: Path,
    images: Mapping[str, BundledImage],
    packed_images: Mapping[str, PackedImage],
    process: SbomProcess,
) -> Iterator[None]:
    """Write the SBOM of each image, by build name, beside what the block does.

    syft runs after it: an interruption ends a program that the main thread waits for.
    """
    release = ReleaseName(plan.config.project.name, plan.version, commit_time(plan))
    uses_syft = work.config.promotion.sbom == "syft"

    def list_packages() -> None:
        for build_name, image in images.items():
            packed_image = packed_images[build_name]
            packages = merge_layer_packages(
                _collect_layer_packages(layer, packed_image, work.paths.cache) for layer in packed_image.identity.layers
            )
            if not uses_syft:
                _write_sbom(
                    stage, build_name, *process.format(SbomRequest(release=release, image=image, packages=packages))
                )

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(list_packages)
        yield
        future.result()
    for build_name, image in images.items() if uses_syft else ():
        documents = _run_syft(packed_images[build_name], release, image, stage)
        _write_sbom(stage, build_name, *(format_json(document) for document in documents))


def _write_sbom(stage: Path, build_name: str, cyclonedx: str, spdx: str) -> None:
    write_staged(stage / layout.sbom_file(build_name), cyclonedx.encode())
    write_staged(stage / layout.spdx_file(build_name), spdx.encode())


def _run_syft(
    packed_image: PackedImage, release: ReleaseName, image: BundledImage, stage: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run syft on a copy of one image, since it reads no archive of several."""
    from lyra_tasks.bundle.content.syft import run_syft

    with tempfile.TemporaryDirectory(dir=stage) as directory:
        write_layout(Path(directory), packed_image)
        return run_syft(Path(directory), release, image)


def _collect_layer_packages(layer: Layer, image: PackedImage, cache: Path) -> LayerPackages:
    """Return the packages of a layer, which is read only if they are known neither from `cache` nor from packing."""
    packages = load_layer_packages(cache, layer.diff_id)
    if packages is None:
        packages = image.packages.get(layer.diff_id) or _read_layer_packages(layer, image.spool)
        save_layer_packages(cache, layer.diff_id, packages)
    return packages


def _read_layer_packages(layer: Layer, spool: Path) -> LayerPackages:
    with blob_path(spool, layer.digest).open("rb") as file:
        codec = detect_codec(file.peek(4))
        blocks = decompress_blocks(read_file_blocks(file), codec, layer.digest, layer.unpacked_size)
        return read_layer_packages(blocks, layer.digest)
