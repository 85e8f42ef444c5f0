"""Reading images for what rules ask: every byte of every layer once, as a stream, and with bounded memory.

What is noted of a layer are the few entries that matter: programs with another's rights, the owners of the folders in
question, where a secret stands. Contents are never kept; of file names only a number each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, TypeVar

from lyra_tasks.images.codec import Digester, codec_of, unpack
from lyra_tasks.images.identity import Layer
from lyra_tasks.images.needles import Hit, Needles
from lyra_tasks.images.pack import Wanted, chosen
from lyra_tasks.images.packages import EMPTIED, REMOVED, LayerPackages, PackageReader, whiteout
from lyra_tasks.images.programs import counted
from lyra_tasks.images.saved import Incoming, read_save
from lyra_tasks.images.stage import Block
from lyra_tasks.images.tarball import SECTOR, BlockReader, Header, Readable, members

K = TypeVar("K", bound=Hashable)

_SPECIAL = 0o6000
_EXECUTABLE = 0o111


class Watcher(Protocol):
    """Sees every file of a layer pass by."""

    def watch(self, path: str, blocks: Iterator[Block]) -> Iterator[Block]:
        """The blocks of one file, as they come."""


@dataclass
class LayerSight:
    """One layer as it was read: `special` are setuid and setgid programs, `owners` those of the folders in question.

    `programs` are the numbers of executable files by the architecture that they are for; `files` are hashes of the
    names of everything that is no folder, to tell what a later layer replaces.
    """

    diff_id: str
    packages: LayerPackages
    special: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    hits: list[tuple[str, Hit]] = field(default_factory=list)
    files: set[int] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    emptied: set[str] = field(default_factory=set)
    watcher: Watcher | None = None


@dataclass(frozen=True)
class ImageSight:
    """One image as it was read: its layers lowest first, and its configuration document."""

    config_digest: str
    config: Mapping[str, Any]
    layers: tuple[LayerSight, ...]


def look(
    stream: Readable,
    wanted: Mapping[K, Wanted],
    *,
    needles: Needles,
    folders: Iterable[str],
    watcher: Callable[[], Watcher] | None = None,
) -> dict[K, ImageSight]:
    """Read a `docker save` in one pass and say what is in the wanted images.

    `folders` are absolute paths whose owners are asked for; `watcher` makes one for each layer, which sees
    all of its files. BundleError if the stream is damaged or does not hold a wanted image.
    """
    seen: dict[str, LayerSight] = {}
    watched = frozenset(folder.strip("/") for folder in folders)

    def keep(blocks: Iterator[Block], entry: Incoming) -> Layer:
        sight, size = look_at_layer(
            blocks, entry.where, needles=needles, folders=watched, watcher=watcher() if watcher else None
        )
        seen[sight.diff_id] = sight
        return Layer("", sight.diff_id, size, sight.diff_id, size)

    found = chosen(read_save(stream, keep), wanted)
    return {
        key: ImageSight(
            image.config_digest, json.loads(image.config), tuple(seen[layer.diff_id] for layer in image.layers)
        )
        for key, image in found.items()
    }


def look_at_layer(
    blocks: Iterator[Block], where: str, *, needles: Needles, folders: frozenset[str], watcher: Watcher | None = None
) -> tuple[LayerSight, int]:
    """Read one layer, compressed or not; returns what was seen, and its size unpacked."""
    first = next(blocks, b"")
    total = Digester()
    unpacked = _counted(unpack(chain([first], blocks), codec_of(first), where), total)
    packages = PackageReader()
    sight = LayerSight("", packages.layer, watcher=watcher)
    end = bytes(2 * SECTOR)
    for header, contents in members(BlockReader(chain(unpacked, [end])), where):
        path = header.name.removeprefix("./").strip("/")
        _note(sight, path, header, folders)
        hits = needles.search(f"{path}\0{header.target}".encode())
        inside = needles.watched(contents, hits) if needles else contents
        if watcher is not None and header.kind == "file":
            inside = watcher.watch(path, inside)
        if header.kind == "file" and header.mode & _EXECUTABLE:
            inside = counted(inside, sight.programs)
        packages.take(header, inside)
        for _ in inside:
            pass
        sight.hits += [(path, hit) for hit in sorted(hits, key=lambda hit: (hit.secret, hit.form))]
    sight.diff_id = total.digest
    return sight, total.size


def final_specials(layers: Iterable[LayerSight]) -> dict[str, tuple[int, int]]:
    """The setuid and setgid programs that are left in the end: path -> number of the layer (from 0), and mode."""
    found: dict[str, tuple[int, int]] = {}
    for number, layer in enumerate(layers):
        found = {
            path: value for path, value in found.items() if not _hidden(path, layer) and hash(path) not in layer.files
        }
        found |= {path: (number, mode) for path, mode in layer.special.items()}
    return found


def programs(layers: Iterable[LayerSight]) -> dict[str, int]:
    """The numbers of programs in all layers by the architecture that they are for."""
    return dict(sum((Counter(layer.programs) for layer in layers), Counter[str]()))


def final_owners(layers: Iterable[LayerSight]) -> dict[str, str]:
    """The owners of the folders in question as they are in the end: absolute path -> `UID:GID`."""
    found: dict[str, str] = {}
    for layer in layers:
        found = {path: owner for path, owner in found.items() if not _hidden(path, layer)} | layer.owners
    return {f"/{path}": owner for path, owner in found.items()}


def _note(sight: LayerSight, path: str, header: Header, folders: frozenset[str]) -> None:
    kind, gone = whiteout(path)
    if kind == EMPTIED:
        sight.emptied.add(gone)
    elif kind == REMOVED:
        sight.removed.add(gone)
    elif header.kind == "directory":
        if path in folders:
            sight.owners[path] = f"{header.uid}:{header.gid}"
    else:
        sight.files.add(hash(path))
        if header.kind in {"file", "link"} and header.mode & _SPECIAL:
            sight.special[path] = header.mode


def _hidden(path: str, layer: LayerSight) -> bool:
    if not (layer.removed or layer.emptied):
        return False
    folders = [path[:end] for end, letter in enumerate(path) if letter == "/"]
    return path in layer.removed or any(each in layer.removed or each in layer.emptied for each in ["", *folders])


def _counted(blocks: Iterable[Block], target: Digester) -> Iterator[Block]:
    for block in blocks:
        target.write(block)
        yield block
