"""A bundle as its own documents describe it, without its archives: what two versions are compared by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.manifest import BundledImage, Manifest
from lyra_tasks.bundle.read import bundle_of, read_index, read_manifest, small_file
from lyra_tasks.config.platforms import keyed
from lyra_tasks.errors import BundleError, is_full
from lyra_tasks.images.documents import parse
from lyra_tasks.records.evidence import check_title


@dataclass(frozen=True)
class Described:
    """The documents of one version; `packages` are versions by build and package, `configs` digests by path.

    `qualified` are images that are named with their platform although it is their only one, as another version has
    them for several.
    """

    manifest: Manifest
    services: Mapping[str, Mapping[str, Any]]
    packages: Mapping[str, Mapping[str, tuple[str, ...]]]
    tests: Mapping[str, str]
    deviations: Mapping[str, str]
    configs: Mapping[str, str]
    qualified: frozenset[str] = frozenset()

    @property
    def builds(self) -> dict[str, BundledImage]:
        """The images by what their builds are called beside those of the other version."""
        return {
            keyed(image.name, image.platform) if image.name in self.qualified else build: image
            for build, image in self.manifest.keyed.items()
        }

    def packages_by_build(self) -> dict[str, Mapping[str, tuple[str, ...]]]:
        """The packages by the same names."""
        names = dict(zip(self.manifest.keyed, self.builds, strict=True))
        return {names.get(build, build): packages for build, packages in self.packages.items()}


def described(bundle: Path) -> Described:
    """Read the documents in a bundle's folder; BundleError naming the one that is damaged or missing."""
    manifest = read_manifest(bundle)
    try:
        services = _document(bundle, layout.ENVIRONMENT)["services"]
        return Described(
            manifest=manifest,
            services=services,
            packages={build: _packages(bundle, build) for build in manifest.keyed},
            tests={
                check_title(check["name"], check.get("group", "")): check["outcome"]
                for check in _document(bundle, layout.TESTS_JSON)["checks"]
            },
            deviations={
                f"{each['rule']} on {each['scope']}": f"{each['reason']} ({each['owner']}, until {each['expires']})"
                for each in _document(bundle, layout.DEVIATIONS)["deviations"]
            },
            configs={
                file["file"]: _digest(bundle / "deploy" / file["file"])
                for service in services.values()
                for file in service["configs"]
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{bundle}: a document is not what this program writes ({error})") from error
    except OSError as error:
        if is_full(error):
            raise  # it is no fault of the bundle
        raise BundleError(f"{error.filename}: {error.strerror}", hint="`verify` says what is missing") from error


def bundle_at(bundles: Path, name: str) -> Path:
    """The folder that `name` means: a version of the project, or the path of a bundle that lies elsewhere."""
    path = Path(name)
    return path if "/" in name or path.is_dir() else bundle_of(bundles, name)


def version_before(bundles: Path, project: str, version: str) -> Described | None:
    """The highest version below `version` that is still there and can be read, or None."""
    from semver import Version

    own = Version.parse(version)
    for entry in read_index(bundles, project).versions:
        if Version.parse(entry.version) < own and entry.version != version:
            try:
                return described(bundles / entry.version)
            except BundleError:
                continue
    return None


def _packages(bundle: Path, build: str) -> dict[str, tuple[str, ...]]:
    """Versions by package; the kind of a package is part of its name: `deb openssl`."""
    found: dict[str, set[str]] = {}
    for each in _document(bundle, layout.sbom_file(build)).get("components", []):
        kind = str(each.get("purl", "")).removeprefix("pkg:").partition("/")[0]
        if each.get("type") == "library" and kind:
            found.setdefault(f"{kind} {each['name']}", set()).add(str(each.get("version", "")))
    return {name: tuple(sorted(versions)) for name, versions in found.items()}


def _document(bundle: Path, name: str) -> dict[str, Any]:
    return parse(small_file(bundle / name), dict[str, Any], str(bundle / name))


def _digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
