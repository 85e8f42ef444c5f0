"""A bundle as its own documents describe it, without its archives: what two versions are compared by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_tasks.bundle.format.index import find_bundle, read_index, read_manifest, read_small_file
from lyra_tasks.bundle.format.layout import (
    DEVIATIONS_FILE,
    ENVIRONMENT_FILE,
    LOGS_DIRECTORY,
    MANIFEST_FILE,
    METRICS_FILE,
    PREVIOUS_FILE,
    PROVENANCE_FILE,
    TESTS_JSON_FILE,
    sbom_file,
)
from lyra_tasks.bundle.format.manifest import BundledImage, Manifest
from lyra_tasks.config.platforms import variant_key, variant_keys
from lyra_tasks.errors import BundleError, is_disk_full
from lyra_tasks.images.oci import parse_document
from lyra_tasks.records.documents import (
    ReportDocuments,
    read_json_object,
    read_metrics,
    read_service_logs,
    read_test_results,
)
from lyra_tasks.records.evidence import check_title


@dataclass(frozen=True)
class BundleDocuments:
    """The documents of one version; `packages` are versions by build and package, `configs` digests by path.

    `qualified` are images that are named with their platform although it is their only one, as another version has
    them for several.
    """

    manifest: Manifest
    services: Mapping[str, Mapping[str, Any]]
    packages: Mapping[str, Mapping[str, tuple[str, ...]]]
    tests: Mapping[str, str]
    deviations: Mapping[str, str]
    config_digests: Mapping[str, str]
    multi_platform_images: frozenset[str] = frozenset()

    @property
    def images_by_build(self) -> dict[str, BundledImage]:
        """The images by what their builds are called beside those of the other version."""
        return {
            variant_key(image.name, image.platform) if image.name in self.multi_platform_images else build: image
            for build, image in self.manifest.images_by_build.items()
        }

    def packages_by_build(self) -> dict[str, Mapping[str, tuple[str, ...]]]:
        """The packages by the same names."""
        names = dict(zip(self.manifest.images_by_build, self.images_by_build, strict=True))
        return {names.get(build, build): packages for build, packages in self.packages.items()}


def read_bundle_documents(bundle: Path) -> BundleDocuments:
    """Read the documents in a bundle's folder; BundleError naming the one that is damaged or missing."""
    manifest = read_manifest(bundle)
    try:
        services = _read_document(bundle, ENVIRONMENT_FILE)["services"]
        return BundleDocuments(
            manifest=manifest,
            services=services,
            packages={build: _read_packages(bundle, build) for build in manifest.images_by_build},
            tests={
                check_title(check["name"], check.get("group", "")): check["outcome"]
                for check in _read_document(bundle, TESTS_JSON_FILE)["checks"]
            },
            deviations={
                f"{deviation['rule']} on {deviation['scope']}": f"{deviation['reason']} ({deviation['owner']}, until {deviation['expires']})"
                for deviation in _read_document(bundle, DEVIATIONS_FILE)["deviations"]
            },
            config_digests={
                file["file"]: _hash_file(bundle / "deploy" / file["file"])
                for service in services.values()
                for file in service["configs"]
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{bundle}: a document is not what this program writes ({error})") from error
    except OSError as error:
        if is_disk_full(error):
            raise  # it is no fault of the bundle
        raise BundleError(f"{error.filename}: {error.strerror}", hint="`verify` says what is missing") from error


def resolve_bundle(bundles: Path, name: str) -> Path:
    """The folder that `name` means: a version of the project, or the path of a bundle that lies elsewhere."""
    path = Path(name)
    return path if "/" in name or path.is_dir() else find_bundle(bundles, name)


def read_previous_bundle(bundles: Path, project: str, version: str) -> BundleDocuments | None:
    """The highest version below `version` that is still there and can be read, or None."""
    from semver import Version

    current = Version.parse(version)
    for entry in read_index(bundles, project).versions:
        if Version.parse(entry.version) < current and entry.version != version:
            try:
                return read_bundle_documents(bundles / entry.version)
            except BundleError:
                continue
    return None


def _read_packages(bundle: Path, build: str) -> dict[str, tuple[str, ...]]:
    """Versions by package; the kind of a package is part of its name: `deb openssl`."""
    versions_by_package: dict[str, set[str]] = {}
    for component in _read_document(bundle, sbom_file(build)).get("components", []):
        kind = str(component.get("purl", "")).removeprefix("pkg:").partition("/")[0]
        if component.get("type") == "library" and kind:
            versions_by_package.setdefault(f"{kind} {component['name']}", set()).add(str(component.get("version", "")))
    return {name: tuple(sorted(versions)) for name, versions in versions_by_package.items()}


def _read_document(bundle: Path, name: str) -> dict[str, Any]:
    return parse_document(read_small_file(bundle / name), dict[str, Any], str(bundle / name))


def _hash_file(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


PREVIOUS_SCHEMA = "lyra.previous/1"


def read_report_documents(bundle: Path) -> ReportDocuments:
    """The documents in the folder of a bundle; the same for everyone who has it."""
    manifest = read_json_object(bundle / MANIFEST_FILE)
    builds = variant_keys([(image["name"], image["platform"]) for image in manifest["images"]])
    return ReportDocuments(
        tests=read_test_results(bundle / TESTS_JSON_FILE),
        metrics=read_metrics(bundle / METRICS_FILE),
        logs=read_service_logs(bundle / LOGS_DIRECTORY),
        manifest=manifest,
        previous=read_json_object(bundle / PREVIOUS_FILE),
        environment=read_json_object(bundle / ENVIRONMENT_FILE),
        deviations=read_json_object(bundle / DEVIATIONS_FILE),
        provenance=read_json_object(bundle / PROVENANCE_FILE),
        sboms={build: read_json_object(bundle / sbom_file(build)) for build in builds},
    )


def previous_document(previous: BundleDocuments | None) -> dict[str, Any]:
    """The layers of the version before; no images where there is none."""
    return {
        "schema": PREVIOUS_SCHEMA,
        "version": previous.manifest.version if previous else "",
        "images": [
            {"name": build, "layers": [{"digest": layer.digest, "size": layer.size} for layer in image.layers]}
            for build, image in (previous.manifest.images_by_build.items() if previous else ())
        ],
    }
