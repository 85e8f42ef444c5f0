"""Read a `docker save` in one pass: layers to a callback, documents into memory, links resolved afterwards."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from lyra_tasks.errors import BundleError
from lyra_tasks.images.oci import BLOBS_PREFIX, MAX_DOCUMENT_BYTES, Layer
from lyra_tasks.images.stream.tar import Block, Readable, TarHeader, read_tar_members

SAVE_LABEL = "the engine's save"

_MAX_MEMBERS = 20_000
_MAX_DOCUMENTS_BYTES = 32 * 1024**2
_MAX_LINKS = 16


@dataclass(frozen=True)
class IncomingLayer:
    """A layer of a save: its place for messages, its size in bytes, and the digest in its name, or ""."""

    where: str
    size: int
    claimed_digest: str


@dataclass
class SaveContents:
    """The members of a save by path."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def document(self, path: str) -> bytes:
        """Return the document at `path`, or raise BundleError."""
        target = self._resolve_links(path)
        if target not in self.documents:
            raise BundleError(f"{SAVE_LABEL}: {path} is missing")
        return self.documents[target]

    def layer(self, path: str) -> Layer:
        """Return the layer at `path`, or raise BundleError."""
        target = self._resolve_links(path)
        if target not in self.layers:
            raise BundleError(f"{SAVE_LABEL}: the layer {path} is missing")
        return self.layers[target]

    def __contains__(self, path: str) -> bool:
        return path in self.documents or path in self.layers or path in self.links

    def _resolve_links(self, path: str) -> str:
        for _ in range(_MAX_LINKS):
            if path not in self.links:
                return path
            path = self.links[path]
        raise BundleError(f"{SAVE_LABEL}: circular link {path}")


def read_docker_save(stream: Readable, store_layer: Callable[[Iterator[Block], IncomingLayer], Layer]) -> SaveContents:
    """Read a `docker save` in any layout, in one pass and with bounded memory.

    `store_layer` gets the bytes of each layer, compressed or not, and returns the layer.
    """
    save = SaveContents()
    remaining_bytes = _MAX_DOCUMENTS_BYTES
    for number, (header, contents) in enumerate(read_tar_members(stream, SAVE_LABEL)):
        path = _normalize_path(header.name)
        if number >= _MAX_MEMBERS:
            raise BundleError(f"{SAVE_LABEL}: more than {_MAX_MEMBERS} members")
        if header.kind == "directory" or posixpath.basename(path) == "VERSION":
            continue
        if path in save:
            raise BundleError(f"{SAVE_LABEL}: duplicate member {path}")
        if header.kind != "file":
            save.links[path] = _link_target(header, path)
            continue
        start = next(contents, bytearray())
        blocks = chain([start], contents)
        if _is_document(start) and header.size <= min(MAX_DOCUMENT_BYTES, remaining_bytes):
            remaining_bytes -= header.size
            save.documents[path] = b"".join(blocks)
        else:
            save.layers[path] = store_layer(
                blocks, IncomingLayer(f"{SAVE_LABEL}: {path}", header.size, _digest_in_path(path))
            )
    return save


def _digest_in_path(path: str) -> str:
    """Return the digest in the name of a blob, or ""."""
    digest = path.removeprefix(BLOBS_PREFIX)
    return f"sha256:{digest}" if digest != path else ""


def _is_document(start: Block) -> bool:
    """Return whether this is JSON; a layer whose first name starts with `{` has the zeros of a tar header."""
    return start[:1] in (b"{", b"[") and b"\0" not in start


def _link_target(header: TarHeader, path: str) -> str:
    if header.kind == "symlink":
        return _normalize_path(posixpath.join(posixpath.dirname(path), header.target))
    if header.kind == "link":
        return _normalize_path(header.target)
    raise BundleError(f"{SAVE_LABEL}: {path} is not a file or link")


def _normalize_path(name: str) -> str:
    path = posixpath.normpath(name)
    if path.startswith(("/", "..")) or "\0" in name:
        raise BundleError(f"{SAVE_LABEL}: {name!r} is outside the archive")
    return path
