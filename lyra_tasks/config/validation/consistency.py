"""Check that values of the configuration agree: names exist, nothing collides, no dependency cycles."""

from __future__ import annotations

import graphlib
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lyra_tasks.config.deployment import (
    can_be_compose_default,
    compose_object_name,
    config_path,
    env_name,
    is_settable_name,
    publish_variable,
    secret_variable,
    volume_name,
)
from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.platforms import image_platforms, list_variants
from lyra_tasks.config.validation.containers import check_container_options
from lyra_tasks.config.validation.images import check_image
from lyra_tasks.config.validation.paths import check_paths
from lyra_tasks.config.validation.positions import Location
from lyra_tasks.config.validation.problems import Problem, check_name, check_regex, format_location, quote_text
from lyra_tasks.config.validation.tests import check_healthcheck, check_tests
from lyra_tasks.redaction import is_secret_name
from lyra_tasks.suggest import closest_match
from lyra_tasks.units import format_size

MIN_MEMORY_BYTES = 6 * 1024**2
_URL_WITH_CREDENTIALS = re.compile(r"https?://[^/\s]*@|[a-z+]+://[^/\s@]*:[^/\s]*@")
_REPOSITORY_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")


def check_consistency(config: Configuration, document: Mapping[str, Any], root: Path) -> Iterator[Problem]:
    """Yield all inconsistencies. Names also count as defined if their table in `document` is not valid."""
    yield from _check_names(config)
    yield from _check_platforms(config)
    yield from _check_bases(config, document)
    for name, service in config.services.items():
        location: Location = ("services", name)
        yield from check_image(location, service, config.project.name, document)
        yield from _check_dependencies(location, service, document)
        yield from _check_ports(location, service)
        yield from _check_container_paths(location, service)
        yield from _check_environment(location, service)
        yield from check_healthcheck(location, service)
        yield from check_container_options(location, service, config.services.keys() - {name})
        if service.limits.memory < MIN_MEMORY_BYTES:
            message = f'must be at least "{format_size(MIN_MEMORY_BYTES)}", the least Docker can enforce'
            yield Problem((*location, "limits", "memory"), message)
    yield from _check_cycles(config.services)
    promoted_services = {name: service for name, service in config.services.items() if service.is_promoted}
    yield from _check_deployed_names(promoted_services)
    yield from _check_env_file_defaults(promoted_services)
    yield from _check_templates(config.services)
    yield from check_tests(config, document)
    if _URL_WITH_CREDENTIALS.match(config.project.source):
        yield Problem(("project", "source"), "contains credentials; write the URL without them")
    if config.release.tag.count("{version}") != 1 or re.search(r"\s", config.release.tag):
        yield Problem(("release", "tag"), 'must contain {version} once and no spaces, such as "v{version}"')
    yield from _check_caches(config)
    yield from check_paths(config, root)


def check_deviations(config: Configuration, rules: Mapping[str, bool]) -> Iterator[Problem]:
    """Yield the deviations from unknown rules, and from rules that `rules` maps to False: those permit none."""
    for index, deviation in enumerate(config.deviations):
        location: Location = ("deviations", index, "rule")
        rule = quote_text(deviation.rule)
        if deviation.rule not in rules:
            suggestion = closest_match(deviation.rule, rules)
            hint = f"did you mean {quote_text(suggestion)}?" if suggestion else "`rules.list` shows all rules"
            yield Problem(location, f"unknown rule {rule}; {hint}")
        elif not rules[deviation.rule]:
            yield Problem(location, f"{rule} permits no deviation; follow the rule and remove this entry")


def _check_caches(config: Configuration) -> Iterator[Problem]:
    for entry in config.builder.cache_to:
        is_per_image = "type=inline" in entry.split(",") or "{image}" in entry
        if not is_per_image and len(list_variants(config, config.images)) > 1:
            message = f"each image would overwrite the cache of the last one; add {{image}} to {quote_text(entry)}"
            yield Problem(("builder", "cache_to"), message)


def _check_platforms(config: Configuration) -> Iterator[Problem]:
    """Check that Proxima runs all platforms, that none is listed twice, and that promoted images share one."""
    platform_lists: list[tuple[Location, Sequence[str]]] = [(("proxima", "platforms"), config.proxima.platforms)]
    platform_lists += [(("images", name, "platforms"), image.platforms) for name, image in config.images.items()]
    platform_lists += [
        (("services", name, "platform"), [service.platform])
        for name, service in config.services.items()
        if service.platform is not None and service.is_promoted
    ]
    for location, platforms in platform_lists:
        for platform in platforms:
            if platform not in config.proxima.platforms:
                supported = ", ".join(config.proxima.platforms)
                message = f"Proxima does not run {quote_text(platform)}; proxima.platforms has {supported}"
                yield Problem(location, message)
        for platform in sorted({platform for platform in platforms if platforms.count(platform) > 1}):
            yield Problem(location, f"{quote_text(platform)} is listed twice; keep one")
    platform_by_architecture: dict[str, str] = {}
    for platform in config.proxima.platforms:
        other = platform_by_architecture.setdefault("/".join(platform.split("/")[:2]), platform)
        if other != platform:
            message = f"engines do not tell {quote_text(other)} and {quote_text(platform)} apart; keep one"
            yield Problem(("proxima", "platforms"), message)
    common = set(config.proxima.platforms)
    promoted = [name for name, service in config.services.items() if service.is_promoted]
    for name in dict.fromkeys(config.image_name(service) for service in promoted):
        known_platforms = set(image_platforms(config, name)) & set(config.proxima.platforms)
        if known_platforms and not (common := common & known_platforms):
            message = "has no platform in common with the other promoted images, but one node runs all of them"
            own_location, service_location = ("images", name, "platforms"), ("services", name, "platform")
            yield Problem(own_location if name in config.images else service_location, message)
            return


def _check_names(config: Configuration) -> Iterator[Problem]:
    """Check names that become part of an image reference, which has stricter rules."""
    names: list[tuple[Location, str]] = [(("project", "name"), config.project.name)]
    names += [(("images", name), name) for name in config.images]
    names += [(("services", name), name) for name in config.third_party_images]
    for location, name in names:
        if not _REPOSITORY_NAME.fullmatch(name):
            allowed = 'single ".", "_" or "-" between letters and digits'
            yield Problem(location, f"{quote_text(name)} is not valid in an image reference; allowed: {allowed}")


def _check_bases(config: Configuration, document: Mapping[str, Any]) -> Iterator[Problem]:
    for name, base in config.bases.items():
        if not (base.image or base.archive or base.rootfs):
            yield Problem(("bases", name), "has no source; give image, archive or rootfs")
    for name, image in config.images.items():
        for source, base_name in image.bases.items():
            yield from check_name(("images", name, "bases", source), base_name, "bases", document)
        for argument, value in image.args.items():
            if value and is_secret_name(argument):
                message = "looks like a secret, and arguments stay in the image's history; use secrets of the image"
                yield Problem(("images", name, "args", argument), message)


def _check_dependencies(location: Location, service: Service, document: Mapping[str, Any]) -> Iterator[Problem]:
    for name in service.depends_on:
        yield from check_name((*location, "depends_on"), name, "services", document)


def _check_cycles(services: Mapping[str, Service]) -> Iterator[Problem]:
    """Yield each cycle of `depends_on` once, at its first service in the file."""
    order = list(services)
    edges = {name: {other for other in service.depends_on if other in services} for name, service in services.items()}
    while True:
        try:
            graphlib.TopologicalSorter(edges).prepare()
            return
        except graphlib.CycleError as error:
            members = error.args[1][:0:-1]
            first = members.index(min(members, key=order.index))
            members = [*members[first:], *members[:first]]
            cycle = " -> ".join([*members, members[0]])
            message = f"dependency cycle {cycle}; remove one of these dependencies"
            yield Problem(("services", members[0], "depends_on"), message)
            edges[members[0]].discard(members[1 % len(members)])


def _check_ports(location: Location, service: Service) -> Iterator[Problem]:
    name_by_port: dict[int | str, str] = {}
    for name, port in service.ports.items():
        first_name = name_by_port.setdefault(port, name)
        if first_name != name:
            message = f"{port} already has the name {quote_text(first_name)}; give each port one name"
            yield Problem((*location, "ports", name), message)
    for name in service.publish.keys() - service.ports.keys():
        yield Problem((*location, "publish", name), "is not the name of a port in ports; add it there, or remove this")


def _check_container_paths(service_location: Location, service: Service) -> Iterator[Problem]:
    """Check that no two mounts have the same path and that none is below a file; nested volumes are fine."""
    mounts: list[tuple[Location, str, bool]] = [(("tmpfs", path), path, False) for path in service.tmpfs]
    mounts += [(("volumes", name, "path"), volume.path, False) for name, volume in service.volumes.items()]
    mounts += [(("configs", name, "path"), file.path, True) for name, file in service.configs.items()]
    mounts += [(("secrets", name, "path"), secret.path, True) for name, secret in service.secrets.items()]
    if service.dev is not None and service.dev.source is not None:
        mounts.append((("dev", "source"), service.dev.source, False))
    taken_paths: dict[str, tuple[Location, bool]] = {}
    for key, path, is_file in mounts:
        location = (*service_location, *key)
        normalized = "/" + posixpath.normpath(path).lstrip("/")  # normpath keeps two slashes at the beginning
        if normalized != path:
            yield Problem(location, f"must be a normalized path; write {quote_text(normalized)}")
        if normalized in taken_paths:
            owner = format_location(taken_paths[normalized][0])
            yield Problem(location, f"{quote_text(normalized)} is already used by {owner}; choose another path")
        taken_paths.setdefault(normalized, (location, is_file))
    for path, (location, _) in taken_paths.items():
        for parent in map(str, PurePosixPath(path).parents):
            file_location, is_file = taken_paths.get(parent, ((), False))
            if is_file:
                message = f"is below {quote_text(parent)}, which is a file: {format_location(file_location)}"
                yield Problem(location, message)


def _check_environment(service_location: Location, service: Service) -> Iterator[Problem]:
    for name, variable in service.environment.items():
        location = (*service_location, "environment", name)
        yield from check_regex((*location, "pattern"), variable.pattern)
        if not is_settable_name(name) and (variable.required or variable.secret or variable.default is None):
            message = f"Proxima can only set plain names such as {env_name(name)}; give it a default, and no secret"
            yield Problem(location, message)
        if variable.secret and variable.default is not None:
            yield Problem((*location, "default"), "a secret has no default; use test_value for what tests need")
        elif variable.default and is_secret_name(name) and "secret" not in variable.model_fields_set:
            message = "looks like a secret; set secret = true, and test_value for what tests need, or secret = false"
            yield Problem((*location, "default"), message)


def _check_deployed_names(services: Mapping[str, Service]) -> Iterator[Problem]:
    """Yield volumes, files and variables that would have the same name on Proxima."""
    owners: dict[str, tuple[Location, Location]] = {}
    for name, service in services.items():
        for deployed_name, identity, location in _list_deployed_names(name, service):
            first_identity, first_location = owners.setdefault(deployed_name, (identity, location))
            if first_identity != identity:
                owner = format_location(first_location)
                message = f"collides with {owner}: both are {deployed_name} on Proxima; choose another name"
                yield Problem(location, message)


def _check_env_file_defaults(services: Mapping[str, Service]) -> Iterator[Problem]:
    for name, service in services.items():
        for key, variable in service.environment.items():
            if variable.default is None or can_be_compose_default(variable.default):
                continue
            for other, other_service in services.items():
                other_variable = other_service.environment.get(key, variable)
                if other_variable.default != variable.default:
                    message = f"goes into .env for all services because of its braces, but services.{other} has another"
                    yield Problem(("services", name, "environment", key, "default"), f"{message}; give both the same")
                    break


def _check_templates(services: Mapping[str, Service]) -> Iterator[Problem]:
    known = {
        key for service in services.values() for key, variable in service.environment.items() if not variable.template
    }
    for name, service in services.items():
        for key, variable in service.environment.items():
            for used in re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", variable.template):
                if used not in known:
                    message = f"{used} is no variable of a service that has a value itself; name one"
                    yield Problem(("services", name, "environment", key, "template"), message)


def _list_deployed_names(name: str, service: Service) -> Iterator[tuple[str, Location, Location]]:
    """Yield each name on Proxima, the identity of its owner, and the location; variables are shared by all services."""
    names = [("configs", key, f"the config {compose_object_name(name, key)}") for key in service.configs]
    names += [("configs", key, f"the file {config_path(name, key, f)}") for key, f in service.configs.items()]
    names += [("secrets", key, f"the variable {secret_variable(name, key)}") for key in service.secrets]
    names += [("ports", key, f"the variable {publish_variable(name, key)}") for key in service.ports]
    for table, key, deployed_name in names:
        location: Location = ("services", name, table, key)
        yield deployed_name, location, location
    for key, volume in service.volumes.items():
        location = ("services", name, "volumes", key)
        identity: Location = ("volumes", volume.shared) if volume.shared else location
        yield f"the volume {volume_name(name, key, volume)}", identity, location
    for key in service.environment:
        yield f"the variable {key}", (key,), ("services", name, "environment", key)
