"""The packages of an image as components of CycloneDX, as grype and trivy read them, too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.component_evidence import ComponentEvidence, Occurrence
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.schema.schema import SchemaVersion1Dot5
from packageurl import PackageURL

from lyra_tasks.images.stream.packages import ImagePackages, OsRelease, Package, list_packages

_DEFAULT_VENDORS = {"deb": "debian", "apk": "alpine"}
_TRIVY = "aquasecurity:trivy:"


def build_package_list(name: str, packages: ImagePackages) -> dict[str, Any]:
    """Return a CycloneDX document of an image that has no version and no digest yet."""
    image = Component(type=ComponentType.CONTAINER, bom_ref=name, name=name)
    return format_bom(Bom(metadata=BomMetaData(component=image)), packages)


def format_bom(bom: Bom, packages: ImagePackages) -> dict[str, Any]:
    """Return the document, in CycloneDX 1.5, of a BOM without components and of packages, which become its components.

    They are formatted one by one, since a BOM compares each of its components with all others
    (https://github.com/CycloneDX/cyclonedx-python-lib/issues/1006).
    """
    document: dict[str, Any] = json.loads(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_5).output_as_string())
    document.pop("dependencies")  # would say that the image has none
    document["components"] = [_format_component(component) for component in list_components(packages)]
    return document


def _format_component(component: Component) -> dict[str, Any]:

    document: dict[str, Any] = json.loads(
        component.as_json(view_=SchemaVersion1Dot5)  # type: ignore[attr-defined]  # from a decorator
    )
    # The library orders them by where they are in memory if they have no references.
    document.get("evidence", {}).get("occurrences", []).sort(key=itemgetter("location"))
    return document


def list_components(packages: ImagePackages) -> Iterator[Component]:
    """Yield the operating system, and a component per package URL.

    Package databases may spell a name differently or omit the license.
    """
    release = packages.os_release
    if release is not None and release.name:
        yield _describe_system(release)
    locations_by_package = list_packages(packages)
    packages_by_reference: dict[str, tuple[PackageURL | None, list[Package]]] = {}
    for package in locations_by_package:
        url = create_purl(package, release)
        reference = url.to_string() if url else f"{package.kind}:{package.name}@{package.version}"
        packages_by_reference.setdefault(reference, (url, []))[1].append(package)
    for reference, (url, same) in packages_by_reference.items():
        locations = {location for package in same for location in locations_by_package[package]}
        yield _describe_package(reference, url, same, locations)


def create_purl(package: Package, release: OsRelease | None) -> PackageURL | None:
    """Return the package URL, such as `pkg:deb/debian/libssl3@3.0.17-1?arch=amd64&distro=debian-12&upstream=openssl`.

    grype takes the source package, by which distributions track vulnerabilities, from `upstream`. A name of spaces and
    slashes alone has no URL.
    """
    namespace, _, name = package.name.rpartition("/") if package.kind == "npm" else ("", "", package.name)
    if not name.strip(" /"):
        return None
    if package.kind in ("npm", "pypi"):
        return PackageURL(package.kind, namespace, name, package.version)
    vendor = (release.id if release else "") or _DEFAULT_VENDORS[package.kind]
    distro = f"{release.id}-{release.version}" if release and release.id and release.version else ""
    source_version = f"@{package.source_version}" if package.source_version else ""
    upstream = f"{package.source}{source_version}" if package.source else ""
    qualifiers = {"arch": package.arch, "distro": distro, "upstream": upstream}
    return PackageURL(package.kind, vendor, name.lower(), package.version, qualifiers)


def _describe_system(release: OsRelease) -> Component:
    """Return the operating system by its id: scanners look for `debian`, not for `Debian GNU/Linux 12 (bookworm)`."""
    return Component(
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref=f"os:{release.id}",
        name=release.id or release.name,
        version=release.version or None,
        description=release.name if release.id else None,
    )


def _describe_package(
    reference: str, url: PackageURL | None, packages: Sequence[Package], locations: Iterable[str]
) -> Component:
    package = max(packages, key=lambda package: bool(package.license))
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=reference,
        name=package.name,
        version=package.version,
        purl=url,
        licenses=[DisjunctiveLicense(name=package.license)] if package.license else (),
        properties=[Property(name=f"{_TRIVY}{name}", value=value) for name, value in _list_source_properties(package)],
        evidence=ComponentEvidence(occurrences=[Occurrence(location=f"/{location}") for location in locations]),
    )


def _list_source_properties(package: Package) -> Iterator[tuple[str, str]]:
    """Yield the source package as trivy reads it: it finds nothing by the name of a binary package alone."""
    if not package.source:
        return
    epoch, colon, rest = package.upstream_version.rpartition(":")
    version, _, release = rest.rpartition("-") if package.kind == "deb" and "-" in rest else (rest, "", "")
    yield "SrcName", package.source
    yield "SrcVersion", version
    if release:
        yield "SrcRelease", release
    if colon and epoch.isdecimal():
        yield "SrcEpoch", epoch
