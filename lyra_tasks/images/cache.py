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
from lyra_tasks.images.codec import Compression
from lyra_tasks.images.documents import Digest
from lyra_tasks.images.identity import Layer
from lyra_tasks.images.stage import Block
from lyra_tasks.records.store import Record, canonical, read_record, write_record

_ENCODINGS: dict[Compression, str] = {"gzip": "gzip-2", "zstd": "zstd-3"}  # codec and level
_AS_IT_CAME = "engine"


class CacheMissError(Exception):
    """An entry turned out not to be about the layer that was read, which must be read again without the cache."""


class KnownLayer(Record):
    """A blob that was once unpacked, and what was found in it; `start` is the digest of the layer's first block.

    `sum` is over all the rest: a disk that forgets a bit must not change what is promoted.
    """

    schema_: Literal["lyra.layer/1"] = Field(default="lyra.layer/1", alias="schema")
    media_type: str
    digest: Digest
    size: int
    diff_id: Digest
    unpacked_size: int
    start: str
    sum: Digest = ""

    @model_validator(mode="before")
    @classmethod
    def _is_as_it_was_written(cls, value: dict[str, Any]) -> dict[str, Any]:
        rest = {key: each for key, each in value.items() if key not in {"sum", "schema"}}
        found = _digest(canonical(rest).encode())
        if value.get("sum", found) != found:
            raise ValueError("does not have its own sum")
        return value | {"sum": found}

    @property
    def layer(self) -> Layer:
        """The layer as an image has it."""
        return Layer(self.media_type, self.digest, self.size, self.diff_id, self.unpacked_size)


@dataclass
class LayerCache:
    """The cache in `folder`, kept below `limit` bytes, for images whose layers have the `expected` diff ids."""

    folder: Path
    limit: int
    expected: Collection[str] = ()
    believed: bool = True
    _new: list[tuple[KnownLayer, Compression | None]] = field(default_factory=list)

    def compressed(self, start: Block, size: int, compression: Compression) -> KnownLayer | None:
        """The blob of an expected layer that begins with `start` and has `size` bytes, if it was compressed before."""
        first = _digest(start)
        for diff_id in self.expected if self.believed else ():
            known = self._read(self._by_content(diff_id, _ENCODINGS[compression]))
            if known and (known.diff_id, known.unpacked_size, known.start) == (diff_id, size, first):
                return known if self._blob(known.digest).is_file() else None
        return None

    def complete(self, folder: Path, send: Callable[[], None]) -> dict[str, Layer]:
        """Fill `folder` with blobs: the expected layers' that are kept as an engine had made them, and what is sent.

        `send` adds what is missing, and believes what is there, which is hashed meanwhile; if some of that turns out
        to be damaged, it is removed, and `send` is called again. Returns the layers out of the cache, by digest.
        """
        lent = [each for each in self._stored() if self._lend(each, folder / _hex(each.digest))]
        with ThreadPoolExecutor(1) as pool:
            proving = pool.submit(lambda: [each for each in lent if self._prove(each, folder / _hex(each.digest))])
            send()
            proven = proving.result()
        if len(proven) < len(lent):
            send()
        return {each.digest: each.layer for each in proven}

    def distrust(self) -> None:
        """Believe nothing from now on, after a CacheMissError; what is read then is entered anew."""
        self.believed = False
        self._new.clear()

    def take(self, known: KnownLayer, target: Path) -> bool:
        """Give the blob the further name `target`, and say whether it is what it should be; a bad one is removed."""
        return self._lend(known, target) and self._prove(known, target)

    def unpacked(self, digest: str) -> Layer | None:
        """What the blob of this digest was found to hold, if it was unpacked before."""
        known = self._read(self._proof(digest))
        return known.layer if known and known.digest == digest else None

    def note(self, layer: Layer, start: Block = b"", compression: Compression | None = None) -> None:
        """Remember a layer until `keep`; with `compression`, it is one that was compressed here."""
        known = KnownLayer(
            media_type=layer.media_type,
            digest=layer.digest,
            size=layer.size,
            diff_id=layer.diff_id,
            unpacked_size=layer.unpacked_size,
            start=_digest(start) if start else "",
        )
        self._new.append((known, compression))

    def forget(self) -> None:
        """Enter nothing of what was noted so far."""
        self._new.clear()

    def keep(self, spool: Path, read_back: Collection[str]) -> None:
        """Enter what was noted of the blobs with these digests; a disk that is full only leaves the cache smaller."""
        with suppress(OSError, PreconditionError):
            for known, compression in (each for each in self._new if each[0].digest in read_back):
                self._keep_blob(spool / _hex(known.digest), known.digest)
                encoding = _ENCODINGS[compression] if compression else _AS_IT_CAME
                write_record(self._by_content(known.diff_id, encoding), known)
                if not compression:
                    write_record(self._proof(known.digest), known)
            self._prune()

    def _stored(self) -> Iterator[KnownLayer]:
        for diff_id in self.expected if self.believed else ():
            known = self._read(self._by_content(diff_id, _AS_IT_CAME))
            if known and known.diff_id == diff_id:
                yield known

    def _lend(self, known: KnownLayer, target: Path) -> bool:
        """Give the blob the further name `target`, unproven; False if it is gone."""
        try:
            _link(self._blob(known.digest), target)
        except FileNotFoundError:
            return False
        return True

    def _prove(self, known: KnownLayer, target: Path) -> bool:
        """Whether the blob that was lent to `target` is what it should be; a bad one is removed, there and here."""
        blob = self._blob(known.digest)
        with target.open("rb") as file:
            found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if found != known.digest:
            target.unlink()
            blob.unlink(missing_ok=True)
            return False
        with suppress(FileNotFoundError):  # another run has made room meanwhile
            os.utime(blob)
        return True

    def _keep_blob(self, source: Path, digest: str) -> None:
        blob = self._blob(digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=blob.parent, prefix=".") as folder:
            _link(source, Path(folder, "blob"))
            Path(folder, "blob").replace(blob)

    def _prune(self) -> None:
        """Remove what was not used for longest, down to the limit."""
        files = [(path.stat(), path) for path in self.folder.rglob("*") if path.is_file()]
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda each: each[0].st_mtime):
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size

    def _read(self, path: Path) -> KnownLayer | None:
        try:
            return read_record(path, KnownLayer)
        except (PreconditionError, OSError):
            path.unlink(missing_ok=True)
            return None

    def _blob(self, digest: str) -> Path:
        return self.folder / "blobs" / _hex(digest)

    def _by_content(self, diff_id: str, encoding: str) -> Path:
        return self.folder / "compressed" / f"{_hex(diff_id)}.{encoding}.json"

    def _proof(self, digest: str) -> Path:
        return self.folder / "unpacked" / f"{_hex(digest)}.json"


def _link(source: Path, target: Path) -> None:
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
