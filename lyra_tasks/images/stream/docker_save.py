"""What an engine saves, in one pass: every layer to who asked, every document into memory, links resolved later."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from lyra_tasks.errors import BundleError
from lyra_tasks.images.oci import MAX_DOCUMENT_BYTES, Layer
from lyra_tasks.images.stream.pipeline import Block
from lyra_tasks.images.stream.tar import Readable, TarHeader, read_tar_members

SAVE_LABEL = "the engine's save"

_MAX_MEMBERS = 20_000
_MAX_DOCUMENTS_BYTES = 32 * 1024**2
_MAX_LINKS = 16


@dataclass(frozen=True)
class IncomingLayer:
    """A layer of a save: where it stands, how many bytes it has, and the digest that its name claims, or nothing."""

    where: str
    size: int
    claimed_digest: str


@dataclass
class SaveContents:
    """The members of a save by their path: documents as bytes, layers as their reader says that they are, links."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def document(self, path: str) -> bytes:
        """The document at `path`; BundleError if the save does not hold it."""
        document = self.documents.get(self._resolve_links(path))
        if document is None:
            raise BundleError(f"{SAVE_LABEL}: {path} is missing")
        return document

    def layer(self, path: str) -> Layer:
        """The layer at `path`, through links; BundleError if the save does not hold it."""
        layer = self.layers.get(self._resolve_links(path))
        if layer is None:
            raise BundleError(f"{SAVE_LABEL}: the layer {path} is missing")
        return layer

    def __contains__(self, path: str) -> bool:
        return path in self.documents or path in self.layers or path in self.links

    def _resolve_links(self, path: str) -> str:
        for _ in range(_MAX_LINKS):
            if path not in self.links:
                return path
            path = self.links[path]
        raise BundleError(f"{SAVE_LABEL}: {path} is a circle of links")


def read_docker_save(stream: Readable, store_layer: Callable[[Iterator[Block], IncomingLayer], Layer]) -> SaveContents:
    """Read the stream of a `docker save`, of any layout, in one pass and with bounded memory.

    `keep` is given the bytes of each layer, compressed or not, and says what they are. BundleError if the stream is
    damaged, ends early, or holds what no engine writes.
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
            raise BundleError(f"{SAVE_LABEL}: {path} is there twice")
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
    """The digest that a blob of an image layout is named by, or nothing."""
    digest = path.removeprefix("blobs/sha256/")
    return f"sha256:{digest}" if digest != path else ""


def _is_document(start: Block) -> bool:
    """JSON is text; a layer that happens to begin with `{` has the zeros of a tar header."""
    return start[:1] in (b"{", b"[") and b"\0" not in start


def _link_target(header: TarHeader, path: str) -> str:
    if header.kind == "symlink":
        return _normalize_path(posixpath.join(posixpath.dirname(path), header.target))
    if header.kind == "link":
        return _normalize_path(header.target)
    raise BundleError(f"{SAVE_LABEL}: {path} is neither a file nor a link")


def _normalize_path(name: str) -> str:
    path = posixpath.normpath(name)
    if path.startswith(("/", "..")) or "\0" in name:
        raise BundleError(f"{SAVE_LABEL}: {name!r} leads out of the archive")
    return path
