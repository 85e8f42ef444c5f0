"""The timeout of a check covers the whole exchange, whatever a service sends and however slowly."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from lyra_tasks.checks.kinds import check_service
from lyra_tasks.config.models import Test
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.http_client import accepts_tcp_connection, open_http_response
from lyra_tasks.registry import client as registry

TRICKLES = {
    "the status line": (b"", b"H"),
    "a header": (b"HTTP/1.1 200 OK\r\nX-Name: ", b"a"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a chunk size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n.\r\n"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\n", b"A: b\r\n"),
    "the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"."),
    "a body without length": (b"HTTP/1.1 200 OK\r\n\r\n", b"."),
}


@contextmanager
def trickling_server(head: bytes, drop: bytes) -> Iterator[tuple[str, int]]:
    """Start a server that sends the head at once, and then drops for as long as the client listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=trickle, args=(client,), daemon=True).start()

        def trickle(client: socket.socket) -> None:
            with suppress(OSError), client:
                client.recv(1 << 16)
                client.sendall(head)
                for _ in range(200):
                    time.sleep(0.05)
                    client.sendall(drop)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()


def target_at(address: tuple[str, int]) -> Any:
    """Return a service at this address."""
    return SimpleNamespace(
        http_address=lambda: address,
        address=lambda _port: address,
        secret_values=(),
        environment={},
        cancellation=Cancellation(),
        engine=SimpleNamespace(may_proxy_ports=True),
    )


@pytest.mark.parametrize("name", TRICKLES)
def test_http_check_ends_in_time_while_service_trickles(name: str) -> None:
    test = Test.model_validate({"name": "page", "service": "web", "http": "GET /", "timeout": "200ms"})
    with trickling_server(*TRICKLES[name]) as address:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=r"no complete response within 0\.2 s"):
            check_service(target_at(address), test)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", ["the status line", "a header", "100 Continue"])
def test_http_probe_ends_in_time_while_service_trickles(name: str) -> None:
    with trickling_server(*TRICKLES[name]) as address:
        started = time.monotonic()
        with pytest.raises(TimeoutError), open_http_response(address, "GET", "/", 0.2):
            pass
    assert time.monotonic() - started < 2


def test_http_check_ends_in_time_while_request_is_not_read() -> None:
    test = Test.model_validate(
        {"name": "page", "service": "web", "http": "POST /", "send": "x" * (16 << 20), "timeout": "200ms"}
    )
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            check_service(target_at(server.getsockname()), test)
    assert time.monotonic() - started < 2


def test_tcp_check_ends_in_time_while_nobody_accepts() -> None:
    test = Test.model_validate({"name": "port", "service": "web", "tcp": 8080, "timeout": "200ms"})
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for client in (first, second):  # fill the backlog, so that the kernel drops the next connection
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        started = time.monotonic()
        problem = check_service(target_at(server.getsockname()), test)
    assert problem.startswith("nothing listens on port 8080 within 0.2 s, or only on 127.0.0.1")
    assert time.monotonic() - started < 0.7


def test_connection_through_proxy_must_stay_open_for_longer() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            for _ in range(2):  # as a proxy does that finds nobody behind it
                client, _ = server.accept()
                with client:
                    time.sleep(0.1)

        threading.Thread(target=serve, daemon=True).start()
        assert not accepts_tcp_connection(server.getsockname(), 5.0, may_be_proxy=True)
        started = time.monotonic()
        assert accepts_tcp_connection(server.getsockname(), 5.0, may_be_proxy=False)
        assert time.monotonic() - started < 0.09


def test_http_check_encodes_path_and_header() -> None:
    received: list[bytes] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                received.append(client.recv(1 << 16))
                client.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        address = server.getsockname()
        with open_http_response(address, "GET", "/grüße?a=%20&b=ж", 5, headers={"X-Name": "ж"}) as response:
            assert response.status == 204
    assert received[0].startswith(b"GET /gr%C3%BC%C3%9Fe?a=%20&b=%D0%B6 HTTP/1.1")
    assert "X-Name: ж\r\n".encode() in received[0]


def test_registry_request_ends_in_time_while_registry_trickles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_EXCHANGE_TIMEOUT_S", 0.2)
    with trickling_server(*TRICKLES["a header"]) as (host, port):
        started = time.monotonic()
        with pytest.raises(PreconditionError, match=r"did not answer within 0\.2 s"):
            registry.open_repository(f"{host}:{port}", "team/app")
    assert time.monotonic() - started < 2
