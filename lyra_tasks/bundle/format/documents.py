"""The JSON documents of a bundle, read to compare two versions and to render the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from lyra_tasks import console
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import require_valid_name
from lyra_tasks.bundle.format.index import BundleStore
from lyra_tasks.bundle.format.manifest import Bundle, Count, Manifest, OtherFormatError, open_bundle, read_small_file
from lyra_tasks.digests import canonical_json, file_sha256
from lyra_tasks.documents import parse_yaml, translate_failures
from lyra_tasks.errors import BundleError
from lyra_tasks.images.oci import parse_document
from lyra_tasks.records.documents import (
    ReportDocuments,
    read_json_object,
    read_metrics,
    read_service_logs,
    read_test_results,
)
from lyra_tasks.records.evidence import check_title
from lyra_tasks.records.record import dump_record, read_record
from lyra_tasks.vulnerabilities.document import VulnerabilityScan

PartT = TypeVar("PartT", bound="_Part")
# what the other documents say of a service, too
_DESCRIBED_KEYS = frozenset(
    {
        "image", "platform", "user", "environment", "ports", "depends_on", "volumes", "configs", "secrets", "tmpfs",
        "cpus", "mem_limit", "memswap_limit", "pids_limit",
    }
)  # fmt: skip


class _Part(BaseModel):
    """A part of a document: what is read of it, validated; newer versions may write more."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, defer_build=True)


class DescribedVariable(_Part):
    """An environment variable of a service."""

    name: str
    required: bool
    secret: bool
    default: str | None
    pattern: str | None
    template: str = ""


class DescribedFile(_Part):
    """A secret of a service."""

    name: str
    path: str


class DescribedConfig(DescribedFile):
    """A config of a service; `file` is its name below `deploy/`."""

    file: str


class DescribedVolume(DescribedFile):
    """A volume of a service; `size` in bytes, `shared` is the name that several services have it by."""

    size: Count
    owner: str
    shared: str = ""
    read_only: bool = False


class DescribedPort(_Part):
    """A port of a service; `address` is where it is published by default, if that is not 127.0.0.1 and its number."""

    name: str
    port: int
    protocol: str = "tcp"
    address: str = ""


class DescribedLimits(_Part):
    """The limits of a service; sizes in bytes, those of tmpfs by path."""

    cpus: float
    memory: Count
    pids: Count
    tmpfs: dict[str, Count]


class DescribedService(_Part):
    """A service of `environment.json`."""

    image: str
    user: str
    environment: list[DescribedVariable]
    secrets: list[DescribedFile]
    volumes: list[DescribedVolume]
    ports: list[DescribedPort]
    configs: list[DescribedConfig]
    limits: DescribedLimits
    depends_on: list[str]
    egress: bool
    healthcheck: bool


class _Environment(_Part):
    services: dict[str, DescribedService]


class _Check(_Part):
    name: str
    outcome: str
    group: str = ""


class _Tests(_Part):
    checks: list[_Check]


class _Deviation(_Part):
    rule: str
    scope: str
    reason: str
    owner: str
    expires: str


class _Deviations(_Part):
    deviations: list[_Deviation]


class _Component(_Part):
    type: str = ""
    name: str = ""
    version: str = ""
    purl: str = ""


class _Sbom(_Part):
    components: list[_Component] = []


@dataclass(frozen=True)
class BundleDocuments:
    """The documents of one version: package versions by build and package, config digests by path.

    `settings` are those of a service that only the Compose file has, by service and key.
    """

    manifest: Manifest
    services: Mapping[str, DescribedService]
    settings: Mapping[str, Mapping[str, str]]
    packages: Mapping[str, Mapping[str, tuple[str, ...]]]
    tests: Mapping[str, str]
    deviations: Mapping[str, str]
    config_digests: Mapping[str, str]


def read_bundle_documents(bundle: Bundle) -> BundleDocuments:
    """Read the documents of a bundle; raise BundleError naming the one that is damaged or missing."""
    directory, manifest = bundle.directory, bundle.manifest
    services = _read_part(directory, layout.ENVIRONMENT_FILE, _Environment).services
    checks = _read_part(directory, layout.TESTS_JSON_FILE, _Tests).checks
    deviations = _read_part(directory, layout.DEVIATIONS_FILE, _Deviations).deviations
    config_files = [config.file for service in services.values() for config in service.configs]
    return BundleDocuments(
        manifest=manifest,
        services=services,
        settings=_read_settings(directory / layout.COMPOSE_FILE),
        packages={build_name: _read_packages(directory, build_name) for build_name in manifest.images_by_build},
        tests={check_title(check.name, check.group): check.outcome for check in checks},
        deviations={
            f"{rule.rule} on {rule.scope}": f"{rule.reason} ({rule.owner}, until {rule.expires})" for rule in deviations
        },
        config_digests={name: f"sha256:{_hash_config(directory, name)}" for name in config_files},
    )


def read_previous_bundle(store: BundleStore, version: str) -> BundleDocuments | None:
    """Read the highest readable version below `version`, or return None; warn about each damaged one above it.

    Of those in another format, the highest one is named.
    """
    from semver import Version

    current, has_other_format = Version.parse(version), False
    for entry in store.index.versions:
        if Version.parse(entry.version) < current and entry.version != version:
            directory = store.directory / entry.version
            try:
                return read_bundle_documents(open_bundle(directory))
            except OtherFormatError as error:
                if not has_other_format:
                    console.info(f"Not compared with {entry.version}: {error.message}")
                has_other_format = True
            except BundleError as error:
                console.warn(f"Not compared with {entry.version}, which is damaged: {error.message}")
    return None


def previous_document(previous: BundleDocuments | None, changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of `previous.json`: layers of the previous version, and what has changed since."""
    return {
        "schema": "lyra.previous/2",
        "version": previous.manifest.version if previous else "",
        "changes": list(changes),
        "images": [
            {"name": build_name, "layers": [{"digest": layer.digest, "size": layer.size} for layer in image.layers]}
            for build_name, image in (previous.manifest.images_by_build.items() if previous else ())
        ],
    }


def read_vulnerabilities(path: Path) -> dict[str, Any]:
    """Return the result of the scan for vulnerabilities, validated; empty for a bundle that was made without."""
    scan = read_record(path, VulnerabilityScan)
    return dump_record(scan) if scan else {}


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
        rules=read_json_object(directory / layout.RULES_FILE),
        vulnerabilities=read_vulnerabilities(directory / layout.VULNERABILITIES_FILE),
        sboms={
            build_name: read_json_object(directory / layout.sbom_file(build_name))
            for build_name in bundle.manifest.images_by_build
        },
    )


def _read_packages(directory: Path, build_name: str) -> dict[str, tuple[str, ...]]:
    """Read package versions from an SBOM; a package's name includes its kind: `deb openssl`."""
    versions_by_package: dict[str, set[str]] = {}
    for component in _read_part(directory, layout.sbom_file(build_name), _Sbom).components:
        kind = component.purl.removeprefix("pkg:").partition("/")[0]
        if component.type == "library" and kind:
            versions_by_package.setdefault(f"{kind} {component.name}", set()).add(component.version)
    return {name: tuple(sorted(versions)) for name, versions in versions_by_package.items()}


def _read_settings(path: Path) -> dict[str, dict[str, str]]:
    text = read_small_file(path)
    with translate_failures(lambda problem: BundleError(f"{path}: {problem}")):
        services = parse_yaml(text.decode())[0]["services"]
        return {
            service: {
                key: value if isinstance(value, str) else canonical_json(value)
                for key, value in definition.items()
                if key not in _DESCRIBED_KEYS
            }
            for service, definition in services.items()
        }


def _hash_config(directory: Path, name: str) -> str:
    """Return the SHA-256 of a config, which must be a file below `deploy/`."""
    try:
        require_valid_name(name)
    except BundleError as error:
        raise BundleError(f"{directory / layout.ENVIRONMENT_FILE}: {error.message}", hint=error.hint) from error
    path = directory / "deploy" / name
    with translate_failures(
        lambda problem: BundleError(f"{path}: {problem}", hint="Run `verify` to see what is missing")
    ):
        return file_sha256(path)


def _read_part(directory: Path, name: str, model: type[PartT]) -> PartT:
    return parse_document(read_small_file(directory / name), model, str(directory / name))
