"""What the report of a bundle is made of: the bundle's own documents, and which version it is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.described import Described
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


def previous_document(before: Described | None) -> dict[str, Any]:
    """The layers of the version before; no images where there is none."""
    return {
        "schema": SCHEMA,
        "version": before.manifest.version if before else "",
        "images": [
            {"name": each.name, "layers": [{"digest": layer.digest, "size": layer.size} for layer in each.layers]}
            for each in (before.manifest.images if before else [])
        ],
    }
