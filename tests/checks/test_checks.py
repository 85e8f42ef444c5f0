"""Checks by themselves: what takes too long, what is no answer, what a log holds."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lyra_tasks.checks.commands import _read_failures, build_address_variables
from lyra_tasks.checks.kinds import check_service
from lyra_tasks.checks.results import merge_logs
from lyra_tasks.config.models import Service, Test
from lyra_tasks.engine.client.monitoring import LogFollower
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.lab import RunningService


@contextmanager
def dripping(head: bytes, *, times: int = 1000) -> Iterator[tuple[str, int]]:
    """A web server that begins to answer, and then sends a byte now and then, for as long as somebody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            with suppress(OSError):
                client, _ = server.accept()
                with client:
                    client.recv(1 << 16)
                    client.sendall(head)
                    for _ in range(times):
                        time.sleep(0.05)
                        client.sendall(b".")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()


def test_an_answer_that_never_ends_takes_no_longer_than_its_check_may() -> None:
    test = Test.model_validate({"name": "events", "service": "web", "http": "GET /", "timeout": "500ms"})
    with dripping(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n") as address:
        service: Any = SimpleNamespace(http_address=lambda: address, planned=SimpleNamespace(masked=()))
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            check_service(service, test)
    assert time.monotonic() - began < 5


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    test = Test.model_validate({"name": "page", "service": "web", "http": "GET /", "body": "."})
    with dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", times=3) as address:
        service: Any = SimpleNamespace(http_address=lambda: address, planned=SimpleNamespace(masked=()))
        with pytest.raises(http.client.IncompleteRead):
            check_service(service, test)


def test_a_port_that_the_engine_does_not_publish_any_more_is_named() -> None:
    planned: Any = SimpleNamespace(
        name="seed", service=Service.model_validate({"image": "web", "ports": {"http": 8080}, "oneshot": True})
    )
    nothing: Any = None
    service = RunningService(planned, nothing, "id", nothing, nothing, nothing)
    with pytest.raises(PreconditionError, match="seed publishes no port http"):
        service.address("http")
    assert build_address_variables({"seed": service}) == {}


def test_a_report_that_is_no_report_is_a_fault_of_the_check(tmp_path: Path) -> None:
    report = tmp_path / "structure.xml"
    report.write_text("<testsuites><testsuite>")
    with pytest.raises(PreconditionError, match="cannot be read"):
        _read_failures(report)


def test_a_line_of_a_log_ends_where_a_line_ends(tmp_path: Path) -> None:
    line = '2026-11-24T12:00:00.000Z out {"text": "one\u2028two\u0085three"}'
    path = tmp_path / "web.log"
    path.write_text(f"{line}\n2026-11-24T12:00:01.000Z err begun", encoding="utf-8")
    nothing: Any = None
    assert LogFollower(nothing, "id", path).lines() == [line, "2026-11-24T12:00:01.000Z err begun"]
    path.write_text(f"{line}\n", encoding="utf-8")
    merge_logs(tmp_path, ["web"])
    assert (tmp_path / "_all.log").read_text(encoding="utf-8") == line.replace("Z out", "Z web out") + "\n"


def test_output_without_line_ends_is_written_in_parts_that_hold_no_secret(tmp_path: Path) -> None:
    nothing: Any = None
    secret, size = "known-to-nobody", 1 << 20
    path = tmp_path / "web.log"
    follower = LogFollower(nothing, "id", path, (secret,))
    printed = (b"." * (size - 8) + secret.encode() + b"." * size + secret.encode()[:9]) + secret.encode()[9:] + b"."
    chunks = [printed[place : place + 65536] for place in range(0, len(printed), 65536)]
    follower._follow((chunk, None) for chunk in chunks)
    lines = [line.split(" ", 2)[2] for line in follower.lines()]
    assert len(lines) > 1 and max(map(len, lines)) <= size + 65536
    assert "".join(lines) == printed.decode().replace(secret, "***")


def test_a_log_that_does_not_end_is_kept_up_to_a_size_and_says_so(tmp_path: Path) -> None:
    nothing: Any = None
    follower = LogFollower(nothing, "id", tmp_path / "web.log", max_bytes=1000)
    follower._follow((None, b"all over again\n" * 100) for _ in range(100))
    *lines, last = follower.text().split("\n")
    assert lines == ["all over again"] * (1000 // len("all over again\n"))
    assert last == "lyra: more than 1.0 kB were printed; the rest is not kept"
