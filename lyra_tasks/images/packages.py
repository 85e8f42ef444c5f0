"""Which packages an image holds, out of its layers: Debian's, Alpine's, Python's and npm's own records of them.

A layer is read once, as a stream: of its files only the few that record packages are looked at, one at a time. What
layers say is put together as an engine does it, lowest first, with what a layer removes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.errors import PreconditionError
from lyra_tasks.images.package_records import Package, Release, dpkg, installed, metadata, module, release
from lyra_tasks.images.stage import Block
from lyra_tasks.images.tarball import SECTOR, BlockReader, Header, members
from lyra_tasks.records.store import Record, read_record, write_record

_MAX_RECORD = 16 * 1024**2
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
REMOVED, EMPTIED = "removed", "emptied"
_READERS: tuple[tuple[re.Pattern[str], Callable[[bytes], list[Package]]], ...] = (
    (re.compile(r"var/lib/dpkg/status(\.d/[^/]+)?"), dpkg),
    (re.compile(r"(usr/)?lib/apk/db/installed"), installed),
    (re.compile(r"(.+/)?[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO)"), metadata),
    (re.compile(r"(.+/)?node_modules/(@[^/]+/)?[^/@.][^/]*/package\.json"), module),
)
# what a path must hold to be looked at more closely: most do not
_HINT = re.compile(r"node_modules|-info|^var|^(usr/)?lib/apk/|os-release$")
_RELEASES = ("etc/os-release", "usr/lib/os-release")
# an entry of such a name that is no folder hides what lower layers have below it
_HOLDERS = re.compile(
    r"(.+/)?(node_modules(/@[^/]+)?(/[^/@]+)?|[^/]+\.(dist|egg)-info)|var(/lib(/dpkg(/status\.d)?)?)?"
)


class LayerPackages(Record):
    """What one layer says: packages by the path of their record, what it removes, and the release of its system."""

    schema_: Literal["lyra.layer-packages/2"] = Field(default="lyra.layer-packages/2", alias="schema")
    found: dict[str, list[Package]]
    removed: list[str]
    emptied: list[str]
    releases: dict[str, Release]


class ImagePackages(Record):
    """What an image holds: packages by the path of their record, and the release of its system if it says one."""

    found: dict[str, list[Package]]
    release: Release | None


class PackageReader:
    """Takes the members of one layer, in order, and notes in `layer` what they say."""

    def __init__(self) -> None:
        self.layer = LayerPackages(found={}, removed=[], emptied=[], releases={})

    def take(self, header: Header, contents: Iterator[Block]) -> None:
        """Note what one member says; its contents are read only where they record packages."""
        layer, path = self.layer, _normal(header.name)
        kind, gone = whiteout(path)
        if kind == EMPTIED:
            layer.emptied.append(gone)
        elif kind == REMOVED:
            layer.removed.append(gone)
        elif header.kind == "link" and _reader(path):
            layer.found[path] = layer.found.get(_normal(header.target), [])
        elif header.kind != "directory":
            _take(layer, path, header, contents)


def read_layer(blocks: Iterable[Block], where: str) -> LayerPackages:
    """What an uncompressed layer says, with bounded memory; BundleError naming `where` if it is damaged."""
    reader = PackageReader()
    end = bytes(2 * SECTOR)  # some programs leave it out, and every engine takes that
    for header, contents in members(BlockReader(chain(blocks, [end])), where):
        reader.take(header, contents)
    return reader.layer


def whiteout(path: str) -> tuple[str, str]:
    """Whether an entry of a layer takes something away: `REMOVED` a path, `EMPTIED` a folder, or nothing."""
    folder, _, name = path.rpartition("/")
    if name == _OPAQUE:
        return EMPTIED, folder
    if name.startswith(_WHITEOUT):
        return REMOVED, f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/")
    return "", ""


def known_packages(cache: Path, diff_id: str) -> LayerPackages | None:
    """What a layer said when it was read before; None if it was not, or what was kept is of no use."""
    try:
        return read_record(_kept(cache, diff_id), LayerPackages)
    except PreconditionError:
        return None


def keep_packages(cache: Path, diff_id: str, layer: LayerPackages) -> None:
    """Keep what a layer says in the cache, for every image that has it; a disk that is full only leaves it unknown."""
    with suppress(OSError, PreconditionError):
        write_record(_kept(cache, diff_id), layer)


def _kept(cache: Path, diff_id: str) -> Path:
    return cache / "packages" / f"{diff_id.removeprefix('sha256:')}.json"


def merged(layers: Iterable[LayerPackages]) -> ImagePackages:
    """What an image of these layers, lowest first, holds."""
    found: dict[str, list[Package]] = {}
    releases: dict[str, Release] = {}
    for layer in layers:
        for place in (found, releases):
            _hide(place, layer)
        found |= layer.found
        releases |= layer.releases
    return ImagePackages(
        found=dict(sorted(found.items())),
        release=next((releases[path] for path in _RELEASES if path in releases), None),
    )


def _take(layer: LayerPackages, path: str, header: Header, contents: Iterator[Block]) -> None:
    """Note what an entry that is no folder says; by being there, it hides what a lower layer had in its place."""
    if not _HINT.search(path):
        return
    if path in _RELEASES:
        if header.kind == "file" and header.size <= _MAX_RECORD:
            layer.releases[path] = release(b"".join(contents))
        return
    read = _reader(path)
    if read is None:
        if _HOLDERS.fullmatch(path):
            layer.removed.append(path)
    elif header.kind == "file" and header.size <= _MAX_RECORD:
        layer.found[path] = read(b"".join(contents))
    else:
        layer.removed.append(path)


def _reader(path: str) -> Callable[[bytes], list[Package]] | None:
    return next((read for pattern, read in _READERS if pattern.fullmatch(path)), None)


def _hide(found: dict[str, list[Package]] | dict[str, Release], layer: LayerPackages) -> None:
    if not (layer.removed or layer.emptied):
        return
    gone, empty = set(layer.removed), set(layer.emptied)
    for path in list(found):
        parents = {path[: match.start()] for match in re.finditer("/", path)} | {""}
        if path in gone or parents & (gone | empty):
            del found[path]


def _normal(name: str) -> str:
    return name.removeprefix("./").strip("/")


def packages_of(image: ImagePackages) -> Mapping[Package, list[str]]:
    """Every package of an image, in order, with the paths that record it."""
    places: dict[Package, list[str]] = {}
    for path, packages in image.found.items():
        for package in packages:
            places.setdefault(package, []).append(path)
    return dict(sorted(places.items(), key=lambda item: (item[0].kind, item[0].name, item[0].version, item[0].arch)))
