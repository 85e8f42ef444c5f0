"""What is in an image as CycloneDX, for those who must know which package is where; the same image, the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lyra_tasks import __version__
from lyra_tasks.bundle.manifest import BundledImage, Manifest
from lyra_tasks.errors import PreconditionError
from lyra_tasks.images.codec import codec_of, unpack
from lyra_tasks.images.identity import Layer
from lyra_tasks.images.layers import blob_path
from lyra_tasks.images.pack import PackedImage
from lyra_tasks.images.package_records import Package, Release
from lyra_tasks.images.packages import (
    ImagePackages,
    LayerPackages,
    keep_packages,
    known_packages,
    merged,
    packages_of,
    read_layer,
)
from lyra_tasks.images.tarball import BLOCK

_TOOL = "syft"
_TIMEOUT = 600.0  # seconds


def image_packages(image: PackedImage, cache: Path) -> ImagePackages:
    """What the layers of an image hold; one that was read on the way or before, as `cache` knows, is not read again.

    BundleError if a layer is no file system.
    """
    return merged(_layer_packages(layer, image, cache) for layer in image.identity.layers)


def sbom(manifest: Manifest, image: BundledImage, packages: ImagePackages) -> dict[str, Any]:
    """The CycloneDX document of one image."""
    root = f"{image.references[0]}@{image.manifest_digest}"
    system = [_system(packages.release)] if packages.release and packages.release.name else []
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, root)}",
        "version": 1,
        "metadata": {
            "timestamp": manifest.created,
            "tools": {"components": [{"type": "application", "name": "lyra-tasks", "version": __version__}]},
            "component": {
                "type": "container",
                "bom-ref": root,
                "name": f"{manifest.project}/{image.name}",
                "version": manifest.version,
                "purl": f"pkg:oci/{image.name}@{quote(image.manifest_digest, safe='')}",
            },
        },
        "components": [
            *system,
            *_components(packages_of(packages), packages.release),
        ],
        # files that no package manager wrote down are not listed
        "compositions": [{"aggregate": "incomplete", "assemblies": [root]}],
    }


def purl(package: Package, release: Release | None) -> str:
    """The package URL: `pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12`."""
    version = quote(package.version, safe=":")
    if package.kind == "npm":
        return f"pkg:npm/{quote(package.name, safe='/')}@{version}"
    if package.kind == "pypi":
        return f"pkg:pypi/{quote(package.name.lower().replace('_', '-'), safe='')}@{version}"
    vendor = (release.id if release else "") or {"deb": "debian", "apk": "alpine"}[package.kind]
    distro = f"{release.id}-{release.version}" if release and release.id and release.version else ""
    qualifiers = [
        f"{key}={quote(value, safe=':')}" for key, value in (("arch", package.arch), ("distro", distro)) if value
    ]
    query = f"?{'&'.join(qualifiers)}" if qualifiers else ""
    return f"pkg:{package.kind}/{quote(vendor, safe='')}/{quote(package.name.lower(), safe='')}@{version}{query}"


def from_tool(archive: Path, manifest: Manifest, image: BundledImage) -> dict[str, Any] | None:
    """What `syft` says of an archive, where it is on PATH; its time, random number and path are replaced."""
    if not shutil.which(_TOOL):
        return None
    command = [_TOOL, "scan", f"oci-archive:{archive}", "--quiet", "--output", "cyclonedx-json@1.5"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL)
        document: dict[str, Any] = json.loads(done.stdout)
        own = sbom(manifest, image, ImagePackages(found={}, release=None))
        document["serialNumber"] = own["serialNumber"]
        document["metadata"]["timestamp"] = manifest.created
        known = document["metadata"].get("component", {})
        kept = {key: known[key] for key in ("bom-ref",) if key in known}
        document["metadata"]["component"] = own["metadata"]["component"] | kept
    except (subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        said = getattr(error, "stderr", None) or b""
        raise PreconditionError(
            f"{_TOOL} could not list what is in {image.name}",
            hint="mend it, or take it off PATH: then Lyra lists the packages itself",
            details=tuple(said.decode(errors="replace").splitlines()[-5:]),
        ) from error
    return document


def _layer_packages(layer: Layer, image: PackedImage, cache: Path) -> LayerPackages:
    found = known_packages(cache, layer.diff_id)
    if found is None:
        found = image.packages.get(layer.diff_id) or _read(blob_path(image.spool, layer.digest), layer)
        keep_packages(cache, layer.diff_id, found)
    return found


def _read(blob: Path, layer: Layer) -> LayerPackages:
    with blob.open("rb") as file:
        codec = codec_of(file.read(4))
        file.seek(0)
        blocks = iter(lambda: file.read(BLOCK), b"")
        return read_layer(unpack(blocks, codec, layer.digest, layer.unpacked_size), layer.digest)


def _system(release: Release) -> dict[str, Any]:
    version = {"version": release.version} if release.version else {}
    return {"type": "operating-system", "bom-ref": f"os:{release.id}", "name": release.name, **version}


def _components(listed: Mapping[Package, Sequence[str]], release: Release | None) -> Iterator[dict[str, Any]]:
    """A component for each package URL: records may write one name in several ways, or not all state the licence."""
    together: dict[str, list[Package]] = {}
    for each in listed:
        together.setdefault(purl(each, release), []).append(each)
    for url, packages in together.items():
        places = sorted({place for each in packages for place in listed[each]})
        yield _component(url, max(packages, key=lambda each: bool(each.license)), places)


def _component(url: str, package: Package, places: Sequence[str]) -> dict[str, Any]:
    stated = {"licenses": [{"license": {"name": package.license}}]} if package.license else {}
    return {
        "type": "library",
        "bom-ref": url,
        "name": package.name,
        "version": package.version,
        "purl": url,
        **stated,
        "evidence": {"occurrences": [{"location": f"/{place}"} for place in places]},
    }
