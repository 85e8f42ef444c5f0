"""Write the SBOMs of a bundle, in CycloneDX and in SPDX."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.bundle.content.sbom import ReleaseName, build_sbom, collect_image_packages, run_syft
from lyra_tasks.bundle.content.spdx import convert_to_spdx
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.manifest import BundledImage
from lyra_tasks.bundle.promote.contents import commit_time
from lyra_tasks.bundle.promote.plan import PromotionPlan
from lyra_tasks.files import write_json
from lyra_tasks.images.archive.write import write_layout
from lyra_tasks.images.stream.pack import PackedImage

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_MAX_UNPACKED_BESIDE_BYTES = 8 * 1024**2


@contextmanager
def write_sboms(
    plan: PromotionPlan,
    work: Workspace,
    stage: Path,
    images: Mapping[str, BundledImage],
    packed_images: Mapping[str, PackedImage],
) -> Iterator[None]:
    """Write the SBOM of each image, by build name, beside what the block does or after it.

    After it if it unpacks large layers again, which takes the most memory of a promotion. syft always runs after it: an
    interruption ends a program that the main thread waits for.
    """
    release = ReleaseName(plan.config.project.name, plan.version, commit_time(plan))
    uses_syft = work.config.promotion.sbom == "syft"

    def list_packages() -> None:
        for build_name, image in images.items():
            packages = collect_image_packages(packed_images[build_name], work.paths.cache)
            if not uses_syft:
                sbom = build_sbom(release, image, packages)
                _write_sbom(stage, build_name, sbom, convert_to_spdx(sbom, image.manifest_digest))

    unpacks = any(
        layer.unpacked_size > _MAX_UNPACKED_BESIDE_BYTES
        for image in packed_images.values()
        for layer in image.identity.layers
        if layer.digest in image.unverified
    )
    with ThreadPoolExecutor(1) as pool:
        future = None if unpacks else pool.submit(list_packages)
        yield
        future.result() if future else list_packages()
    for build_name, image in images.items() if uses_syft else ():
        _write_sbom(stage, build_name, *_run_syft(packed_images[build_name], release, image, stage))


def _write_sbom(stage: Path, build_name: str, cyclonedx: Mapping[str, Any], spdx: Mapping[str, Any]) -> None:
    write_json(stage / layout.sbom_file(build_name), cyclonedx)
    write_json(stage / layout.spdx_file(build_name), spdx)


def _run_syft(
    packed_image: PackedImage, release: ReleaseName, image: BundledImage, stage: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run syft on a copy of one image, since it reads no archive of several."""
    with tempfile.TemporaryDirectory(dir=stage) as directory:
        write_layout(Path(directory), packed_image)
        return run_syft(Path(directory), release, image)
