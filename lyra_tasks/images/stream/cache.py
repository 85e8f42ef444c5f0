"""Layers that were compressed, or unpacked and found to be what they say, and need not be again.

A blob in the cache is hashed whenever it is used, an entry is only a claim until the bytes that it is about have been
hashed, and what is wrong is thrown away. Files appear whole and are linked, so that any number of runs may add, use and
remove them at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from lyra_tasks.errors import PreconditionError
from lyra_tasks.images.oci import Digest, Layer
from lyra_tasks.images.stream.codec import Compression
from lyra_tasks.images.stream.pipeline import Block
from lyra_tasks.records.record import Record, canonical_json, read_record, write_record

_ENCODINGS: dict[Compression, str] = {"gzip": "gzip-2", "zstd": "zstd-3"}  # codec and level
_ENGINE_ENCODING = "engine"


class CacheMissError(Exception):
    """An entry turned out not to be about the layer that was read, which must be read again without the cache."""


class CachedLayer(Record):
    """A blob that was once unpacked, and what was found in it; `start` is the digest of the layer's first block.

    `sum` is over all the rest: a disk that forgets a bit must not change what is promoted.
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
        rest = {key: item for key, item in value.items() if key not in {"sum", "schema"}}
        checksum = _digest(canonical_json(rest).encode())
        if value.get("sum", checksum) != checksum:
            raise ValueError("does not have its own sum")
        return value | {"sum": checksum}

    @property
    def layer(self) -> Layer:
        """The layer as an image has it."""
        return Layer(self.media_type, self.digest, self.size, self.diff_id, self.unpacked_size)


@dataclass
class LayerCache:
    """The cache in `folder`, kept below `limit` bytes, for images whose layers have the `expected` diff ids."""

    directory: Path
    limit_bytes: int
    expected_diff_ids: Collection[str] = ()
    is_trusted: bool = True
    _pending: list[tuple[CachedLayer, Compression | None]] = field(default_factory=list)

    def find_compressed(self, start: Block, size: int, compression: Compression) -> CachedLayer | None:
        """The blob of an expected layer that begins with `start` and has `size` bytes, if it was compressed before."""
        first = _digest(start)
        for diff_id in self.expected_diff_ids if self.is_trusted else ():
            entry = self._read_entry(self._content_entry_path(diff_id, _ENCODINGS[compression]))
            if entry and (entry.diff_id, entry.unpacked_size, entry.start_digest) == (diff_id, size, first):
                return entry if self._blob_path(entry.digest).is_file() else None
        return None

    def fill_spool(self, spool: Path, send: Callable[[], None]) -> dict[str, Layer]:
        """Fill `folder` with blobs: the expected layers' that are kept as an engine had made them, and what is sent.

        `send` adds what is missing, and believes what is there, which is hashed meanwhile; if some of that turns out
        to be damaged, it is removed, and `send` is called again. Returns the layers out of the cache, by digest.
        """
        linked = [entry for entry in self._engine_layers() if self._link_unverified(entry, spool / _hex(entry.digest))]
        with ThreadPoolExecutor(1) as pool:
            verification = pool.submit(
                lambda: [entry for entry in linked if self._verify(entry, spool / _hex(entry.digest))]
            )
            send()
            verified = verification.result()
        if len(verified) < len(linked):
            send()
        return {entry.digest: entry.layer for entry in verified}

    def distrust(self) -> None:
        """Believe nothing from now on, after a CacheMissError; what is read then is entered anew."""
        self.is_trusted = False
        self._pending.clear()

    def link_verified(self, entry: CachedLayer, target: Path) -> bool:
        """Give the blob the further name `target`, and say whether it is what it should be; a bad one is removed."""
        return self._link_unverified(entry, target) and self._verify(entry, target)

    def find_unpacked(self, digest: str) -> Layer | None:
        """What the blob of this digest was found to hold, if it was unpacked before."""
        entry = self._read_entry(self._unpacked_entry_path(digest))
        return entry.layer if entry and entry.digest == digest else None

    def remember(self, layer: Layer, start: Block = b"", compression: Compression | None = None) -> None:
        """Remember a layer until `keep`; with `compression`, it is one that was compressed here."""
        entry = CachedLayer(
            media_type=layer.media_type,
            digest=layer.digest,
            size=layer.size,
            diff_id=layer.diff_id,
            unpacked_size=layer.unpacked_size,
            start_digest=_digest(start) if start else "",
        )
        self._pending.append((entry, compression))

    def discard_pending(self) -> None:
        """Enter nothing of what was noted so far."""
        self._pending.clear()

    def save_pending(self, spool: Path, verified: Collection[str]) -> None:
        """Enter what was noted of the blobs with these digests; a disk that is full only leaves the cache smaller."""
        with suppress(OSError, PreconditionError):
            for entry, compression in (item for item in self._pending if item[0].digest in verified):
                self._store_blob(spool / _hex(entry.digest), entry.digest)
                encoding = _ENCODINGS[compression] if compression else _ENGINE_ENCODING
                write_record(self._content_entry_path(entry.diff_id, encoding), entry)
                if not compression:
                    write_record(self._unpacked_entry_path(entry.digest), entry)
            self._prune()

    def _engine_layers(self) -> Iterator[CachedLayer]:
        for diff_id in self.expected_diff_ids if self.is_trusted else ():
            entry = self._read_entry(self._content_entry_path(diff_id, _ENGINE_ENCODING))
            if entry and entry.diff_id == diff_id:
                yield entry

    def _link_unverified(self, entry: CachedLayer, target: Path) -> bool:
        """Give the blob the further name `target`, unproven; False if it is gone."""
        try:
            _link_or_copy(self._blob_path(entry.digest), target)
        except FileNotFoundError:
            return False
        return True

    def _verify(self, entry: CachedLayer, target: Path) -> bool:
        """Whether the blob that was lent to `target` is what it should be; a bad one is removed, there and here."""
        blob = self._blob_path(entry.digest)
        with target.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if digest != entry.digest:
            target.unlink()
            blob.unlink(missing_ok=True)
            return False
        with suppress(FileNotFoundError):  # another run has made room meanwhile
            os.utime(blob)
        return True

    def _store_blob(self, source: Path, digest: str) -> None:
        blob = self._blob_path(digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=blob.parent, prefix=".") as directory:
            _link_or_copy(source, Path(directory, "blob"))
            Path(directory, "blob").replace(blob)

    def _prune(self) -> None:
        """Remove what was not used for longest, down to the limit."""
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
        return self.directory / "blobs" / _hex(digest)

    def _content_entry_path(self, diff_id: str, encoding: str) -> Path:
        return self.directory / "compressed" / f"{_hex(diff_id)}.{encoding}.json"

    def _unpacked_entry_path(self, digest: str) -> Path:
        return self.directory / "unpacked" / f"{_hex(digest)}.json"


def _link_or_copy(source: Path, target: Path) -> None:
    """A further name for a file that is never changed, or a copy where names cannot be shared."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        target.unlink()
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _digest(block: Block) -> str:
    return f"sha256:{hashlib.sha256(block).hexdigest()}"
