"""What values must be to each other: every reference exists, nothing collides, nothing leaves the project."""

from __future__ import annotations

import graphlib
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lyra_tasks.config.check_paths import check_paths
from lyra_tasks.config.check_tests import check_healthcheck, check_tests
from lyra_tasks.config.deployment import check_deployment
from lyra_tasks.config.models import Configuration, EnvironmentVariable, Service
from lyra_tasks.config.platforms import platforms_of, variants
from lyra_tasks.config.positions import Location
from lyra_tasks.config.problems import SECRET_NAME, Problem, dotted, is_secret_name, missing_name, not_a_regex, quoted
from lyra_tasks.config.units import format_size

SMALLEST_MEMORY = 6 * 1024**2
_CREDENTIALS = re.compile(r"https?://[^/\s]*@|[a-z+]+://[^/\s@]*:[^/\s]*@")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")


def check(config: Configuration, document: Mapping[str, Any], root: Path) -> Iterator[Problem]:
    """Everything that does not go together. `document` is what was written: names count that are wrong inside."""
    yield from _check_names(config)
    yield from _check_platforms(config)
    yield from _check_bases(config, document)
    for name, service in config.services.items():
        at: Location = ("services", name)
        yield from _check_source(at, service, document)
        yield from _check_depends_on(at, service, document)
        yield from _check_ports(at, service)
        yield from _check_container_paths(at, service)
        yield from _check_environment(at, service)
        yield from check_healthcheck(at, service)
        if service.limits.memory < SMALLEST_MEMORY:
            least = format_size(SMALLEST_MEMORY)
            yield Problem((*at, "limits", "memory"), f'must be at least "{least}", the least Docker can enforce')
    yield from _check_cycles(config.services)
    yield from check_deployment(config.services)
    yield from check_tests(config, document)
    if _CREDENTIALS.match(config.project.source):
        yield Problem(("project", "source"), "holds credentials; write the address without them")
    if config.release.tag.count("{version}") != 1 or re.search(r"\s", config.release.tag):
        yield Problem(("release", "tag"), 'must hold {version} once and no spaces, such as "v{version}"')
    yield from _check_caches(config)
    yield from check_paths(config, root)


def check_deviations(config: Configuration, rules: Mapping[str, bool]) -> Iterator[Problem]:
    """Every deviation from a rule that there is not, or that no reason can replace, as `rules` says of each."""
    for number, each in enumerate(config.deviations):
        at: Location = ("deviations", number, "rule")
        if each.rule not in rules:
            near = get_close_matches(each.rule, rules, 1)
            known = f"did you mean {quoted(near[0])}?" if near else "`rules.list` shows all of them"
            yield Problem(at, f"{quoted(each.rule)} is not a rule; {known}")
        elif not rules[each.rule]:
            yield Problem(at, f"no deviation goes around {quoted(each.rule)}; keep the rule, and remove this entry")


def _check_caches(config: Configuration) -> Iterator[Problem]:
    for entry in config.builder.cache_to:
        shared = "type=inline" in entry.split(",") or "{image}" in entry
        if not shared and len(variants(config)) > 1:
            text = f"each image would overwrite the last one's; write {{image}} into {quoted(entry)}"
            yield Problem(("builder", "cache_to"), text)


def _check_platforms(config: Configuration) -> Iterator[Problem]:
    """An image is for what Proxima runs, and for each platform once."""
    lists: list[tuple[Location, Sequence[str]]] = [(("proxima", "platforms"), config.proxima.platforms)]
    lists += [(("images", name, "platforms"), image.platforms) for name, image in config.images.items()]
    for location, found in lists:
        for each in found:
            if each not in config.proxima.platforms:
                runs = ", ".join(config.proxima.platforms)
                yield Problem(location, f"Proxima does not run {quoted(each)}; proxima.platforms has {runs}")
        for each in sorted({each for each in found if found.count(each) > 1}):
            yield Problem(location, f"{quoted(each)} is there twice; keep one")
    kinds: dict[str, str] = {}
    for each in config.proxima.platforms:
        other = kinds.setdefault("/".join(each.split("/")[:2]), each)
        if other != each:
            text = f"an engine does not say which of {quoted(other)} and {quoted(each)} it runs; keep one"
            yield Problem(("proxima", "platforms"), text)
    common = set(config.proxima.platforms)
    for name in dict.fromkeys(str(each.image) for each in config.services.values() if each.promoted):
        if name in config.images and not (common := common & set(platforms_of(config, name))):
            text = "has none that the other promoted images have, too; a node runs all of them, or none"
            yield Problem(("images", name, "platforms"), text)
            return


def _check_names(config: Configuration) -> Iterator[Problem]:
    """Names that become part of an image reference are held to its narrower rules."""
    names: list[tuple[Location, str]] = [(("project", "name"), config.project.name)]
    names += [(("images", name), name) for name in config.images]
    for location, name in names:
        if not _REPOSITORY.fullmatch(name):
            allowed = 'single ".", "_" or "-" between letters and digits'
            yield Problem(location, f"{quoted(name)} does not fit into an image reference; allowed: {allowed}")


def _check_bases(config: Configuration, document: Mapping[str, Any]) -> Iterator[Problem]:
    for name, base in config.bases.items():
        if not (base.image or base.archive or base.rootfs):
            yield Problem(("bases", name), "has no source; give image, archive or rootfs")
    for name, image in config.images.items():
        for source, base_name in image.bases.items():
            if wrong := missing_name(document, "bases", base_name):
                yield Problem(("images", name, "bases", source), wrong)
        for argument, value in image.args.items():
            if value and SECRET_NAME.search(argument):
                yield Problem(
                    ("images", name, "args", argument),
                    "looks like a secret, and arguments stay in the image's history; use secrets of the image",
                )


def _check_source(at: Location, service: Service, document: Mapping[str, Any]) -> Iterator[Problem]:
    if (service.image is None) == (service.external is None):
        found = "neither" if service.image is None else "both"
        yield Problem(at, f"must have exactly one of image and external, found {found}")
    if service.image is not None and (wrong := missing_name(document, "images", service.image)):
        yield Problem((*at, "image"), wrong)
    if service.external is not None and not re.fullmatch(r"[^\s-]\S*", service.external):
        yield Problem((*at, "external"), 'must be an image reference, such as "redis:7"')
    if service.external is not None and service.dev is not None and service.dev.source is not None:
        yield Problem((*at, "dev", "source"), "an external image has no source here; remove it")


def _check_depends_on(at: Location, service: Service, document: Mapping[str, Any]) -> Iterator[Problem]:
    for name in service.depends_on:
        if wrong := missing_name(document, "services", name):
            yield Problem((*at, "depends_on"), wrong)


def _check_cycles(services: Mapping[str, Service]) -> Iterator[Problem]:
    """Each cycle of `depends_on`, told once, at the first of its services in the file."""
    order = list(services)
    edges = {name: {other for other in service.depends_on if other in services} for name, service in services.items()}
    while True:
        try:
            graphlib.TopologicalSorter(edges).prepare()
            return
        except graphlib.CycleError as error:
            ring = error.args[1][:0:-1]
            first = ring.index(min(ring, key=order.index))
            ring = [*ring[first:], *ring[:first]]
            cycle = " -> ".join([*ring, ring[0]])
            yield Problem(("services", ring[0], "depends_on"), f"a cycle: {cycle}; remove one of these dependencies")
            edges[ring[0]].discard(ring[1 % len(ring)])


def _check_ports(at: Location, service: Service) -> Iterator[Problem]:
    owners: dict[int | str, str] = {}
    for name, port in service.ports.items():
        first = owners.setdefault(port, name)
        if first != name:
            yield Problem((*at, "ports", name), f"{port} is the port {quoted(first)} already; give each port one name")


def _check_container_paths(at: Location, service: Service) -> Iterator[Problem]:
    """No two things at one path, and nothing below a file; a volume inside a volume is fine."""
    places: list[tuple[Location, str, bool]] = [((*at, "tmpfs", path), path, False) for path in service.tmpfs]
    places += [((*at, "volumes", name, "path"), volume.path, False) for name, volume in service.volumes.items()]
    places += [((*at, "configs", name, "path"), file.path, True) for name, file in service.configs.items()]
    places += [((*at, "secrets", name, "path"), secret.path, True) for name, secret in service.secrets.items()]
    if service.dev is not None and service.dev.source is not None:
        places.append(((*at, "dev", "source"), service.dev.source, False))
    seen: dict[str, tuple[Location, bool]] = {}
    for location, path, is_file in places:
        plain = posixpath.normpath(path)
        if plain != path:
            yield Problem(location, f"must be a plain path; write {quoted(plain)}")
        if plain in seen:
            yield Problem(location, f"{quoted(plain)} is taken by {dotted(seen[plain][0])}; choose another path")
        seen.setdefault(plain, (location, is_file))
    yield from _below_files(seen)


def _below_files(seen: Mapping[str, tuple[Location, bool]]) -> Iterator[Problem]:
    for path, (location, _) in seen.items():
        for parent in _parents(path):
            if parent in seen and seen[parent][1]:
                yield Problem(location, f"lies below {quoted(parent)}, which is a file: {dotted(seen[parent][0])}")


def _parents(path: str) -> Iterable[str]:
    while (path := posixpath.dirname(path)) != "/":
        yield path


def _check_environment(at: Location, service: Service) -> Iterator[Problem]:
    for name, variable in service.environment.items():
        here = (*at, "environment", name)
        yield from _check_variable(here, name, variable)
        if variable.pattern and (wrong := not_a_regex(variable.pattern)):
            yield Problem((*here, "pattern"), wrong)


def _check_variable(at: Location, name: str, variable: EnvironmentVariable) -> Iterator[Problem]:
    if variable.secret and variable.default is not None:
        yield Problem((*at, "default"), "a secret has no default; use test_value for what tests need")
    elif variable.default and is_secret_name(name):
        yield Problem((*at, "default"), "looks like a secret; set secret = true, and test_value for what tests need")
