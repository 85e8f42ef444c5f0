"""The SBOM of an image in CycloneDX, from the packages in its layers; equal images give equal bytes."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.tool import ToolRepository
from packageurl import PackageURL

from lyra_tasks.bundle.content.sbom_process import ReleaseName
from lyra_tasks.bundle.format.manifest import BundledImage
from lyra_tasks.images.package_list import format_bom
from lyra_tasks.images.stream.packages import ImagePackages
from lyra_tasks.version import __version__


def build_sbom(release: ReleaseName, image: BundledImage, packages: ImagePackages) -> dict[str, Any]:
    """Return the CycloneDX document of an image."""
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
