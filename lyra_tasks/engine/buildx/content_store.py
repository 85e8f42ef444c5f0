"""Read images from the content store of a private engine, as a `docker save` would send them.

For 30 MB, the engine needs half a second of a processor. The files in its store are the same bytes, named by digest.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from lyra_tasks.digests import DIGEST_PATTERN, canonical_json, hex_part
from lyra_tasks.documents import parse_json_object, read_document, translate_failures
from lyra_tasks.engine.objects.volumes import ChunkReader
from lyra_tasks.errors import PreconditionError

_DIGEST = re.compile(DIGEST_PATTERN)
_CHUNK_BYTES = 1 << 20
_MAX_NESTING = 4


def open_saved_blobs(directory: Path, images: Sequence[str], stack: ExitStack) -> IO[bytes] | None:
    """Return a tar stream with the OCI layout of images, given by their digests; `stack` closes its files.

    Return None if something of them is not in the directory of blobs, or cannot be read: the engine knows why.
    """
    files: dict[str, IO[bytes]] = {}
    try:
        with translate_failures(PreconditionError):
            descriptors = [_open_image(directory, {"digest": image}, files, stack) for image in images]
    except (OSError, PreconditionError):
        return None
    documents = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": {"schemaVersion": 2, "manifests": descriptors},
    }
    return io.BufferedReader(ChunkReader(_iter_tar(documents, files)), _CHUNK_BYTES)


def _open_image(
    directory: Path, descriptor: dict[str, Any], files: dict[str, IO[bytes]], stack: ExitStack, depth: int = 0
) -> dict[str, Any]:
    """Open the blobs of an index, or of a manifest; return its whole descriptor."""
    digest = str(descriptor["digest"])
    path = _blob_path(directory, digest)
    document = parse_json_object(read_document(path))
    _open_blob(directory, digest, files, stack)
    for child in document.get("manifests", ()):
        # the engine has only those of the platforms that were pulled
        if depth < _MAX_NESTING and _blob_path(directory, child["digest"]).is_file():
            _open_image(directory, child, files, stack, depth + 1)
    if "manifests" not in document:
        for blob in (document["config"], *document["layers"]):
            _open_blob(directory, blob["digest"], files, stack)
    return {"mediaType": document["mediaType"], "digest": digest, "size": path.stat().st_size}


def _open_blob(directory: Path, digest: str, files: dict[str, IO[bytes]], stack: ExitStack) -> None:
    path = _blob_path(directory, digest)
    if path.name not in files:  # an open file stays readable if the engine removes the image
        files[path.name] = stack.enter_context(path.open("rb"))


def _blob_path(directory: Path, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise PreconditionError(f"{digest!r} is not a digest")
    return directory / hex_part(digest)


def _iter_tar(documents: dict[str, Any], files: dict[str, IO[bytes]]) -> Iterator[bytes]:
    for name, document in documents.items():
        data = canonical_json(document).encode()
        yield _header(name, len(data)) + data + _padding(len(data))
    for name, file in files.items():
        size = os.fstat(file.fileno()).st_size
        yield _header(f"blobs/sha256/{name}", size)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
        if padding := _padding(size):
            yield padding
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
