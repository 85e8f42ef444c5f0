"""The demo's two services: their own tests on this interpreter, and both together on the loopback."""

from __future__ import annotations

import http.client
import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DOCKERFILES = Path(__file__).parents[2] / "dockerfiles"
TOKEN = "only-for-tests"


@pytest.mark.parametrize("service", ["counter", "web"])
def test_a_services_own_tests_pass_with_warnings_as_errors(service: str) -> None:
    words = ["-B", "-W", "error", "-m", "unittest", "discover", "--start-directory", "tests"]
    result = subprocess.run([sys.executable, *words], cwd=DOCKERFILES / service, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Ran 0 tests" not in result.stderr


@pytest.mark.parametrize(("service", "package"), [("counter", "counter"), ("web", "guestbook")])
def test_a_service_that_cannot_start_says_why_in_one_line_and_ends(service: str, package: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        f" import {package}.__main__ as service; service.ADDRESS = ('256.0.0.1', 1); sys.exit(service.main())"
    )
    words = [sys.executable, "-B", "-c", code, str(DOCKERFILES / service)]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stderr) == (2, "")
    assert json.loads(result.stdout)["event"] == "cannot start"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: str


@dataclass(frozen=True)
class Guestbook:
    """The front, and what a test may do to the counter behind it."""

    port: int
    counter: Any

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
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
    """Both services as their `__main__` starts them, on ports of the loopback."""
    for service in ("counter", "web"):
        monkeypatch.syspath_prepend(DOCKERFILES / service)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    counter, store = importlib.import_module("counter.server"), importlib.import_module("counter.store")
    front, settings = importlib.import_module("guestbook.server"), importlib.import_module("guestbook.settings")
    (tmp_path / "key").write_text("a key that is long enough")
    behind = counter.CounterServer(("127.0.0.1", 0), store.HitStore(tmp_path / "hits"))
    with serving(behind) as counter_port:
        environment = {"ADMIN_TOKEN": TOKEN, "COUNTER_URL": f"http://127.0.0.1:{counter_port}"}
        known = settings.load_settings(
            environment, site=DOCKERFILES / "web/guestbook.toml", key=tmp_path / "key", data=tmp_path
        )
        with serving(front.GuestbookServer(("127.0.0.1", 0), known)) as port:
            yield Guestbook(port, behind)


def test_a_visit_is_counted_by_the_counter_and_shown_by_the_front(guestbook: Guestbook) -> None:
    assert "visits: 1<" in guestbook.ask("GET", "/").body
    assert "visits: 2<" in guestbook.ask("GET", "/").body
    assert guestbook.counter.store.hits == 2


def test_a_signed_visitor_is_greeted_by_name(guestbook: Guestbook) -> None:
    form = "application/x-www-form-urlencoded"
    signed = guestbook.ask("POST", "/entries", "name=Ada&message=good+evening", Content_Type=form)
    assert (signed.status, signed.headers["Location"]) == (303, "/")
    page = guestbook.ask("GET", "/", Cookie=signed.headers["Set-Cookie"].partition(";")[0]).body
    assert "hello, Ada" in page
    assert "good evening" in page


def test_the_front_stays_up_and_turns_unhealthy_when_the_counter_fails(
    guestbook: Guestbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert guestbook.ask("GET", "/healthz").status == 200

    def no_room(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(guestbook.counter.store, "_write", no_room)
    assert guestbook.ask("GET", "/healthz").status == 503
    page = guestbook.ask("GET", "/")
    assert (page.status, "visits: unknown" in page.body) == (200, True)
    assert "guestbook_counter_errors_total 1" in guestbook.ask("GET", "/metrics").body


def test_administration_needs_the_token(guestbook: Guestbook) -> None:
    assert guestbook.ask("GET", "/admin").status == 401
    assert guestbook.ask("GET", "/admin", Authorization=f"Bearer {TOKEN}").status == 200
