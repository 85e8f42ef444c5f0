"""What an engine saves, in one pass: every layer into the spool, every document into memory, links resolved later."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from lyra_tasks.errors import BundleError
from lyra_tasks.images.cache import LayerCache
from lyra_tasks.images.codec import Compression
from lyra_tasks.images.documents import MAX_DOCUMENT
from lyra_tasks.images.identity import Layer
from lyra_tasks.images.layers import spool_layer
from lyra_tasks.images.stage import Block
from lyra_tasks.images.tarball import BlockReader, Header, members

WHERE = "the engine's save"

_MAX_MEMBERS = 20_000
_MAX_DOCUMENTS = 32 * 1024**2
_MAX_LINKS = 16


@dataclass
class Saved:
    """The members of a save by their path: documents as bytes, layers as they lie in the spool, links.

    `fresh` are the digests of blobs that were compressed just now.
    """

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)

    def document(self, path: str) -> bytes:
        """The document at `path`; BundleError if the save does not hold it."""
        found = self.documents.get(self._target(path))
        if found is None:
            raise BundleError(f"{WHERE}: {path} is missing")
        return found

    def layer(self, path: str) -> Layer:
        """The layer at `path`, through links; BundleError if the save does not hold it."""
        found = self.layers.get(self._target(path))
        if found is None:
            raise BundleError(f"{WHERE}: the layer {path} is missing")
        return found

    def __contains__(self, path: str) -> bool:
        return path in self.documents or path in self.layers or path in self.links

    def _target(self, path: str) -> str:
        for _ in range(_MAX_LINKS):
            if path not in self.links:
                return path
            path = self.links[path]
        raise BundleError(f"{WHERE}: {path} is a circle of links")


def read_save(stream: Iterable[bytes], spool: Path, compression: Compression, cache: LayerCache | None = None) -> Saved:
    """Read the stream of a `docker save`, of any layout, in one pass and with bounded memory.

    BundleError if it is damaged, ends early, or holds what no engine writes; CacheMissError as `spool_layer`.
    """
    saved = Saved()
    room = _MAX_DOCUMENTS
    for number, (header, contents) in enumerate(members(BlockReader(stream, WHERE))):
        path = _inside(header.name)
        if number >= _MAX_MEMBERS:
            raise BundleError(f"{WHERE}: more than {_MAX_MEMBERS} members")
        if header.kind == "directory" or posixpath.basename(path) == "VERSION":
            continue
        if path in saved:
            raise BundleError(f"{WHERE}: {path} is there twice")
        if header.kind != "file":
            saved.links[path] = _link(header, path)
            continue
        start = next(contents, bytearray())
        whole = chain([start], contents)
        if _is_document(start) and header.size <= min(MAX_DOCUMENT, room):
            room -= header.size
            saved.documents[path] = b"".join(whole)
        else:
            spooled = spool_layer(
                whole, spool, compression, f"{WHERE}: {path}", size=header.size, claimed=_claimed(path), cache=cache
            )
            saved.layers[path] = spooled.layer
            saved.fresh |= {spooled.layer.digest} if spooled.fresh else set()
    return saved


def _claimed(path: str) -> str:
    """The digest that a blob of an image layout is named by, or nothing."""
    digest = path.removeprefix("blobs/sha256/")
    return f"sha256:{digest}" if digest != path else ""


def _is_document(start: Block) -> bool:
    """JSON is text; a layer that happens to begin with `{` has the zeros of a tar header."""
    return start[:1] in (b"{", b"[") and b"\0" not in start


def _link(header: Header, path: str) -> str:
    if header.kind == "symlink":
        return _inside(posixpath.join(posixpath.dirname(path), header.target))
    if header.kind == "link":
        return _inside(header.target)
    raise BundleError(f"{WHERE}: {path} is neither a file nor a link")


def _inside(name: str) -> str:
    path = posixpath.normpath(name)
    if path.startswith(("/", "..")) or "\0" in name:
        raise BundleError(f"{WHERE}: {name!r} leads out of the archive")
    return path
