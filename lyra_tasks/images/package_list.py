"""The packages of an image as components of CycloneDX, as grype and trivy read them, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from lyra_tasks.images.stream.packages import ImagePackages, OsRelease, Package, list_packages

SPEC_VERSION = "1.5"
_DEFAULT_VENDORS = {"deb": "debian", "apk": "alpine"}
_TRIVY = "aquasecurity:trivy:"


def build_package_list(name: str, packages: ImagePackages) -> dict[str, Any]:
    """Return a CycloneDX document of an image that has no version and no digest yet."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": name, "name": name}},
        "components": list(list_components(packages)),
    }


def list_components(packages: ImagePackages) -> Iterator[dict[str, Any]]:
    """Yield the operating system, and a component per package URL.

    Package databases may spell a name differently or omit the license.
    """
    release = packages.os_release
    if release is not None and release.name:
        yield _describe_system(release)
    locations_by_package = list_packages(packages)
    packages_by_url: dict[str, list[Package]] = {}
    for package in locations_by_package:
        packages_by_url.setdefault(format_purl(package, release), []).append(package)
    for url, same in packages_by_url.items():
        yield _describe_package(url, same, locations_by_package)


def format_purl(package: Package, release: OsRelease | None) -> str:
    """Return the package URL, such as `pkg:deb/debian/libssl3@3.0.17-1?arch=amd64&distro=debian-12&upstream=openssl`.

    grype takes the source package, by which distributions track vulnerabilities, from `upstream`.
    """
    version = quote(package.version, safe=":")
    if package.kind == "npm":
        return f"pkg:npm/{quote(package.name, safe='/')}@{version}"
    if package.kind == "pypi":
        return f"pkg:pypi/{quote(package.name.lower().replace('_', '-'), safe='')}@{version}"
    vendor = (release.id if release else "") or _DEFAULT_VENDORS[package.kind]
    distro = f"{release.id}-{release.version}" if release and release.id and release.version else ""
    source_version = f"@{package.source_version}" if package.source_version else ""
    upstream = f"{package.source}{source_version}" if package.source else ""
    qualifiers = [
        f"{key}={quote(value, safe=':')}"
        for key, value in (("arch", package.arch), ("distro", distro), ("upstream", upstream))
        if value
    ]
    query = f"?{'&'.join(qualifiers)}" if qualifiers else ""
    return f"pkg:{package.kind}/{quote(vendor, safe='')}/{quote(package.name.lower(), safe='')}@{version}{query}"


def _describe_system(release: OsRelease) -> dict[str, Any]:
    """Return the operating system by its id: scanners look for `debian`, not for `Debian GNU/Linux 12 (bookworm)`."""
    version = {"version": release.version} if release.version else {}
    description = {"description": release.name} if release.id else {}
    name = release.id or release.name
    return {"type": "operating-system", "bom-ref": f"os:{release.id}", "name": name, **version, **description}


def _describe_package(
    url: str, packages: Sequence[Package], locations_by_package: Mapping[Package, Sequence[str]]
) -> dict[str, Any]:
    package = max(packages, key=lambda package: bool(package.license))
    locations = sorted({location for package in packages for location in locations_by_package[package]})
    properties = [{"name": f"{_TRIVY}{name}", "value": value} for name, value in _list_source_properties(package)]
    return {
        "type": "library",
        "bom-ref": url,
        "name": package.name,
        "version": package.version,
        "purl": url,
        **({"licenses": [{"license": {"name": package.license}}]} if package.license else {}),
        **({"properties": properties} if properties else {}),
        "evidence": {"occurrences": [{"location": f"/{location}"} for location in locations]},
    }


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
