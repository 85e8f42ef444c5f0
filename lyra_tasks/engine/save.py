"""The stream of a `docker save`, read as a file is read.

Asked for in HTTP/1.0, where an answer is simply what follows its head: in HTTP/1.1 the engine cuts it into pieces of
32 KiB, and putting 20,000 of these together again costs more than to hash what is in them.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from lyra_tasks.engine.faults import engine_faults

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_BLOCK = 1 << 20


class SaveStream:
    """What the engine saves, as it comes; `counted` is told how many bytes came."""

    def __init__(self, answer: HTTPResponse, counted: Callable[[int], object] | None) -> None:
        self._answer = answer
        self._counted = counted

    def read(self, size: int) -> bytes:
        """The next `size` bytes; IncompleteRead if the engine ends before."""
        block = self._answer.read(size)
        if len(block) < size:
            raise IncompleteRead(block, size - len(block))
        if self._counted:
            self._counted(size)
        return block

    def skip(self, size: int) -> int:
        """Go `size` bytes on, or to the end; how many there were."""
        left = size
        while left and (block := self._answer.read(min(left, _BLOCK))):
            left -= len(block)
        return size - left


@contextmanager
def saved(
    engine: Engine, images: Sequence[str], counted: Callable[[int], object] | None = None
) -> Iterator[SaveStream]:
    """The stream of a `docker save` of several images at once; layers that they share come once."""
    query = urlencode({"names": list(images)}, doseq=True)
    with engine_faults("saving images"), closing(_Plain(urlsplit(engine.host).path)) as connection:
        connection.request("GET", f"/v{engine.streams.api_version}/images/get?{query}")
        with connection.getresponse() as answer:
            _require_ok(answer)
            yield SaveStream(answer, counted)


class _Plain(HTTPConnection):
    """HTTP/1.0 over a Unix socket."""

    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _require_ok(answer: HTTPResponse) -> None:
    from docker.errors import APIError

    if answer.status != 200:
        said = answer.read().decode(errors="replace")
        with suppress(ValueError, KeyError, TypeError):
            said = str(json.loads(said)["message"])
        raise APIError("the engine refused a save", explanation=said)
