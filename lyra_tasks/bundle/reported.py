"""What the report of a bundle is made of: the bundle's own documents, and which version it is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.manifest import BundleEntry, BundleIndex, Manifest
from lyra_tasks.bundle.read import read_index, read_manifest
from lyra_tasks.errors import BundleError
from lyra_tasks.records.documents import Documents, read_json, read_logs, read_metrics, read_tests

SCHEMA = "lyra.previous/1"


def documents_of_bundle(bundle: Path) -> Documents:
    """The documents in the folder of a bundle; the same for everyone who has it."""
    manifest = read_json(bundle / layout.MANIFEST)
    return Documents(
        tests=read_tests(bundle / layout.TESTS_JSON),
        metrics=read_metrics(bundle / layout.METRICS),
        logs=read_logs(bundle / layout.LOGS),
        manifest=manifest,
        previous=read_json(bundle / layout.PREVIOUS),
        environment=read_json(bundle / layout.ENVIRONMENT),
        deviations=read_json(bundle / layout.DEVIATIONS),
        provenance=read_json(bundle / layout.PROVENANCE),
        sboms={each["name"]: read_json(bundle / layout.sbom_file(each["name"])) for each in manifest["images"]},
    )


def previous_document(bundles: Path, manifest: Manifest) -> dict[str, Any]:
    """The layers of the version before, out of its own description; no images where there is none, or it is damaged."""
    version = _before(read_index(bundles, manifest.project), entry_of(manifest))
    try:
        images = read_manifest(bundles / version).images if version else []
    except BundleError:
        images = []
    return {
        "schema": SCHEMA,
        "version": version if images else "",
        "images": [
            {"name": each.name, "layers": [{"digest": layer.digest, "size": layer.size} for layer in each.layers]}
            for each in images
        ],
    }


def entry_of(manifest: Manifest) -> BundleEntry:
    """A version as it stands in the list of its project."""
    return BundleEntry(
        version=manifest.version,
        created=manifest.created,
        commit=manifest.source.commit,
        set_digest=manifest.set_digest,
        is_snapshot=manifest.is_snapshot,
    )


def _before(index: BundleIndex, entry: BundleEntry) -> str:
    versions = [each.version for each in index.with_entry(entry).versions]
    return next(iter(versions[versions.index(entry.version) + 1 :]), "")
