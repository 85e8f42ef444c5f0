"""What an engine saves, in one pass: every layer to who asked, every document into memory, links resolved later."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from lyra_tasks.errors import BundleError
from lyra_tasks.images.documents import MAX_DOCUMENT
from lyra_tasks.images.identity import Layer
from lyra_tasks.images.stage import Block
from lyra_tasks.images.tarball import Header, Readable, members

WHERE = "the engine's save"

_MAX_MEMBERS = 20_000
_MAX_DOCUMENTS = 32 * 1024**2
_MAX_LINKS = 16


@dataclass(frozen=True)
class Incoming:
    """A layer of a save: where it stands, how many bytes it has, and the digest that its name claims, or nothing."""

    where: str
    size: int
    claimed: str


@dataclass
class Saved:
    """The members of a save by their path: documents as bytes, layers as their reader says that they are, links."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

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


def read_save(stream: Readable, keep: Callable[[Iterator[Block], Incoming], Layer]) -> Saved:
    """Read the stream of a `docker save`, of any layout, in one pass and with bounded memory.

    `keep` is given the bytes of each layer, compressed or not, and says what they are. BundleError if the stream is
    damaged, ends early, or holds what no engine writes.
    """
    saved = Saved()
    room = _MAX_DOCUMENTS
    for number, (header, contents) in enumerate(members(stream, WHERE)):
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
            saved.layers[path] = keep(whole, Incoming(f"{WHERE}: {path}", header.size, _claimed(path)))
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
