"""The layer cache: blobs that were compressed before, and blobs that were unpacked and verified before.

A blob is hashed whenever it is used, an entry is not trusted until the bytes it describes have been hashed, and invalid
files are removed. Files are created atomically and linked, so that any number of runs can use the cache at once.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from lyra_tasks.config.values import Digest
from lyra_tasks.digests import canonical_json, file_sha256, hex_part, sha256_digest
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import link_or_copy, mark_used
from lyra_tasks.images.oci import Layer
from lyra_tasks.images.stream.codec import Compression
from lyra_tasks.images.stream.tar import Block
from lyra_tasks.records.record import Record, read_record, write_record

_ENCODINGS: dict[Compression, str] = {"gzip": "gzip-2", "zstd": "zstd-3"}  # codec and level
_ENGINE_ENCODING = "engine"


class CacheMissError(Exception):
    """A cache entry does not describe the layer that was read, which must be read again without the cache."""


class CachedLayer(Record):
    """A blob that was unpacked before, with its content; `start_digest` is that of the layer's first block.

    `checksum` covers all other fields: a flipped bit on the disk must not change what is promoted.
    """

    schema_: Literal["lyra.layer/1"] = Field(default="lyra.layer/1", alias="schema")
    media_type: str
    digest: Digest
    size: int
    diff_id: Digest
    unpacked_size: int
    start_digest: str
    checksum: Digest = ""

    @model_validator(mode="before")
    @classmethod
    def _verify_checksum(cls, value: dict[str, Any]) -> dict[str, Any]:
        content = {key: item for key, item in value.items() if key not in {"checksum", "schema"}}
        checksum = sha256_digest(canonical_json(content).encode())
        if value.get("checksum", checksum) != checksum:
            raise ValueError("wrong checksum")
        return value | {"checksum": checksum}

    @property
    def layer(self) -> Layer:
        """Return the layer of an image."""
        return Layer(self.media_type, self.digest, self.size, self.diff_id, self.unpacked_size)


@dataclass
class LayerCache:
    """A cache in a directory, limited in size, for images whose layers have the expected diff ids.

    Blobs as the engine has them are not kept if they can be linked from its store at any time.
    """

    directory: Path
    limit_bytes: int
    expected_diff_ids: Collection[str] = ()
    is_trusted: bool = True
    keeps_engine_blobs: bool = True
    _pending: list[tuple[CachedLayer, Compression | None]] = field(default_factory=list)

    def find_compressed(self, start: Block, size: int, compression: Compression) -> CachedLayer | None:
        """Return the blob of an expected layer with this first block and size, if it was compressed before."""
        first = sha256_digest(start)
        for entry in self._expected_layers(_ENCODINGS[compression]):
            if (entry.unpacked_size, entry.start_digest) == (size, first):
                return entry if self._blob_path(entry.digest).is_file() else None
        return None

    def fill_spool(self, spool: Path, send: Callable[[], None]) -> dict[str, Layer]:
        """Fill `spool` with the engine's own blobs of expected layers; return those layers by digest.

        `send` adds the missing blobs while the others are verified. If some of them are damaged, they are removed and
        `send` is called again.
        """
        targets = {entry: spool / hex_part(entry.digest) for entry in self._expected_layers(_ENGINE_ENCODING)}
        linked = [entry for entry, target in targets.items() if self._link_unverified(entry, target)]
        with ThreadPoolExecutor(1) as pool:
            verification = pool.submit(lambda: [entry for entry in linked if self._verify(entry, targets[entry])])
            send()
            verified = verification.result()
        if len(verified) < len(linked):
            send()
        return {entry.digest: entry.layer for entry in verified}

    def distrust(self) -> None:
        """Use no entries from now on, after a CacheMissError; layers that are read then replace them."""
        self.is_trusted = False
        self._pending.clear()

    def link_verified(self, entry: CachedLayer, target: Path) -> bool:
        """Link a blob to `target` and return whether it is valid; an invalid one is removed."""
        return self._link_unverified(entry, target) and self._verify(entry, target)

    def find_unpacked(self, digest: str) -> Layer | None:
        """Return the layer of this blob, if it was unpacked and verified before."""
        mark_used(self._unpacked_entry_path(digest))
        entry = self._read_entry(self._unpacked_entry_path(digest))
        return entry.layer if entry and entry.digest == digest else None

    def remember(self, layer: Layer, start: Block = b"", compression: Compression | None = None) -> None:
        """Note a layer for `save_pending`, with `compression` if it was compressed here."""
        entry = CachedLayer(**vars(layer), start_digest=sha256_digest(start) if start else "")
        self._pending.append((entry, compression))

    def discard_pending(self) -> None:
        """Forget the layers that were noted for `save_pending`."""
        self._pending.clear()

    def save_pending(self, spool: Path, verified: Collection[str]) -> None:
        """Add the noted layers whose blobs were verified; errors such as a full disk are ignored."""
        with suppress(OSError, PreconditionError):
            for entry, compression in (item for item in self._pending if item[0].digest in verified):
                if compression or self.keeps_engine_blobs:
                    self._store_blob(spool / hex_part(entry.digest), entry.digest)
                    encoding = _ENCODINGS[compression] if compression else _ENGINE_ENCODING
                    write_record(self._content_entry_path(entry.diff_id, encoding), entry)
                if not compression and self.find_unpacked(entry.digest) is None:
                    write_record(self._unpacked_entry_path(entry.digest), entry)
            self._prune()

    def save_unpacked(self, layer: Layer) -> None:
        """Note that the blob of a layer was unpacked and verified elsewhere, if there is space."""
        with suppress(OSError, PreconditionError):
            write_record(self._unpacked_entry_path(layer.digest), CachedLayer(**vars(layer), start_digest=""))

    def _expected_layers(self, encoding: str) -> Iterator[CachedLayer]:
        for diff_id in self.expected_diff_ids if self.is_trusted else ():
            entry = self._read_entry(self._content_entry_path(diff_id, encoding))
            if entry and entry.diff_id == diff_id:
                yield entry

    def _link_unverified(self, entry: CachedLayer, target: Path) -> bool:
        """Link a blob to `target` without verification; return False if it does not exist."""
        try:
            link_or_copy(self._blob_path(entry.digest), target)
        except FileNotFoundError:
            return False
        return True

    def _verify(self, entry: CachedLayer, target: Path) -> bool:
        """Return whether the blob linked to `target` is valid; an invalid one is removed, with the link."""
        blob = self._blob_path(entry.digest)
        if file_sha256(target) != hex_part(entry.digest):
            target.unlink()
            blob.unlink(missing_ok=True)
            return False
        with suppress(FileNotFoundError):  # another run may have removed it
            os.utime(blob)
        return True

    def _store_blob(self, source: Path, digest: str) -> None:
        blob = self._blob_path(digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=blob.parent, prefix=".") as directory:
            link_or_copy(source, Path(directory, "blob"))
            Path(directory, "blob").replace(blob)

    def _prune(self) -> None:
        """Remove the least recently used files until the cache is below its limit."""
        files = [(path.stat(), path) for path in self.directory.rglob("*") if path.is_file()]
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
            if total <= self.limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size

    def _read_entry(self, path: Path) -> CachedLayer | None:
        try:
            return read_record(path, CachedLayer)
        except (PreconditionError, OSError):
            path.unlink(missing_ok=True)
            return None

    def _blob_path(self, digest: str) -> Path:
        return self.directory / "blobs" / hex_part(digest)

    def _content_entry_path(self, diff_id: str, encoding: str) -> Path:
        return self.directory / "compressed" / f"{hex_part(diff_id)}.{encoding}.json"

    def _unpacked_entry_path(self, digest: str) -> Path:
        return self.directory / "unpacked" / f"{hex_part(digest)}.json"
