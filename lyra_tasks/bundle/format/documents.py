"""The JSON documents of a bundle, read to compare two versions and to render the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.index import BundleStore
from lyra_tasks.bundle.format.manifest import Bundle, Manifest, open_bundle, read_small_file
from lyra_tasks.digests import file_sha256
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
    """The documents of one version: package versions by build and package, config digests by path."""

    manifest: Manifest
    services: Mapping[str, Mapping[str, Any]]
    packages: Mapping[str, Mapping[str, tuple[str, ...]]]
    tests: Mapping[str, str]
    deviations: Mapping[str, str]
    config_digests: Mapping[str, str]


def read_bundle_documents(bundle: Bundle) -> BundleDocuments:
    """Read the documents of a bundle; raise BundleError naming the one that is damaged or missing."""
    directory, manifest = bundle.directory, bundle.manifest
    try:
        services = _read_document(directory, layout.ENVIRONMENT_FILE)["services"]
        checks = _read_document(directory, layout.TESTS_JSON_FILE)["checks"]
        deviations = _read_document(directory, layout.DEVIATIONS_FILE)["deviations"]
        config_files = [config["file"] for service in services.values() for config in service["configs"]]
        return BundleDocuments(
            manifest=manifest,
            services=services,
            packages={build_name: _read_packages(directory, build_name) for build_name in manifest.images_by_build},
            tests={check_title(check["name"], check.get("group", "")): check["outcome"] for check in checks},
            deviations={
                f"{rule['rule']} on {rule['scope']}": f"{rule['reason']} ({rule['owner']}, until {rule['expires']})"
                for rule in deviations
            },
            config_digests={name: f"sha256:{file_sha256(directory / 'deploy' / name)}" for name in config_files},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{directory}: invalid document ({error})") from error
    except OSError as error:
        if is_disk_full(error):
            raise
        raise BundleError(f"{error.filename}: {error.strerror}", hint="Run `verify` to see what is missing") from error


def read_previous_bundle(store: BundleStore, version: str) -> BundleDocuments | None:
    """Read the highest readable version below `version`, or return None."""
    from semver import Version

    current = Version.parse(version)
    for entry in store.index.versions:
        if Version.parse(entry.version) < current and entry.version != version:
            try:
                return read_bundle_documents(open_bundle(store.directory / entry.version))
            except BundleError:
                continue
    return None


def previous_document(previous: BundleDocuments | None) -> dict[str, Any]:
    """Return the content of `previous.json`: the layers of the previous version, which the report compares with."""
    return {
        "schema": "lyra.previous/1",
        "version": previous.manifest.version if previous else "",
        "images": [
            {"name": build_name, "layers": [{"digest": layer.digest, "size": layer.size} for layer in image.layers]}
            for build_name, image in (previous.manifest.images_by_build.items() if previous else ())
        ],
    }


def read_report_documents(bundle: Bundle) -> ReportDocuments:
    """Read what the report of a bundle is rendered from."""
    directory = bundle.directory
    return ReportDocuments(
        tests=read_test_results(directory / layout.TESTS_JSON_FILE),
        metrics=read_metrics(directory / layout.METRICS_FILE),
        logs=read_service_logs(directory / layout.LOGS_DIRECTORY),
        manifest=bundle.manifest.model_dump(mode="json", by_alias=True),
        previous=read_json_object(directory / layout.PREVIOUS_FILE),
        environment=read_json_object(directory / layout.ENVIRONMENT_FILE),
        deviations=read_json_object(directory / layout.DEVIATIONS_FILE),
        provenance=read_json_object(directory / layout.PROVENANCE_FILE),
        sboms={
            build_name: read_json_object(directory / layout.sbom_file(build_name))
            for build_name in bundle.manifest.images_by_build
        },
    )


def _read_packages(directory: Path, build_name: str) -> dict[str, tuple[str, ...]]:
    """Read package versions from an SBOM; a package's name includes its kind: `deb openssl`."""
    versions_by_package: dict[str, set[str]] = {}
    for component in _read_document(directory, layout.sbom_file(build_name)).get("components", []):
        kind = str(component.get("purl", "")).removeprefix("pkg:").partition("/")[0]
        if component.get("type") == "library" and kind:
            versions_by_package.setdefault(f"{kind} {component['name']}", set()).add(str(component.get("version", "")))
    return {name: tuple(sorted(versions)) for name, versions in versions_by_package.items()}


def _read_document(directory: Path, name: str) -> dict[str, Any]:
    return parse_document(read_small_file(directory / name), dict[str, Any], str(directory / name))
