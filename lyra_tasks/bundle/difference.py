"""What is different between two versions, section by section: one comparison for `diff` and for `PROMOTION.md`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lyra_tasks import console
from lyra_tasks.bundle.described import Described
from lyra_tasks.config.units import format_size
from lyra_tasks.errors import UsageError

_LONG = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")


@dataclass(frozen=True)
class Change:
    """One thing that differs: None before where it is new, None after where it is gone."""

    section: str
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Difference:
    """All changes from one version to another, in the order of the sections."""

    before: str
    after: str
    changes: tuple[Change, ...]


def short(text: str | None) -> str:
    """A value for people: digests as far as they are told apart by, a dash for what is not there."""
    return _LONG.sub(r"\1", text) if text is not None else "-"


def difference(before: Described, after: Described) -> Difference:
    """Compare two versions of one project; UsageError for two projects."""
    one, other = before.manifest, after.manifest
    if one.project != other.project:
        raise UsageError(f"{one.project} and {other.project} are two projects", hint="compare two versions of the same")
    several = _several(before) | _several(after)
    before, after = (replace(each, qualified=several) for each in (before, after))
    found = [
        change
        for section, facts in _SECTIONS.items()
        for change in _changes(section, dict(facts(before)), dict(facts(after)))
    ]
    return Difference(one.version, other.version, tuple(_same_for_several_images(found)))


def _changes(section: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Change(section, name, before.get(name), after.get(name))


def _several(each: Described) -> frozenset[str]:
    """The images that are there for several platforms."""
    return frozenset(image.name for build, image in each.manifest.keyed.items() if build != image.name)


def _images(each: Described) -> Iterator[tuple[str, str]]:
    for build, image in each.builds.items():
        yield build, image.config_digest
        yield f"{build}: platform", image.platform
        yield from ((f"{build}: base {name}", digest) for name, digest in image.bases.items())


def _layers(each: Described) -> Iterator[tuple[str, str]]:
    for build, image in each.builds.items():
        for layer in image.identity.layers:
            yield f"{build}: {layer.diff_id}", console.size(layer.size)


def _packages(each: Described) -> Iterator[tuple[str, str]]:
    for image, packages in each.packages_by_build().items():
        yield from ((f"{image}: {name}", ", ".join(versions)) for name, versions in packages.items())


def _environment(each: Described) -> Iterator[tuple[str, str]]:
    for service, facts in each.services.items():
        for variable in facts["environment"]:
            words = [word for word in ("required", "secret") if variable[word]]
            words += [f"default {variable['default']!r}"] if variable["default"] is not None else []
            words += [f"pattern {variable['pattern']!r}"] if variable["pattern"] else []
            yield f"{service}: {variable['name']}", ", ".join(words) or "optional"


def _listed(key: str, describe: Callable[[dict[str, Any]], str]) -> Callable[[Described], Iterator[tuple[str, str]]]:
    def facts(each: Described) -> Iterator[tuple[str, str]]:
        for service, known in each.services.items():
            yield from ((f"{service}: {one['name']}", describe(one)) for one in known[key])

    return facts


def _configs(each: Described) -> Iterator[tuple[str, str]]:
    for service, facts in each.services.items():
        for one in facts["configs"]:
            yield f"{service}: {one['name']}", f"{one['path']}, {each.configs[one['file']]}"


def _limits(each: Described) -> Iterator[tuple[str, str]]:
    for service, facts in each.services.items():
        limits = facts["limits"]
        yield f"{service}: cpus", f"{limits['cpus']:g}"
        yield f"{service}: memory", format_size(limits["memory"])
        yield f"{service}: pids", str(limits["pids"])
        yield from ((f"{service}: tmpfs {path}", format_size(size)) for path, size in limits["tmpfs"].items())


def _services(each: Described) -> Iterator[tuple[str, str]]:
    for service, facts in each.services.items():
        yield service, facts["image"].rpartition(":")[0]
        yield f"{service}: user", facts["user"] or "root"
        yield f"{service}: egress", "yes" if facts["egress"] else "no"
        yield f"{service}: health check", "yes" if facts["healthcheck"] else "no"
        yield f"{service}: depends on", ", ".join(sorted(facts["depends_on"])) or "nothing"


def _proxima(each: Described) -> Iterator[tuple[str, str]]:
    yield "engine", f"{each.manifest.proxima.min_engine} or newer"
    yield "platforms", ", ".join(each.manifest.proxima.platforms)


def _sizes(each: Described) -> Iterator[tuple[str, str]]:
    yield from ((build, console.size(image.size)) for build, image in each.builds.items())


_SECTIONS: dict[str, Callable[[Described], Iterator[tuple[str, str]]]] = {
    "proxima": _proxima,
    "images": _images,
    "layers": _layers,
    "packages": _packages,
    "services": _services,
    "environment": _environment,
    "secrets": _listed("secrets", lambda one: one["path"]),
    "volumes": _listed("volumes", lambda one: f"{one['path']}, {format_size(one['size'])}, owner {one['owner']}"),
    "ports": _listed("ports", lambda one: f"{one['port']}/udp" if one.get("protocol") == "udp" else str(one["port"])),
    "configs": _configs,
    "limits": _limits,
    "tests": lambda each: iter(each.tests.items()),
    "sizes": _sizes,
    "deviations": lambda each: iter(each.deviations.items()),
}
SECTIONS = tuple(_SECTIONS)


def _same_for_several_images(changes: list[Change]) -> Iterator[Change]:
    """A package that changed alike in several images is one change: `counter, web: deb openssl`."""
    images: dict[tuple[str, str | None, str | None], list[str]] = {}
    for each in changes:
        if each.section == "packages":
            image, _, name = each.name.partition(": ")
            images.setdefault((name, each.before, each.after), []).append(image)
    for each in changes:
        if each.section != "packages":
            yield each
            continue
        image, _, name = each.name.partition(": ")
        together = images[name, each.before, each.after]
        if image == together[0]:
            yield Change(each.section, f"{', '.join(together)}: {name}", each.before, each.after)
