"""The demo's two services: their own tests, and both together on the loopback interface."""

from __future__ import annotations

import http.client
import importlib
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DOCKERFILES = Path(__file__).parents[2] / "dockerfiles"
TOKEN = "only-for-tests"


@pytest.mark.parametrize("service", ["counter", "web"])
def test_service_unit_tests_pass(service: str) -> None:
    arguments = ["-B", "-W", "error", "-m", "unittest", "discover", "--start-directory", "tests"]
    result = subprocess.run([sys.executable, *arguments], cwd=DOCKERFILES / service, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Ran 0 tests" not in result.stderr


@pytest.mark.parametrize(("service", "package"), [("counter", "counter"), ("web", "guestbook")])
def test_service_reports_start_error_and_exits(service: str, package: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        f" import {package}.__main__ as service; service.ADDRESS = ('256.0.0.1', 1); sys.exit(service.main())"
    )
    arguments = [sys.executable, "-B", "-c", code, str(DOCKERFILES / service)]
    result = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stderr) == (2, "")
    assert json.loads(result.stdout)["event"] == "cannot start"


@dataclass(frozen=True)
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: str


@dataclass(frozen=True)
class Guestbook:
    """The front service, and the counter behind it."""

    port: int
    counter: Any

    def request(self, method: str, path: str, body: str | None = None, **headers: str) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read().decode())
        finally:
            connection.close()


@contextmanager
def serving(server: Any) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def guestbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guestbook]:
    """Start both services as their `__main__` does, on loopback ports."""
    for service in ("counter", "web"):
        monkeypatch.syspath_prepend(DOCKERFILES / service)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    counter, store = importlib.import_module("counter.server"), importlib.import_module("counter.store")
    front, settings = importlib.import_module("guestbook.server"), importlib.import_module("guestbook.settings")
    (tmp_path / "key").write_text("a key that is long enough")
    counter_server = counter.CounterServer(("127.0.0.1", 0), store.HitStore(tmp_path / "hits"))
    with serving(counter_server) as counter_port:
        environment = {"ADMIN_TOKEN": TOKEN, "COUNTER_URL": f"http://127.0.0.1:{counter_port}"}
        loaded_settings = settings.load_settings(
            environment, site=DOCKERFILES / "web/guestbook.toml", key=tmp_path / "key", data=tmp_path
        )
        with serving(front.GuestbookServer(("127.0.0.1", 0), loaded_settings)) as port:
            yield Guestbook(port, counter_server)


def test_visit_is_counted_and_shown(guestbook: Guestbook) -> None:
    assert "visits: 1<" in guestbook.request("GET", "/").body
    assert "visits: 2<" in guestbook.request("GET", "/").body
    assert guestbook.counter.store.hits == 2


def test_signed_visitor_is_greeted_by_name(guestbook: Guestbook) -> None:
    form = "application/x-www-form-urlencoded"
    signed = guestbook.request("POST", "/entries", "name=Ada&message=good+evening", Content_Type=form)
    assert (signed.status, signed.headers["Location"]) == (303, "/")
    page = guestbook.request("GET", "/", Cookie=signed.headers["Set-Cookie"].partition(";")[0]).body
    assert "hello, Ada" in page
    assert "good evening" in page


def test_front_is_unhealthy_but_up_without_counter(guestbook: Guestbook, monkeypatch: pytest.MonkeyPatch) -> None:
    assert guestbook.request("GET", "/healthz").status == 200

    def raise_disk_full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(guestbook.counter.store, "_write", raise_disk_full)
    assert guestbook.request("GET", "/healthz").status == 503
    page = guestbook.request("GET", "/")
    assert (page.status, "visits: unknown" in page.body) == (200, True)
    assert "guestbook_counter_errors_total 1" in guestbook.request("GET", "/metrics").body


def test_admin_page_requires_token(guestbook: Guestbook) -> None:
    assert guestbook.request("GET", "/admin").status == 401
    assert guestbook.request("GET", "/admin", Authorization=f"Bearer {TOKEN}").status == 200


def test_busy_service_stops_at_sigterm(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, counter.__main__ as service; service.ADDRESS = ('127.0.0.1', int(sys.argv[1]));"
        " service.STATE = pathlib.Path(sys.argv[2]); sys.exit(service.main())"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-B", "-c", code, str(port), str(tmp_path / "hits")],
            cwd=DOCKERFILES / "counter", stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        has_ended = threading.Event()

        def visit(has_ended: threading.Event = has_ended) -> None:
            while not has_ended.is_set():
                with suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).close()

        visitors = [threading.Thread(target=visit) for _ in range(2)]
        for visitor in visitors:
            visitor.start()
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(5) == 0
        finally:
            process.kill()
            has_ended.set()
            process.communicate()
            for visitor in visitors:
                visitor.join()
