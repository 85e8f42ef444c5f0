"""Check all rules of a built set before its test: configuration, Dockerfiles, build records and image content."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lyra_tasks.config.containers import UserIds
from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.platforms import Variant, image_platforms, list_variants
from lyra_tasks.dockerfile.input_hashes import dockerfile_path
from lyra_tasks.dockerfile.lock_file import build_context_name
from lyra_tasks.engine.bases.inputs import find_base_uses, read_locked_digests
from lyra_tasks.engine.objects.containers import inspect_image
from lyra_tasks.engine.objects.users import resolve_image_user
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.images.third_party.prepare import read_locked_origin
from lyra_tasks.records.images import ImageRecord, ImageScan
from lyra_tasks.rules.catalogue import CONTEXT_LEAVES_OUT
from lyra_tasks.rules.engine_support import check_engine_health_check, check_engine_settings
from lyra_tasks.rules.finding import RuleCheck, merge_platforms
from lyra_tasks.rules.images import (
    SharedOwners,
    check_base_locked,
    check_dockerfile,
    check_health_check,
    check_image_record,
    check_labels,
    check_origin_locked,
    check_scan,
    check_tested_platform,
    check_volume_owners,
)
from lyra_tasks.rules.scanning import read_project_stages, scan_project_images
from lyra_tasks.rules.services import check_capacity, check_descriptions, check_documentation, check_service_settings


def check_rules(
    work: Workspace,
    records: Mapping[str, ImageRecord],
    image_configs: Mapping[str, Mapping[str, Any]],
    user_ids: Mapping[str, UserIds | None],
    tested_builds: Collection[str],
) -> list[RuleCheck]:
    """Check all rules of a built set.

    `records` are by build, `image_configs` and `user_ids` by service for the engine's own platform; `tested_builds` are
    those that a lab runs.
    """
    scans = scan_project_images(work, records)
    checks = [check_capacity(work.config), check_engine_settings(work.config)]
    images = {key: inspect_image(work.engine, record.image_id) for key, record in records.items()}
    built_configs = {key: (image or {}).get("Config") or {} for key, image in images.items()}
    builds = list_variants(work.config)
    shared_owners = _collect_shared_owners(work.config, builds, scans)
    for build in builds:
        checks += _check_image(work, build, records[build.key], built_configs[build.key], scans[build.key])
    for name in work.config.services:
        service_builds = [build for build in builds if build.image == work.config.image_name(name)]
        by_platform = {}
        for build in service_builds:
            config = built_configs[build.key] if len(service_builds) > 1 else image_configs[name]
            scan, owners, image_id = scans[build.key], shared_owners[build.platform], records[build.key].image_id
            by_platform[build.platform] = _check_service_build(
                work, name, build, config, scan, owners, user_ids[name], image_id
            )
        checks += merge_platforms(by_platform)
    promoted = {work.config.image_name(name) for name, service in work.config.services.items() if service.is_promoted}
    engine = work.engine.facts.platform
    checks += [
        check_tested_platform(build.key, records[build.key], tested_builds, engine)
        for build in builds
        if build.image in promoted
    ]
    return checks


def _check_image(
    work: Workspace, build: Variant, record: ImageRecord, image_config: Mapping[str, Any], scan: ImageScan
) -> Iterator[RuleCheck]:
    key = build.key
    if record.origin is not None:
        yield check_origin_locked(key, record.origin, read_locked_origin(work, build))
        yield from check_image_record(key, record, work.config.proxima, scan)
        yield from check_scan(key, scan, record.origin)
        return
    if build.platform == image_platforms(work.config, build.image)[0]:
        # The configuration loader has already refused violations of this rule.
        yield RuleCheck(CONTEXT_LEAVES_OUT, f"images.{build.image}")
        yield check_dockerfile(build.image, dockerfile_path(work.root, work.config.images[build.image]), work.root)
    base_references = [
        build_context_name(reference, build.platform) for reference in find_base_uses(work, (build,))[key]
    ]
    yield check_base_locked(key, record, base_references, read_locked_digests(work, build))
    yield from check_image_record(key, record, work.config.proxima, scan)
    yield check_labels(key, image_config)
    yield from check_scan(key, scan)


def _check_service_build(
    work: Workspace,
    name: str,
    build: Variant,
    image_config: Mapping[str, Any],
    scan: ImageScan,
    shared_owners: SharedOwners,
    user_ids: UserIds | None,
    image_id: str,
) -> Iterator[RuleCheck]:
    service = work.config.services[name]
    yield from check_service_settings(name, service, image_config)
    if not service.is_promoted:
        return
    yield check_health_check(name, service, image_config)
    yield check_engine_health_check(name, service, image_config, work.config.proxima)
    groups = _resolve_groups(work, service, image_id)
    yield check_volume_owners(name, service, scan, user_ids, groups, shared_owners)
    is_own = work.config.is_own_image(name)
    stages = read_project_stages(work, build) if is_own else ()
    own_variables = {assignment.name for stage in stages for assignment in stage.assignments}
    others = [other for other in work.config.services.values() if other is not service]
    has_dependents = any(name in other.depends_on or (other.image == service.image and other.ports) for other in others)
    yield check_documentation(name, service, image_config, own_variables, has_dependents=has_dependents, is_own=is_own)
    yield check_descriptions(name, service)


def _collect_shared_owners(
    config: Configuration, builds: Collection[Variant], scans: Mapping[str, ImageScan]
) -> dict[str, SharedOwners]:
    """Return from what shared volumes may be filled on Proxima, by platform."""
    owners: dict[str, dict[str, dict[tuple[str, str], str]]] = {build.platform: {} for build in builds}
    for name, service in config.services.items():
        for build in builds if service.is_promoted else ():
            if build.image != config.image_name(name):
                continue
            for volume in service.volumes.values():
                owner = scans[build.key].volume_owners.get(volume.path.rstrip("/"))
                if volume.shared and "nocopy" not in volume.mount_options and owner:
                    place = volume.path, f"the image {build.image}"
                    owners[build.platform].setdefault(volume.shared, {})[place] = owner
    return {**owners}


def _resolve_groups(work: Workspace, service: Service, image_id: str) -> set[int]:
    """Return the ids of the groups that a service adds to its user, without those that its image does not know."""
    ids = (
        resolve_image_user(work.engine, work.owner, image_id, f"0:{group}", work.paths.cache)
        for group in service.group_add
    )
    return {group_id for _, group_id in filter(None, ids)}
