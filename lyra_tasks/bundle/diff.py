"""Compare two versions of a bundle, for `diff` and for `PROMOTION.md`; imports `format` only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import astuple, dataclass, replace

from lyra_tasks import console
from lyra_tasks.bundle.format.documents import BundleDocuments, DescribedService
from lyra_tasks.bundle.format.manifest import BundledImage
from lyra_tasks.config.platforms import variant_key
from lyra_tasks.errors import UsageError

SECTIONS = (
    "proxima", "images", "layers", "packages", "services", "environment", "secrets", "volumes", "ports", "configs",
    "limits", "tests", "sizes", "deviations",
)  # fmt: skip
_LONG_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")
_Key = tuple[str, str]  # section and name


@dataclass(frozen=True)
class Change:
    """A difference; `before` is None for something new, `after` for something removed."""

    section: str
    name: str
    before: str | None
    after: str | None

    @property
    def row(self) -> tuple[str, ...]:
        """Return the fields for a table, with shortened digests, and a dash for None."""
        return tuple("-" if text is None else _LONG_DIGEST.sub(r"\1", text) for text in astuple(self))


@dataclass(frozen=True)
class BundleDiff:
    """The changes between two versions, in the order of `SECTIONS`."""

    before: str
    after: str
    changes: tuple[Change, ...]


def compare_bundles(before: BundleDocuments, after: BundleDocuments) -> BundleDiff:
    """Compare two versions of a project; raise UsageError for different projects."""
    before_manifest, after_manifest = before.manifest, after.manifest
    if before_manifest.project != after_manifest.project:
        raise UsageError(
            f"{before_manifest.project} and {after_manifest.project} are different projects",
            hint="Compare two versions of one project",
        )
    multi_platform_images = {
        image.name
        for manifest in (before_manifest, after_manifest)
        for build_name, image in manifest.images_by_build.items()
        if build_name != image.name
    }
    entries_before, entries_after = (
        dict(_list_entries(documents, multi_platform_images)) for documents in (before, after)
    )
    keys = sorted(entries_before.keys() | entries_after.keys(), key=lambda key: (SECTIONS.index(key[0]), key[1]))
    changes = [
        Change(*key, entries_before.get(key), entries_after.get(key))
        for key in keys
        if entries_before.get(key) != entries_after.get(key)
    ]
    return BundleDiff(before_manifest.version, after_manifest.version, tuple(_merge_package_changes(changes)))


def _list_entries(documents: BundleDocuments, multi_platform_images: Set[str]) -> Iterator[tuple[_Key, str]]:
    """Yield what is compared, by section and name.

    Images with several platforms in one of the versions are named with their platform in both.
    """
    images, proxima = documents.manifest.images_by_build, documents.manifest.proxima
    names = {
        build_name: variant_key(image.name, image.platform) if image.name in multi_platform_images else build_name
        for build_name, image in images.items()
    }
    yield ("proxima", "engine"), f"{proxima.min_engine} or newer"
    yield ("proxima", "platforms"), ", ".join(proxima.platforms)
    for build_name, image in images.items():
        yield from _list_image(names[build_name], image)
    for archive in documents.manifest.archives:
        yield ("sizes", f"archive for {archive.platform}"), console.format_bytes(archive.size)
    for build_name, packages in documents.packages.items():
        for package, versions in packages.items():
            yield ("packages", f"{names.get(build_name, build_name)}: {package}"), ", ".join(versions)
    for service, description in documents.services.items():
        yield from _list_service(service, description)
        for config in description.configs:
            text = f"{config.path}, {documents.config_digests[config.file]}"
            yield ("configs", f"{service}: {config.name}"), text
    for service, settings in documents.settings.items():
        for key, value in settings.items():
            yield ("services", f"{service}: {key}"), value
    for double in documents.manifest.test_doubles:
        yield ("services", f"{double.service}: test double"), double.reference
    for section, texts in (("tests", documents.tests), ("deviations", documents.deviations)):
        yield from (((section, name), text) for name, text in texts.items())


def _list_image(build_name: str, image: BundledImage) -> Iterator[tuple[_Key, str]]:
    yield ("images", build_name), image.config_digest
    yield ("images", f"{build_name}: platform"), image.platform
    for name, digest in image.bases.items():
        yield ("images", f"{build_name}: base {name}"), digest
    if image.origin:
        yield ("images", f"{build_name}: origin"), f"{image.origin.reference}, {image.origin.digest}"
    for layer in image.identity.layers:
        yield ("layers", f"{build_name}: {layer.diff_id}"), console.format_bytes(layer.size)
    yield ("sizes", build_name), console.format_bytes(sum(image.layer_sizes.values()))


def _list_service(service: str, description: DescribedService) -> Iterator[tuple[_Key, str]]:
    yield ("services", service), description.image.rpartition(":")[0]
    yield ("services", f"{service}: user"), description.user or "root"
    yield ("services", f"{service}: egress"), "yes" if description.egress else "no"
    yield ("services", f"{service}: health check"), "yes" if description.healthcheck else "no"
    yield ("services", f"{service}: depends on"), ", ".join(sorted(description.depends_on)) or "nothing"
    for variable in description.environment:
        flags = (("required", variable.required), ("secret", variable.secret))
        attributes = [name for name, is_set in flags if is_set]
        attributes += [f"default {variable.default!r}"] if variable.default is not None else []
        attributes += [f"pattern {variable.pattern!r}"] if variable.pattern else []
        attributes += [f"made as {variable.template!r}"] if variable.template else []
        yield ("environment", f"{service}: {variable.name}"), ", ".join(attributes) or "optional"
    for secret in description.secrets:
        yield ("secrets", f"{service}: {secret.name}"), secret.path
    for volume in description.volumes:
        text = f"{volume.path}, {console.format_bytes(volume.size)}, owner {volume.owner}"
        text += f", shared as {volume.shared}" if volume.shared else ""
        text += ", read-only" if volume.read_only else ""
        yield ("volumes", f"{service}: {volume.name}"), text
    for port in description.ports:
        protocol = "/udp" if port.protocol == "udp" else ""
        yield (
            ("ports", f"{service}: {port.name}"),
            f"{port.port}{protocol}" + (f", published on {port.address}" if port.address else ""),
        )
    limits = description.limits
    yield ("limits", f"{service}: cpus"), f"{limits.cpus:g}"
    yield ("limits", f"{service}: memory + tmpfs"), console.format_bytes(limits.memory)
    yield ("limits", f"{service}: pids"), str(limits.pids)
    for path, size in limits.tmpfs.items():
        yield ("limits", f"{service}: tmpfs {path}"), console.format_bytes(size)


def _merge_package_changes(changes: Sequence[Change]) -> Iterator[Change]:
    """Merge equal package changes in several images into one: `counter, web: deb openssl`."""
    images_by_change: dict[Change, list[str]] = {}
    for change in changes:
        image, _, package = change.name.partition(": ")
        key = replace(change, name=package) if change.section == "packages" else change
        images_by_change.setdefault(key, []).append(image)
    for change, images in images_by_change.items():
        is_package = change.section == "packages"
        yield replace(change, name=f"{', '.join(images)}: {change.name}") if is_package else change
