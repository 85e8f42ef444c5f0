"""Read the stream of a `docker save`.

It is requested in HTTP/1.0, where the body simply follows the headers. In HTTP/1.1 the engine sends chunks of 32 KiB,
and joining 20,000 of them costs more than hashing their content.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from typing import IO, TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from lyra_tasks import console
from lyra_tasks.documents import parse_foreign_json, translate_failures
from lyra_tasks.engine.buildx.content_store import open_saved_blobs
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_BLOCK_BYTES = 1 << 20
_PLATFORM_API_VERSION = (1, 48)
_MAX_MESSAGE_BYTES = 1 << 16


class SaveStream:
    """The body of a save, readable like a file; a live line shows how many bytes were read."""

    def __init__(self, response: HTTPResponse | IO[bytes]) -> None:
        self._response = response

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes; raise IncompleteRead if the stream ends before."""
        block = self._response.read(size)
        if len(block) < size:
            raise IncompleteRead(block, size - len(block))
        console.count_bytes(size)
        return block

    def skip(self, size: int) -> int:
        """Skip `size` bytes, or fewer at the end of the stream; return how many."""
        remaining = size
        while remaining and (block := self._response.read(min(remaining, _BLOCK_BYTES))):
            remaining -= len(block)
            console.count_bytes(len(block))
        return size - remaining


@contextmanager
def open_save_stream(engine: Engine, images: Sequence[str], *, platform: str = "") -> Iterator[SaveStream]:
    """Save several images at once; the stream has each shared layer once.

    `platform` selects one of an index, if the engine can do that; others save what they have. What a private engine has
    on disk is read from there.
    """
    with ExitStack() as files:
        blobs = open_saved_blobs(engine.blobs, images, files) if engine.blobs is not None else None
        if blobs is not None:
            yield SaveStream(blobs)
            return
    query = urlencode({"names": list(images)}, doseq=True)
    if platform and engine.facts.api >= _PLATFORM_API_VERSION:
        query += f"&{urlencode({'platform': json.dumps(_describe_platform(platform))})}"
    with translate_errors("saving images"), closing(_UnixHTTPConnection(urlsplit(engine.host).path)) as connection:
        connection.request("GET", f"/v{engine.stream_api.api_version}/images/get?{query}")
        with connection.getresponse() as response:
            _require_ok(response)
            yield SaveStream(response)


def _describe_platform(platform: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))


class _UnixHTTPConnection(HTTPConnection):
    """HTTP/1.0 over a Unix socket."""

    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _require_ok(response: HTTPResponse) -> None:
    from docker.errors import APIError

    if response.status != 200:
        message = response.read(_MAX_MESSAGE_BYTES).decode(errors="replace")
        with suppress(PreconditionError), translate_failures(PreconditionError):
            message = str(parse_foreign_json(message)["message"])
        raise APIError("The engine refused to save the images", explanation=message)
