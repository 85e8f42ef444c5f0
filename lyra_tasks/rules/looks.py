"""Everything that the rules look at before a set is tested: configuration, Dockerfiles, records, bytes of images."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lyra_tasks.config.base_keys import named
from lyra_tasks.config.inputs import dockerfile_path
from lyra_tasks.config.platforms import Variant, platforms_of, variants
from lyra_tasks.engine.inputs import base_uses, locked_digests
from lyra_tasks.engine.objects import inspect_image
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.records.scans import ImageScan
from lyra_tasks.rules import catalogue
from lyra_tasks.rules.breach import Look, for_all
from lyra_tasks.rules.containers import service_looks
from lyra_tasks.rules.images import (
    base_look,
    health_look,
    labels_look,
    platform_look,
    scan_looks,
    size_look,
    tried_look,
    volume_look,
)
from lyra_tasks.rules.lint import lint_look
from lyra_tasks.rules.project import capacity_look, description_look, docs_look
from lyra_tasks.rules.scanning import project_stages, scans_of


def looks_of(
    work: Workspace,
    records: Mapping[str, ImageRecord],
    image_configs: Mapping[str, Mapping[str, Any]],
    tried: Collection[str],
) -> list[Look]:
    """What is seen of a set that was built, by what its builds are called; `tried` are those that a lab runs.

    `image_configs` are the images' configurations by service name, as the lab of the engine's own platform has them.
    """
    scans = scans_of(work, records)
    found = [capacity_look(work.config)]
    seen = {key: _configuration(work, record) for key, record in records.items()}
    builds = variants(work.config)
    for build in builds:
        found += _image(work, build, records[build.key], seen[build.key], scans[build.key])
    for name, service in work.config.services.items():
        own = [each for each in builds if each.image == service.image]
        configs = {each.key: seen[each.key] if len(own) > 1 else image_configs[name] for each in own}
        by_platform = {each.platform: _service(work, name, each, configs[each.key], scans[each.key]) for each in own}
        found += for_all(by_platform or {"": service_looks(name, service, image_configs[name])})
    promoted = {service.image for service in work.config.services.values() if service.promoted}
    engine = work.engine.facts.platform
    found += [tried_look(each.key, records[each.key], tried, engine) for each in builds if each.image in promoted]
    return found


def _configuration(work: Workspace, record: ImageRecord) -> Mapping[str, Any]:
    seen = inspect_image(work.engine, record.engine_id) or {}
    return seen.get("Config") or {}


def _image(
    work: Workspace, build: Variant, record: ImageRecord, image_config: Mapping[str, Any], scan: ImageScan
) -> Iterator[Look]:
    key = build.key
    if build.platform == platforms_of(work.config, build.image)[0]:
        # a configuration whose contexts take in what Lyra writes is refused before anything is read
        yield Look(catalogue.CONTEXT, f"images.{build.image}")
        yield lint_look(build.image, dockerfile_path(work.root, work.config.images[build.image]), work.root)
    froms = [named(each, build.platform) for each in base_uses(work, (build,))[key]]
    yield base_look(key, record, froms, locked_digests(work, build))
    yield size_look(key, record, work.config.proxima)
    yield platform_look(key, record, work.config.proxima, scan)
    yield labels_look(key, image_config)
    yield from scan_looks(key, scan)


def _service(
    work: Workspace, name: str, build: Variant, image_config: Mapping[str, Any], scan: ImageScan
) -> Iterator[Look]:
    service = work.config.services[name]
    yield from service_looks(name, service, image_config)
    if not service.promoted:
        return
    yield health_look(name, service, image_config)
    yield volume_look(name, service, scan)
    added = {variable for stage in project_stages(work, build) for variable in stage.environment}
    neighbours = any(name in other.depends_on for other in work.config.services.values())
    yield docs_look(name, service, image_config, added, reached_by_neighbours=neighbours)
    yield description_look(name, service)
