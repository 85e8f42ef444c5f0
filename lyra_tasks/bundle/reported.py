"""What the report of a bundle is made of: the bundle's own documents, and which version it is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.described import Described
from lyra_tasks.config.platforms import keys_of
from lyra_tasks.records.documents import Documents, read_json, read_logs, read_metrics, read_tests

SCHEMA = "lyra.previous/1"


def documents_of_bundle(bundle: Path) -> Documents:
    """The documents in the folder of a bundle; the same for everyone who has it."""
    manifest = read_json(bundle / layout.MANIFEST)
    builds = keys_of([(each["name"], each["platform"]) for each in manifest["images"]])
    return Documents(
        tests=read_tests(bundle / layout.TESTS_JSON),
        metrics=read_metrics(bundle / layout.METRICS),
        logs=read_logs(bundle / layout.LOGS),
        manifest=manifest,
        previous=read_json(bundle / layout.PREVIOUS),
        environment=read_json(bundle / layout.ENVIRONMENT),
        deviations=read_json(bundle / layout.DEVIATIONS),
        provenance=read_json(bundle / layout.PROVENANCE),
        sboms={each: read_json(bundle / layout.sbom_file(each)) for each in builds},
    )


def previous_document(before: Described | None) -> dict[str, Any]:
    """The layers of the version before; no images where there is none."""
    return {
        "schema": SCHEMA,
        "version": before.manifest.version if before else "",
        "images": [
            {"name": build, "layers": [{"digest": layer.digest, "size": layer.size} for layer in each.layers]}
            for build, each in (before.manifest.keyed.items() if before else ())
        ],
    }
