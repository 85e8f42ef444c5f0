"""The SBOM of an image in SPDX 2.3, from the one in CycloneDX."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
from spdx_tools.spdx.model import (
    Actor,
    ActorType,
    Checksum,
    ChecksumAlgorithm,
    CreationInfo,
    Document,
    ExternalPackageRef,
    ExternalPackageRefCategory,
    Package,
    PackagePurpose,
    Relationship,
    RelationshipType,
    SpdxNoAssertion,
)

from lyra_tasks.digests import hex_part
from lyra_tasks.version import __version__

_UNKNOWN = "NOASSERTION"
_DOCUMENT, _IMAGE = "SPDXRef-DOCUMENT", "SPDXRef-Image"
_COMMENT = "Packages that package managers recorded in the layers; other software is not listed."


def convert_to_spdx(sbom: Mapping[str, Any], manifest_digest: str) -> dict[str, Any]:
    """Return the SPDX document of the packages in a CycloneDX document; equal documents give equal ones."""
    metadata, root = sbom["metadata"], sbom["metadata"]["component"]
    image = _describe_package(_IMAGE, root)
    image.checksums = [Checksum(ChecksumAlgorithm.SHA256, hex_part(manifest_digest))]
    packages = [
        _describe_package(f"SPDXRef-Package-{number}", component)
        for number, component in enumerate(sbom.get("components", ()), 1)
    ]
    creation = CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id=_DOCUMENT,
        name=f"{root['name']} {root['version']}",
        document_namespace=sbom["serialNumber"],
        creators=[Actor(ActorType.TOOL, f"lyra-tasks-{__version__}")],
        created=datetime.fromisoformat(metadata["timestamp"]),
        document_comment=_COMMENT,
    )
    relationships = [
        Relationship(_DOCUMENT, RelationshipType.DESCRIBES, _IMAGE),
        *(Relationship(_IMAGE, RelationshipType.CONTAINS, package.spdx_id) for package in packages),
    ]
    document = Document(creation, packages=[image, *packages], relationships=relationships)
    converter = DocumentConverter()  # type: ignore[no-untyped-call]
    return _correct_categories(converter.convert(document))


def _describe_package(identifier: str, component: Mapping[str, Any]) -> Package:
    """Return a package; what it says of its license itself need not be an expression of SPDX."""
    licenses = [_name_license(entry) for entry in component.get("licenses", ())]
    url = component.get("purl")
    purpose = str(component.get("type", "")).upper().replace("-", "_")
    return Package(
        spdx_id=identifier,
        name=component["name"],
        version=component.get("version") or None,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        license_concluded=SpdxNoAssertion(),
        license_declared=SpdxNoAssertion(),
        license_comment=f"declared: {'; '.join(licenses)}" if licenses else None,
        copyright_text=SpdxNoAssertion(),
        external_references=[ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", url)]
        if url
        else [],
        primary_package_purpose=PackagePurpose.__members__.get(purpose),
    )


def _name_license(entry: Mapping[str, Any]) -> str:
    details = entry.get("license") or {}
    return str(entry.get("expression") or details.get("id") or details.get("name") or _UNKNOWN)


def _correct_categories(document: dict[str, Any]) -> dict[str, Any]:
    """Write `PACKAGE-MANAGER` as the schema does: https://github.com/spdx/spdx-spec/issues/792."""
    for package in document["packages"]:
        for reference in package.get("externalRefs", ()):
            reference["referenceCategory"] = reference["referenceCategory"].replace("_", "-")
    return document
