"""Compare two versions of a bundle, for `diff` and for `PROMOTION.md`; imports `format` only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lyra_tasks import console
from lyra_tasks.bundle.format.documents import BundleDocuments
from lyra_tasks.errors import UsageError
from lyra_tasks.units import format_size

_LONG_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")


@dataclass(frozen=True)
class Change:
    """A difference; `before` is None for something new, `after` for something removed."""

    section: str
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class BundleDiff:
    """The changes between two versions, in the order of `SECTIONS`."""

    before: str
    after: str
    changes: tuple[Change, ...]


def shorten_digests(text: str | None) -> str:
    """Return a value for people, with shortened digests, or a dash for None."""
    return _LONG_DIGEST.sub(r"\1", text) if text is not None else "-"


def compare_bundles(before: BundleDocuments, after: BundleDocuments) -> BundleDiff:
    """Compare two versions of a project; raise UsageError for different projects."""
    before_manifest, after_manifest = before.manifest, after.manifest
    if before_manifest.project != after_manifest.project:
        raise UsageError(
            f"{before_manifest.project} and {after_manifest.project} are different projects",
            hint="Compare two versions of one project",
        )
    multi_platform_images = _multi_platform_images(before) | _multi_platform_images(after)
    before, after = (replace(documents, multi_platform_images=multi_platform_images) for documents in (before, after))
    changes = [
        change
        for section, list_entries in _SECTIONS.items()
        for change in _changes(section, dict(list_entries(before)), dict(list_entries(after)))
    ]
    return BundleDiff(before_manifest.version, after_manifest.version, tuple(_merge_package_changes(changes)))


def _changes(section: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Change(section, name, before.get(name), after.get(name))


def _multi_platform_images(documents: BundleDocuments) -> frozenset[str]:
    """Return the images that exist for several platforms."""
    return frozenset(
        image.name for build_name, image in documents.manifest.images_by_build.items() if build_name != image.name
    )


def _images(documents: BundleDocuments) -> Iterator[tuple[str, str]]:
    for build_name, image in documents.images_by_build.items():
        yield build_name, image.config_digest
        yield f"{build_name}: platform", image.platform
        yield from ((f"{build_name}: base {name}", digest) for name, digest in image.bases.items())


def _layers(documents: BundleDocuments) -> Iterator[tuple[str, str]]:
    for build_name, image in documents.images_by_build.items():
        for layer in image.identity.layers:
            yield f"{build_name}: {layer.diff_id}", console.format_bytes(layer.size)


def _packages(documents: BundleDocuments) -> Iterator[tuple[str, str]]:
    for build_name, packages in documents.packages_by_build().items():
        yield from ((f"{build_name}: {name}", ", ".join(versions)) for name, versions in packages.items())


def _environment(documents: BundleDocuments) -> Iterator[tuple[str, str]]:
    for service, description in documents.services.items():
        for variable in description["environment"]:
            attributes = [attribute for attribute in ("required", "secret") if variable[attribute]]
            attributes += [f"default {variable['default']!r}"] if variable["default"] is not None else []
            attributes += [f"pattern {variable['pattern']!r}"] if variable["pattern"] else []
            yield f"{service}: {variable['name']}", ", ".join(attributes) or "optional"


def _named_entries(
    key: str, describe: Callable[[dict[str, Any]], str]
) -> Callable[[BundleDocuments], Iterator[tuple[str, str]]]:
    def list_entries(documents: BundleDocuments) -> Iterator[tuple[str, str]]:
        for service, description in documents.services.items():
            yield from ((f"{service}: {entry['name']}", describe(entry)) for entry in description[key])

    return list_entries


def _configs(documents: BundleDocuments) -> Iterator[tuple[str, str]]:
    for service, description in documents.services.items():
        for config in description["configs"]:
            yield f"{service}: {config['name']}", f"{config['path']}, {documents.config_digests[config['file']]}"


def _limits(documents: BundleDocuments) -> Iterator[tuple[str, str]]:
    for service, description in documents.services.items():
        limits = description["limits"]
        yield f"{service}: cpus", f"{limits['cpus']:g}"
        yield f"{service}: memory", format_size(limits["memory"])
        yield f"{service}: pids", str(limits["pids"])
        yield from ((f"{service}: tmpfs {path}", format_size(size)) for path, size in limits["tmpfs"].items())


def _services(documents: BundleDocuments) -> Iterator[tuple[str, str]]:
    for service, description in documents.services.items():
        yield service, description["image"].rpartition(":")[0]
        yield f"{service}: user", description["user"] or "root"
        yield f"{service}: egress", "yes" if description["egress"] else "no"
        yield f"{service}: health check", "yes" if description["healthcheck"] else "no"
        yield f"{service}: depends on", ", ".join(sorted(description["depends_on"])) or "nothing"


def _proxima(documents: BundleDocuments) -> Iterator[tuple[str, str]]:
    yield "engine", f"{documents.manifest.proxima.min_engine} or newer"
    yield "platforms", ", ".join(documents.manifest.proxima.platforms)


def _sizes(documents: BundleDocuments) -> Iterator[tuple[str, str]]:
    yield from (
        (build_name, console.format_bytes(image.size)) for build_name, image in documents.images_by_build.items()
    )


_SECTIONS: dict[str, Callable[[BundleDocuments], Iterator[tuple[str, str]]]] = {
    "proxima": _proxima,
    "images": _images,
    "layers": _layers,
    "packages": _packages,
    "services": _services,
    "environment": _environment,
    "secrets": _named_entries("secrets", lambda entry: entry["path"]),
    "volumes": _named_entries(
        "volumes", lambda entry: f"{entry['path']}, {format_size(entry['size'])}, owner {entry['owner']}"
    ),
    "ports": _named_entries(
        "ports", lambda entry: f"{entry['port']}/udp" if entry.get("protocol") == "udp" else str(entry["port"])
    ),
    "configs": _configs,
    "limits": _limits,
    "tests": lambda documents: iter(documents.tests.items()),
    "sizes": _sizes,
    "deviations": lambda documents: iter(documents.deviations.items()),
}
SECTIONS = tuple(_SECTIONS)


def _merge_package_changes(changes: list[Change]) -> Iterator[Change]:
    """Merge equal package changes in several images into one: `counter, web: deb openssl`."""
    images_by_change: dict[tuple[str, str | None, str | None], list[str]] = {}
    for change in changes:
        if change.section == "packages":
            image, _, name = change.name.partition(": ")
            images_by_change.setdefault((name, change.before, change.after), []).append(image)
    for change in changes:
        if change.section != "packages":
            yield change
            continue
        image, _, name = change.name.partition(": ")
        image_names = images_by_change[name, change.before, change.after]
        if image == image_names[0]:
            yield Change(change.section, f"{', '.join(image_names)}: {name}", change.before, change.after)
