"""The SBOM of an image in CycloneDX, from the packages in its layers; equal images give equal bytes.

Run as a program, it answers the requests of `sbom_process`.
"""

from __future__ import annotations

import json
import signal
import sys
import uuid
from datetime import datetime
from typing import Any

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.tool import ToolRepository
from packageurl import PackageURL

from lyra_tasks.bundle.content.sbom_process import ReleaseName, SbomRequest
from lyra_tasks.bundle.content.spdx import convert_to_spdx
from lyra_tasks.bundle.format.manifest import BundledImage
from lyra_tasks.files import format_json
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


def answer_requests() -> None:
    """Answer requests, a line each, until there are no more; Ctrl-C is for the promotion."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        request = SbomRequest.model_validate_json(line)
        sbom = build_sbom(request.release, request.image, request.packages)
        documents = sbom, convert_to_spdx(sbom, request.image.manifest_digest)
        print(json.dumps([format_json(document) for document in documents]), flush=True)  # noqa: T201


if __name__ == "__main__":
    answer_requests()
