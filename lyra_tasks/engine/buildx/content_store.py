"""Read images from the content store of a private engine, whose files are named by their digests.

A `docker save` sends the same bytes, but needs half a second of a processor for 30 MB; an export by Buildx, too.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def find_blobs(directory: Path, images: Iterable[str]) -> list[Path] | None:
    """Return the files of images, given by their digests: indexes, manifests, configs and layers.

    Return None if a document is not in the directory of blobs, or cannot be read: the engine knows why.
    """
    found = _find_images(directory, images)
    return found and list(found[1].values())


def open_saved_blobs(directory: Path, images: Sequence[str], stack: ExitStack) -> IO[bytes] | None:
    """Return a tar stream with the OCI layout of images, given by their digests; `stack` closes its files.

    Return None if something of them cannot be read, as `find_blobs` does.
    """
    found = _find_images(directory, images)
    if found is None:
        return None
    descriptors, paths = found
    try:  # an open file stays readable if the engine removes the image
        files = {name: stack.enter_context(path.open("rb")) for name, path in paths.items()}
    except OSError:
        return None
    documents = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": {"schemaVersion": 2, "manifests": descriptors},
    }
    return io.BufferedReader(ChunkReader(_iter_tar(documents, files)), _CHUNK_BYTES)


def _find_images(directory: Path, images: Iterable[str]) -> tuple[list[dict[str, Any]], dict[str, Path]] | None:
    """Return the descriptors of images and all their files by name, or None if a document cannot be read."""
    paths: dict[str, Path] = {}
    try:
        with translate_failures(PreconditionError):
            return [_add_image(directory, {"digest": image}, paths) for image in images], paths
    except (OSError, PreconditionError):
        return None


def _add_image(directory: Path, descriptor: dict[str, Any], paths: dict[str, Path], depth: int = 0) -> dict[str, Any]:
    """Add the files of an index, or of a manifest; return its whole descriptor."""
    path = _blob_path(directory, str(descriptor["digest"]))
    document = parse_json_object(read_document(path))
    paths[path.name] = path
    for child in document.get("manifests", ()):
        # the engine has only those of the platforms that were pulled
        if depth < _MAX_NESTING and _blob_path(directory, child["digest"]).is_file():
            _add_image(directory, child, paths, depth + 1)
    if "manifests" not in document:
        for blob in (document["config"], *document["layers"]):
            blob_path = _blob_path(directory, blob["digest"])
            paths[blob_path.name] = blob_path
    return {"mediaType": document["mediaType"], "digest": descriptor["digest"], "size": path.stat().st_size}


def _blob_path(directory: Path, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise PreconditionError(f"{digest!r} is not a digest")
    return directory / hex_part(digest)


def _iter_tar(documents: Mapping[str, Any], files: Mapping[str, IO[bytes]]) -> Iterator[bytes]:
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
