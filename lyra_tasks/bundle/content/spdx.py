"""The SBOM of an image in SPDX 2.3, from the one in CycloneDX.

Written by hand: spdx-tools, by which the tests validate it, brings 28 MB with a stack for RDF.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lyra_tasks.digests import hex_part
from lyra_tasks.version import __version__

_UNKNOWN = "NOASSERTION"
_DOCUMENT, _IMAGE = "SPDXRef-DOCUMENT", "SPDXRef-Image"
_PURPOSES = {"operating-system": "OPERATING-SYSTEM", "library": "LIBRARY", "application": "APPLICATION"}


def convert_to_spdx(sbom: Mapping[str, Any], manifest_digest: str) -> dict[str, Any]:
    """Return the SPDX document of the packages in a CycloneDX document; equal documents give equal ones."""
    metadata, image = sbom["metadata"], sbom["metadata"]["component"]
    packages = [
        _describe_package(f"SPDXRef-Package-{number}", component)
        for number, component in enumerate(sbom.get("components", ()), 1)
    ]
    checksum = {"algorithm": "SHA256", "checksumValue": hex_part(manifest_digest)}
    described = [(_DOCUMENT, "DESCRIBES", _IMAGE), *((_IMAGE, "CONTAINS", item["SPDXID"]) for item in packages)]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": f"{image['name']} {image['version']}",
        "documentNamespace": sbom["serialNumber"],
        "comment": "Packages that package managers recorded in the layers; other software is not listed.",
        "creationInfo": {"created": metadata["timestamp"], "creators": [f"Tool: lyra-tasks-{__version__}"]},
        "packages": [
            _describe_package(_IMAGE, image) | {"checksums": [checksum], "primaryPackagePurpose": "CONTAINER"},
            *packages,
        ],
        "relationships": [
            {"spdxElementId": source, "relationshipType": kind, "relatedSpdxElement": target}
            for source, kind, target in described
        ],
    }


def _describe_package(identifier: str, component: Mapping[str, Any]) -> dict[str, Any]:
    """Return a package; what it says of its license itself need not be an expression of SPDX."""
    licenses = [_name_license(entry) for entry in component.get("licenses", ())]
    reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl"}
    purpose = _PURPOSES.get(component.get("type", ""), "")
    return {
        "SPDXID": identifier,
        "name": component["name"],
        **({"versionInfo": component["version"]} if component.get("version") else {}),
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        **({"licenseComments": f"declared: {'; '.join(licenses)}"} if licenses else {}),
        "copyrightText": _UNKNOWN,
        **({"externalRefs": [reference | {"referenceLocator": component["purl"]}]} if component.get("purl") else {}),
        **({"primaryPackagePurpose": purpose} if purpose else {}),
    }


def _name_license(entry: Mapping[str, Any]) -> str:
    details = entry.get("license") or {}
    return str(entry.get("expression") or details.get("id") or details.get("name") or _UNKNOWN)
