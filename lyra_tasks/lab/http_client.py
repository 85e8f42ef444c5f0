"""Send requests and open connections to a service, each with one deadline for the whole exchange."""

from __future__ import annotations

import errno
import http.client
import io
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

from lyra_tasks.errors import LyraError

_URL_CHARACTERS = "".join(map(chr, range(33, 127)))
_STAYS_OPEN_S = 0.02
_STAYS_OPEN_AT_PROXY_S = 0.2


@contextmanager
def open_http_response(
    address: tuple[str, int],
    method: str,
    path: str,
    timeout: float,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """Send one HTTP request over a new connection and yield the response, whose body is read in the block.

    As other clients do, the path is percent-encoded, and values of headers are sent as UTF-8.

    Raises:
        TimeoutError: The response was not complete `timeout` seconds after the call, however the service sends it.
        OSError: There is no connection, or it broke.
        HTTPException: The response is not valid HTTP.
    """
    connection = _Connection(address, time.monotonic() + timeout)
    try:
        encoded_headers = {name: value.encode() for name, value in (headers or {}).items()}
        connection.request(method, quote(path, safe=_URL_CHARACTERS), body=body, headers=encoded_headers)
        with connection.getresponse() as response:
            yield response
    except TimeoutError as error:
        raise TimeoutError(f"no complete response within {timeout:g} s") from error
    except (OSError, LyraError, http.client.HTTPException):
        raise
    except Exception as error:
        raise http.client.HTTPException(f"not valid HTTP ({type(error).__name__})") from error
    finally:
        connection.close()


def accepts_tcp_connection(address: tuple[str, int], timeout: float, *, may_be_proxy: bool) -> bool:
    """Return whether a TCP connection is accepted within `timeout` seconds and stays open.

    For a port that nothing listens on, a proxy of the engine accepts the connection, and closes it as soon as it knows.
    """
    try:
        with socket.create_connection(address, timeout=timeout) as connection:
            connection.settimeout(_STAYS_OPEN_AT_PROXY_S if may_be_proxy else _STAYS_OPEN_S)
            try:
                return connection.recv(1) != b""
            except TimeoutError:
                return True
    except OSError:
        return False


def is_unreachable(address: tuple[str, int], timeout: float) -> bool:
    """Return whether nothing answers a TCP connection, not even a refusal: a firewall drops it, or it has no route."""
    try:
        socket.create_connection(address, timeout=timeout).close()
    except OSError as error:
        return isinstance(error, TimeoutError) or error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH}
    return False


class _Connection(http.client.HTTPConnection):
    """A connection that is given up at its deadline, in whatever state the exchange is."""

    def __init__(self, address: tuple[str, int], deadline: float) -> None:
        super().__init__(*address)
        self.deadline = deadline
        self.response_class = partial(_Response, deadline=deadline)  # type: ignore[assignment]

    def connect(self) -> None:
        self.timeout = _seconds_until(self.deadline)
        super().connect()

    def send(self, data: Any) -> None:
        if self.sock is not None:  # a timeout of `sendall` covers all of it
            self.sock.settimeout(_seconds_until(self.deadline))
        super().send(data)


class _Response(http.client.HTTPResponse):
    """A response whose status line, headers, chunks, trailers and body are read until a deadline."""

    def __init__(self, connection: socket.socket, *arguments: Any, deadline: float, **options: Any) -> None:
        super().__init__(connection, *arguments, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_DeadlineReader(connection, deadline))


class _DeadlineReader(io.RawIOBase):
    """The input of a connection until a deadline; the timeout of a socket begins anew with each byte."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._raw = connection.makefile("rb", buffering=0)  # keeps the connection open while the response is read
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(_seconds_until(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _seconds_until(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds
