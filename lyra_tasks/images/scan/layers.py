"""Scan images for the rules: every byte of every layer once, as a stream, with bounded memory.

Only the entries that matter are recorded: setuid files, owners of given directories, places of secrets. Contents are
not kept, and file names only as hashes.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import Any, Final, Literal, Protocol, TypeVar

from lyra_tasks.errors import BundleError
from lyra_tasks.images.oci import Layer
from lyra_tasks.images.scan.secrets import SecretMatch, SecretMatcher
from lyra_tasks.images.stream.codec import DigestWriter, decompress_blocks, detect_codec, tee_blocks
from lyra_tasks.images.stream.docker_save import IncomingLayer, read_docker_save
from lyra_tasks.images.stream.layers import describe_layer
from lyra_tasks.images.stream.pack import ImageRequest, select_images
from lyra_tasks.images.stream.packages import (
    LayerPackages,
    drop_hidden,
    is_whiteout,
    normalize_path,
    read_layer_members,
)
from lyra_tasks.images.stream.tar import Block, Readable, TarHeader

K = TypeVar("K", bound=Hashable)

_SETUID_SETGID = 0o6000
_EXECUTE_BITS = 0o111
_ELF_HEADER_BYTES: Final = 20
_MAX_PATH_STEPS = 1000
# ELF's e_machine, with the byte order where that matters -> architecture as in platforms
_ELF_MACHINES: Final = {
    3: "386",
    8: "mips",
    40: "arm",
    62: "amd64",
    183: "arm64",
    243: "riscv64",
    258: "loong64",
    (21, "little"): "ppc64le",
    (21, "big"): "ppc64",
    (22, "big"): "s390x",
}
_COMPATIBLE_ARCHITECTURES: Final = {"amd64": frozenset({"386"})}


class Watcher(Protocol):
    """An observer of all files of a layer."""

    def watch(self, path: str, blocks: Iterator[Block]) -> Iterator[Block]:
        """Pass on the blocks of one file."""


@dataclass
class ScannedLayer:
    """A scanned layer.

    `setuid_files` are setuid and setgid files with their modes, `file_hashes` the hashes of the names of everything but
    directories, which tell what a later layer replaces. Of given directories and those above them, `directory_owners`
    has the owners, and `links` the targets where they are symbolic links. `blob_digest` is that of the layer as it was
    read, or empty if the stream does not name it; `size` is that of the unpacked layer. `blob` is the layer if it was
    read compressed.
    """

    diff_id: str
    packages: LayerPackages
    setuid_files: dict[str, int] = field(default_factory=dict)
    directory_owners: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    programs_by_architecture: dict[str, int] = field(default_factory=dict)
    secret_matches: list[tuple[str, SecretMatch]] = field(default_factory=list)
    file_hashes: set[int] = field(default_factory=set)
    watcher: Watcher | None = None
    blob_digest: str = ""
    size: int = 0
    blob: Layer | None = None
    is_cached: bool = False


@dataclass(frozen=True)
class ScannedImage:
    """A scanned image: its layers, lowest first, its configuration, and the owners of directories, by absolute path."""

    config_digest: str
    config: Mapping[str, Any]
    layers: tuple[ScannedLayer, ...]
    directory_owners: Mapping[str, str]


def scan_images(
    stream: Readable,
    requested: Mapping[K, ImageRequest],
    *,
    matcher: SecretMatcher,
    directories: Collection[str],
    follow_links: bool = False,
    create_watcher: Callable[[], Watcher] | None = None,
    load_layer: Callable[[str], ScannedLayer | None] = lambda _: None,
) -> dict[K, ScannedImage]:
    """Scan the requested images in the stream of a `docker save`, in one pass.

    `directories` are absolute paths whose owners are recorded; with `follow_links`, also if links lead from them to
    others, which takes more memory. `create_watcher` is called for each layer that is read. A layer that `load_layer`
    returns for the digest of its blob is only hashed.
    """
    layers: dict[str, ScannedLayer] = {}
    watched_directories = None if follow_links else frozenset(directory.strip("/") for directory in directories)

    def scan_incoming_layer(blocks: Iterator[Block], entry: IncomingLayer) -> Layer:
        digester, first = DigestWriter(), next(blocks, b"")
        blocks, codec = chain([first], blocks), detect_codec(first)
        hashed_blocks = tee_blocks(blocks, digester.write) if entry.claimed_digest else blocks
        known_layer = load_layer(entry.claimed_digest) if entry.claimed_digest else None
        if known_layer is not None:
            for _ in hashed_blocks:
                pass
            if digester.digest != entry.claimed_digest:
                raise BundleError(f"{entry.where} does not have the digest in its name")
            layers[known_layer.diff_id] = known_layer
            return Layer("", known_layer.diff_id, known_layer.size, known_layer.diff_id, known_layer.size)
        scanned_layer, size = scan_layer(
            hashed_blocks,
            entry.where,
            matcher=matcher,
            directories=watched_directories,
            watcher=create_watcher() if create_watcher else None,
        )
        if digester.digest == entry.claimed_digest:
            scanned_layer.blob_digest, scanned_layer.size = entry.claimed_digest, size
            if codec != "none":
                scanned_layer.blob = describe_layer(codec, digester, scanned_layer.diff_id, size)
        layers[scanned_layer.diff_id] = scanned_layer
        return Layer("", scanned_layer.diff_id, size, scanned_layer.diff_id, size)

    images = {}
    for key, image in select_images(read_docker_save(stream, scan_incoming_layer), requested).items():
        own_layers = tuple(layers[layer.diff_id] for layer in image.layers)
        owners = find_directory_owners(own_layers, directories)
        images[key] = ScannedImage(image.config_digest, json.loads(image.config), own_layers, owners)
    return images


def scan_layer(
    blocks: Iterator[Block],
    where: str,
    *,
    matcher: SecretMatcher,
    directories: frozenset[str] | None,
    watcher: Watcher | None = None,
) -> tuple[ScannedLayer, int]:
    """Scan one layer, compressed or not, and return it with its uncompressed size; `None` are all directories."""
    first = next(blocks, b"")
    digester = DigestWriter()
    unpacked = tee_blocks(decompress_blocks(chain([first], blocks), detect_codec(first), where), digester.write)
    layer = ScannedLayer("", LayerPackages.empty(), watcher=watcher)
    watched_paths = directories and {path[: end.start()] for path in directories for end in re.finditer("/|$", path)}
    for header, contents in read_layer_members(unpacked, where):
        path = normalize_path(header.name)
        _record_entry(layer, path, header, watched_paths)
        matches = matcher.search(f"{path}\0{header.target}".encode())
        stream = matcher.search_stream(contents, matches) if matcher else contents
        if watcher is not None and header.kind == "file":
            stream = watcher.watch(path, stream)
        if header.kind == "file" and header.mode & _EXECUTE_BITS:
            stream = _count_architectures(stream, layer.programs_by_architecture)
        layer.packages.add_member(header, stream)
        for _ in stream:
            pass
        layer.secret_matches += [
            (path, match) for match in sorted(matches, key=lambda match: (match.secret, match.form))
        ]
    layer.diff_id = digester.digest
    return layer, digester.size


def find_setuid_files(layers: Iterable[ScannedLayer]) -> dict[str, tuple[int, int]]:
    """Return the setuid and setgid files of the final image: path -> number of the layer (from 0) and mode."""
    setuid_files: dict[str, tuple[int, int]] = {}
    for number, layer in enumerate(layers):
        setuid_files = {
            path: value
            for path, value in drop_hidden(setuid_files, layer.packages).items()
            if _hash_path(path) not in layer.file_hashes
        }
        setuid_files |= {path: (number, mode) for path, mode in layer.setuid_files.items()}
    return setuid_files


def count_programs(layers: Iterable[ScannedLayer]) -> dict[str, int]:
    """Return the number of programs in all layers by architecture."""
    return dict(sum((Counter(layer.programs_by_architecture) for layer in layers), Counter[str]()))


def can_run_programs(platform: str, counts: dict[str, int]) -> bool:
    """Return whether a machine of `platform` can run any of the counted programs, or there are none."""
    machine = platform.split("/")[1]
    return not counts or not {machine, *_COMPATIBLE_ARCHITECTURES.get(machine, ())}.isdisjoint(counts)


def find_directory_owners(layers: Sequence[ScannedLayer], directories: Iterable[str]) -> dict[str, str]:
    """Return the owners of directories in the final image, behind its links: absolute path -> `UID:GID MODE`."""
    owners: dict[str, str] = {}
    for layer in layers:
        owners = drop_hidden(owners, layer.packages) | layer.directory_owners
    places = resolve_directories(layers, directories)
    return {path: owners[place.strip("/")] for path, place in places.items() if place.strip("/") in owners}


def resolve_directories(layers: Iterable[ScannedLayer], directories: Iterable[str]) -> dict[str, str]:
    """Return where directories really are in the final image, which may have links on the way: path -> path."""
    links: dict[str, str] = {}
    for layer in layers:
        links = {
            path: target
            for path, target in drop_hidden(links, layer.packages).items()
            if path not in layer.directory_owners
        } | layer.links
    return {directory: _follow_links(directory, links) for directory in directories}


def _follow_links(directory: str, links: Mapping[str, str]) -> str:
    """Return a path without links, as engines resolve it inside of an image; unchanged if there are too many."""
    resolved: list[str] = []
    rest = directory.split("/")
    for _ in range(_MAX_PATH_STEPS):
        if not rest:
            return f"/{'/'.join(resolved)}"
        name = rest.pop(0)
        target = links.get("/".join([*resolved, name]))
        if name == "..":
            del resolved[-1:]
        elif target:
            rest = [*target.split("/"), *rest]
            resolved = [] if target.startswith("/") else resolved
        elif name not in ("", "."):
            resolved.append(name)
    return directory


def _record_entry(layer: ScannedLayer, path: str, header: TarHeader, watched_paths: Collection[str] | None) -> None:
    if is_whiteout(path):
        return
    is_watched = watched_paths is None or path in watched_paths
    if header.kind == "directory":
        if is_watched:
            layer.directory_owners[path] = sys.intern(f"{header.uid}:{header.gid} {header.mode:04o}")
        return
    if is_watched and header.kind == "symlink":
        layer.links[path] = header.target
    layer.file_hashes.add(_hash_path(path))
    if header.kind in {"file", "link"} and header.mode & _SETUID_SETGID:
        layer.setuid_files[path] = header.mode


def _hash_path(path: str) -> int:
    return int.from_bytes(blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _detect_architecture(start: Block) -> str:
    """Return the architecture (as in platforms) of the program that begins with these bytes, or an empty string."""
    if len(start) < _ELF_HEADER_BYTES or bytes(start[:4]) != b"\x7fELF":
        return ""
    order: Literal["little", "big"] = "big" if start[5] == 2 else "little"  # EI_DATA
    machine = int.from_bytes(start[18:20], order)
    return _ELF_MACHINES.get(machine) or _ELF_MACHINES.get((machine, order)) or f"ELF machine {machine}"


def _count_architectures(blocks: Iterator[Block], counts: dict[str, int]) -> Iterator[Block]:
    """Pass on the blocks of one file; if it is a program, count its architecture in `counts`."""
    start = b""
    for block in blocks:
        if len(start) < _ELF_HEADER_BYTES:
            start += bytes(block[: _ELF_HEADER_BYTES - len(start)])
        yield block
    if name := _detect_architecture(start):
        counts[name] = counts.get(name, 0) + 1
