"""Remember the scans of layers below a project's own: those of its bases, which nearly every build has again."""

from __future__ import annotations

import base64
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field

from lyra_tasks.digests import hex_part
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import mark_used
from lyra_tasks.images.scan.layers import ScannedLayer
from lyra_tasks.images.stream.packages import LayerPackages
from lyra_tasks.records.record import Record, read_valid_record, write_record


class LayerScan(Record):
    """A layer in which no secret was found, as scanned for the question `query_digest`.

    `file_hashes` are 8 bytes each, in base64.
    """

    schema_: Literal["lyra.layer-scan/2"] = Field(default="lyra.layer-scan/2", alias="schema")
    query_digest: str
    blob_digest: str
    diff_id: str
    size: int
    packages: LayerPackages
    setuid_files: dict[str, int]
    directory_owners: dict[str, str]
    links: dict[str, str]
    programs_by_architecture: dict[str, int]
    file_hashes: str


class LayerCache:
    """The scans of layers in a directory, for one question."""

    def __init__(self, directory: Path, query_digest: str) -> None:
        self._directory, self._query_digest = directory, query_digest

    def load(self, blob_digest: str) -> ScannedLayer | None:
        """Return the scan of the layer in this blob, or None."""
        path = self._path(blob_digest)
        mark_used(path)
        scan = read_valid_record(path, LayerScan)
        if scan is None or (scan.query_digest, scan.blob_digest) != (self._query_digest, blob_digest):
            return None
        hashes = array("Q")
        try:
            hashes.frombytes(base64.b64decode(scan.file_hashes, validate=True))
        except ValueError:
            return None
        return ScannedLayer(
            scan.diff_id,
            scan.packages,
            setuid_files=scan.setuid_files,
            directory_owners=scan.directory_owners,
            links=scan.links,
            programs_by_architecture=scan.programs_by_architecture,
            file_hashes=set(hashes),
            blob_digest=blob_digest,
            size=scan.size,
            is_cached=True,
        )

    def save(self, layer: ScannedLayer) -> None:
        """Remember the scan of a layer, if there is space; none that names a place of a secret."""
        if layer.is_cached or not layer.blob_digest or layer.secret_matches:
            return
        scan = LayerScan(
            query_digest=self._query_digest,
            blob_digest=layer.blob_digest,
            diff_id=layer.diff_id,
            size=layer.size,
            packages=layer.packages,
            setuid_files=layer.setuid_files,
            directory_owners=layer.directory_owners,
            links=layer.links,
            programs_by_architecture=layer.programs_by_architecture,
            file_hashes=base64.b64encode(array("Q", sorted(layer.file_hashes)).tobytes()).decode(),
        )
        with suppress(OSError, PreconditionError):
            write_record(self._path(layer.blob_digest), scan)

    def _path(self, blob_digest: str) -> Path:
        return self._directory / f"{hex_part(blob_digest)}.json"
