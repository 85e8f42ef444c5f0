"""Everything that the rules look at before a set is tested: configuration, Dockerfiles, records, bytes of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lyra_tasks.config.inputs import dockerfile_path
from lyra_tasks.engine.inputs import base_uses, locked_digests
from lyra_tasks.engine.objects import inspect_image
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.records.scans import ImageScan
from lyra_tasks.rules import catalogue
from lyra_tasks.rules.breach import Look
from lyra_tasks.rules.containers import service_looks
from lyra_tasks.rules.images import (
    base_look,
    health_look,
    labels_look,
    platform_look,
    scan_looks,
    size_look,
    volume_look,
)
from lyra_tasks.rules.lint import lint_look
from lyra_tasks.rules.project import capacity_look, description_look, docs_look
from lyra_tasks.rules.scanning import project_stages, scans_of


def looks_of(
    work: Workspace, records: Mapping[str, ImageRecord], image_configs: Mapping[str, Mapping[str, Any]]
) -> list[Look]:
    """What is seen of a set that was built; `image_configs` are the images' configurations by service name."""
    scans = scans_of(work, records)
    found = [capacity_look(work.config)]
    for name, record in records.items():
        found += _image(work, name, record, scans[name])
    for name, service in work.config.services.items():
        found += service_looks(name, service, image_configs[name])
        if service.promoted:
            found += _promoted(work, name, scans[str(service.image)], image_configs[name])
    return found


def _image(work: Workspace, name: str, record: ImageRecord, scan: ImageScan) -> Iterator[Look]:
    # a configuration whose contexts take in what Lyra writes is refused before anything is read
    yield Look(catalogue.CONTEXT, f"images.{name}")
    yield lint_look(name, dockerfile_path(work.root, work.config.images[name]), work.root)
    froms = [each.reference for each in base_uses(work, (name,))[name]]
    yield base_look(name, record, froms, locked_digests(work, (name,))[name])
    yield size_look(name, record, work.config.proxima)
    yield platform_look(name, record, work.config.proxima, scan)
    seen = inspect_image(work.engine, record.engine_id) or {}
    yield labels_look(name, seen.get("Config") or {})
    yield from scan_looks(name, scan)


def _promoted(work: Workspace, name: str, scan: ImageScan, image_config: Mapping[str, Any]) -> Iterator[Look]:
    service = work.config.services[name]
    yield health_look(name, service, image_config)
    yield volume_look(name, service, scan)
    added = {variable for stage in project_stages(work, str(service.image)) for variable in stage.environment}
    neighbours = any(name in other.depends_on for other in work.config.services.values())
    yield docs_look(name, service, image_config, added, reached_by_neighbours=neighbours)
    yield description_look(name, service)
