"""Checks of services: timeouts, incomplete responses, logs."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lyra_tasks.checks.commands import _read_failures, build_address_variables
from lyra_tasks.checks.kinds import check_service, evaluate_check
from lyra_tasks.config.models import Service, Test
from lyra_tasks.engine.client.monitoring import LogFollower
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.service import CheckTarget
from lyra_tasks.records.evidence import CheckResult
from lyra_tasks.records.service_logs import merge_logs, read_last_lines


@contextmanager
def slow_server(head: bytes, *, times: int = 1000) -> Iterator[tuple[str, int]]:
    """Start a web server that sends the head of a response and then single bytes, as long as the client listens."""
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


def test_http_endless_response_times_out() -> None:
    test = Test.model_validate({"name": "events", "service": "web", "http": "GET /", "timeout": "500ms"})
    with slow_server(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n") as address:
        target: Any = SimpleNamespace(http_address=lambda: address, secret_values=())
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            check_service(target, test)
    assert time.monotonic() - started < 5


def test_http_incomplete_response_raises() -> None:
    test = Test.model_validate({"name": "page", "service": "web", "http": "GET /", "body": "."})
    with slow_server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", times=3) as address:
        target: Any = SimpleNamespace(http_address=lambda: address, secret_values=())
        with pytest.raises(http.client.IncompleteRead):
            check_service(target, test)


def test_address_of_unpublished_port_is_refused() -> None:
    config = Service.model_validate({"image": "web", "ports": {"http": 8080}, "oneshot": True})
    unused: Any = None
    target = CheckTarget("seed", config, {}, (), unused, "id", {}, unused, unused)
    with pytest.raises(PreconditionError, match="seed does not publish port http"):
        target.address("http")
    assert build_address_variables([target]) == {}


def test_structure_report_invalid_xml_is_refused(tmp_path: Path) -> None:
    report = tmp_path / "structure.xml"
    report.write_text("<testsuites><testsuite>")
    with pytest.raises(PreconditionError, match="not valid XML"):
        _read_failures(report)


def test_log_lines_end_only_at_newlines(tmp_path: Path) -> None:
    line = '2026-11-24T12:00:00.000Z out {"text": "one\u2028two\u0085three"}'
    path = tmp_path / "web.log"
    path.write_text(f"{line}\n2026-11-24T12:00:01.000Z err begun", encoding="utf-8")
    nothing: Any = None
    assert LogFollower(nothing, "id", path).last_lines(5) == [line, "2026-11-24T12:00:01.000Z err begun"]
    path.write_text(f"{line}\n", encoding="utf-8")
    merge_logs(tmp_path, ["web"])
    assert (tmp_path / "_all.log").read_text(encoding="utf-8") == line.replace("Z out", "Z web out") + "\n"


def test_log_without_newlines_is_split_and_redacted(tmp_path: Path) -> None:
    nothing: Any = None
    secret, size = "known-to-nobody", 1 << 20
    path = tmp_path / "web.log"
    follower = LogFollower(nothing, "id", path, (secret,))
    printed = (b"." * (size - 8) + secret.encode() + b"." * size + secret.encode()[:9]) + secret.encode()[9:] + b"."
    chunks = [printed[start : start + 65536] for start in range(0, len(printed), 65536)]
    follower._follow((chunk, None) for chunk in chunks)
    lines = list(follower.open_reader()())
    assert len(lines) > 1 and max(map(len, lines)) <= size + 65536
    assert "".join(lines) == printed.decode().replace(secret, "***")


@pytest.mark.parametrize("line", [b"all over again\n", b"\n", b"\xff\xff\n", b"\x1b\x07\n", b"x" * 997])
def test_log_endless_output_is_truncated_with_notice(line: bytes, tmp_path: Path) -> None:
    nothing: Any = None
    path = tmp_path / "web.log"
    follower = LogFollower(nothing, "id", path, max_bytes=100_000)
    follower._follow((None, line * 100) for _ in range(1000))
    *_, last = follower.open_reader()()
    assert last == "lyra: log truncated after 97.7 KiB"
    assert path.stat().st_size < 100_200


@contextmanager
def answering_server(answer: bytes, requests: list[bytes]) -> Iterator[tuple[str, int]]:
    """Start a web server that keeps what one client sends and answers with these bytes."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            with suppress(OSError):
                client, _ = server.accept()
                with client:
                    requests.append(client.recv(1 << 16))
                    client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()


def run_http_check(answer: bytes, requests: list[bytes], **keys: Any) -> CheckResult:
    test = Test.model_validate({"name": "page", "service": "web", "http": "GET /"} | keys)
    with answering_server(answer, requests) as address:
        target: Any = SimpleNamespace(http_address=lambda: address, secret_values=(), environment={})
        return evaluate_check(test, lambda: check_service(target, test), ())


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"{" * 5000, b"1" * 5000, b"[[1, 2", b"\xff"], ids=lambda body: body[:4]
)
def test_http_unreadable_json_fails_check(body: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    result = run_http_check(answer, [], json={"status": "ok"})
    assert (result.outcome, result.message.partition(";")[0]) == ("failed", "the body is not JSON")


def test_http_request_is_sent_as_other_clients_do() -> None:
    requests: list[bytes] = []
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    result = run_http_check(answer, requests, http="GET /grüße?q=100%25&x=[1]#é", headers={"X-Name": "☃ ü"})
    assert result.outcome == "passed"
    assert requests[0].startswith(b"GET /gr%C3%BC%C3%9Fe?q=100%25&x=[1]#%C3%A9 HTTP/1.1\r\n")
    assert "X-Name: ☃ ü\r\n".encode() in requests[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 100,
        b"HTTP/1.1 " + b"9" * 5000,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200,
        b"HTTP/1.1 200 OK\r\n\xff",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
    ],
    ids=lambda answer: answer[:12] + answer[-5:],
)
def test_http_invalid_answer_is_a_result(answer: bytes) -> None:
    assert run_http_check(answer, [], body="hello").outcome in {"error", "failed"}


def test_growing_log_is_read_where_the_reader_left_off(tmp_path: Path) -> None:
    nothing: Any = None
    path = tmp_path / "web.log"
    read_lines = LogFollower(nothing, "id", path).open_reader()
    assert list(read_lines()) == []
    with path.open("w", buffering=1) as file:
        file.write("T out one\nT err two words\nT out thr")
        file.flush()
        assert list(read_lines()) == ["one", "two words"]
        file.write("ee\n")
        assert list(read_lines()) == ["three"]
        assert list(read_lines()) == []


def test_last_lines_of_huge_log_are_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    path.write_text("".join(f"T out {number:1000}\n" for number in range(2000)))
    assert [line.split()[-1] for line in read_last_lines(path, 3)] == ["1997", "1998", "1999"]
    path.write_text("T out one\n")
    assert read_last_lines(path, 3) == ["T out one"]


def test_logs_are_merged_in_little_memory(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        with (tmp_path / f"{name}.log").open("w") as file:
            file.writelines(
                f"2026-01-01T00:{number // 60000:02}:{number % 60000 / 1000:06.3f}Z out \n" for number in range(100_000)
            )
    tracemalloc.start()
    try:
        merge_logs(tmp_path, ["a", "b", "c", "missing"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    lines = (tmp_path / "_all.log").read_text().splitlines()
    assert len(lines) == 300_000 and lines == sorted(lines)
    assert peak < 2 << 20


def test_log_check_matches_lines_of_any_age() -> None:
    def check(pattern: str, lines: list[str]) -> str:
        test = Test.model_validate({"name": "log", "service": "web", "log": pattern, "timeout": "300ms"})
        target: Any = SimpleNamespace(open_log=lambda: lambda: iter(lines), cancellation=Cancellation())
        return check_service(target, test)

    assert check("^ready$", ["starting", "ready", "GET /"]) == ""
    assert check("starting.*ready", ["starting", "ready"]) == "no line matches 'starting.*ready' within 0.3 s"
