"""The SBOM of an image in CycloneDX: reproducible, from its layers or from syft."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lyra_tasks.bundle.content.spdx import convert_to_spdx
from lyra_tasks.bundle.format.manifest import BundledImage
from lyra_tasks.documents import parse_json_object, translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.images.oci import Layer
from lyra_tasks.images.package_list import format_bom
from lyra_tasks.images.stream.codec import decompress_blocks, detect_codec, read_file_blocks
from lyra_tasks.images.stream.layers import blob_path
from lyra_tasks.images.stream.pack import PackedImage
from lyra_tasks.images.stream.packages import (
    ImagePackages,
    LayerPackages,
    load_layer_packages,
    merge_layer_packages,
    read_layer_packages,
    save_layer_packages,
)
from lyra_tasks.locks import private_directory
from lyra_tasks.processes import create_environment
from lyra_tasks.version import __version__

_SYFT = "syft"
_SYFT_TIMEOUT_S = 600.0
_MAX_SYFT_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class ReleaseName:
    """The project, version and commit time that an SBOM names."""

    project: str
    version: str
    created: str


def collect_image_packages(image: PackedImage, cache: Path) -> ImagePackages:
    """Return the packages of an image; layers whose packages are known, from `cache` or from packing, are not read."""
    return merge_layer_packages(_collect_layer_packages(layer, image, cache) for layer in image.identity.layers)


def build_sbom(release: ReleaseName, image: BundledImage, packages: ImagePackages) -> dict[str, Any]:
    """Return the CycloneDX document of an image."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from packageurl import PackageURL

    root = f"{image.references[0]}@{image.manifest_digest}"
    tool = Component(type=ComponentType.APPLICATION, name="lyra-tasks", version=__version__)
    metadata = BomMetaData(
        timestamp=datetime.fromisoformat(release.created),
        tools=ToolRepository(components=[tool]),
        component=Component(
            type=ComponentType.CONTAINER,
            bom_ref=root,
            name=f"{release.project}/{image.name}",
            version=release.version,
            purl=PackageURL("oci", name=image.name, version=image.manifest_digest),
        ),
    )
    document = format_bom(Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, root), metadata=metadata), packages)
    # Files without a package manager are not listed. The library does not know compositions.
    return document | {"compositions": [{"aggregate": "incomplete", "assemblies": [root]}]}


def run_syft(layout: Path, release: ReleaseName, image: BundledImage) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what syft lists for an OCI image layout with this image alone, reproducible, in CycloneDX and SPDX."""
    if not shutil.which(_SYFT):
        raise PreconditionError(
            'syft not found, but [promotion] sbom = "syft"', hint="Install syft, or remove that key"
        )
    command = [_SYFT, "scan", f"oci-dir:{layout}", "--quiet", "--output", "cyclonedx-json@1.5"]
    details: tuple[str, ...] = ()
    with translate_failures(
        lambda problem: PreconditionError(
            f"{_SYFT} cannot list the packages of {image.name}: {problem}",
            hint="Fix the installation, or remove [promotion] sbom; Lyra then lists the packages itself",
            details=details,
        )
    ):
        with private_directory("syft") as scratch:
            result = subprocess.run(
                command,
                capture_output=True,
                check=False,
                timeout=_SYFT_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                env=create_environment({"TMPDIR": str(scratch)}),
            )
        details = tuple(result.stderr.decode(errors="replace").splitlines()[-5:])
        result.check_returncode()
        document = parse_json_object(result.stdout, max_bytes=_MAX_SYFT_BYTES)
        own_sbom = build_sbom(release, image, ImagePackages(packages={}, os_release=None))
        document["serialNumber"] = own_sbom["serialNumber"]
        document["metadata"]["timestamp"] = release.created
        component = document["metadata"].get("component", {})
        bom_ref = {key: component[key] for key in ("bom-ref",) if key in component}
        document["metadata"]["component"] = own_sbom["metadata"]["component"] | bom_ref
        return document, convert_to_spdx(document, image.manifest_digest)


def _collect_layer_packages(layer: Layer, image: PackedImage, cache: Path) -> LayerPackages:
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
