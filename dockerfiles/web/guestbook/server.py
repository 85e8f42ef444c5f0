"""The HTTP server of the guestbook, with limits."""

from __future__ import annotations

import hmac
import json
import sqlite3
import sys
import threading
import time
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from guestbook import metrics, pages
from guestbook.counter import CounterClient, CounterError
from guestbook.entries import EntryError, EntryStore, parse_entry
from guestbook.logs import log
from guestbook.requests import FORM, RequestError, read_fields
from guestbook.sessions import session_cookie, visitor
from guestbook.settings import Settings

CONCURRENT_REQUESTS = 32
SHOWN = 20
HTML = "text/html; charset=utf-8"
JSON = "application/json"


class GuestbookServer(ThreadingHTTPServer):
    """A threading server with a limit on its threads, since the container limits processes."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], settings: Settings) -> None:
        self.settings = settings
        self.entries = EntryStore(settings.database)
        self.counter = CounterClient(settings.counter)
        self.metrics = metrics.Metrics()
        self._slots = threading.BoundedSemaphore(CONCURRENT_REQUESTS)
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._slots.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        if isinstance(sys.exc_info()[1], ConnectionError):
            log("visitor left", level="warning")
        else:
            log("request failed", level="error", reason=traceback.format_exc())

    def drain(self, seconds: float) -> bool:
        """Wait for active requests; return whether all ended in time."""
        deadline = time.monotonic() + seconds
        return all(
            self._slots.acquire(timeout=max(0.0, deadline - time.monotonic())) for _ in range(CONCURRENT_REQUESTS)
        )


class Handler(BaseHTTPRequestHandler):
    """One request per connection (HTTP/1.0), so that idle clients occupy no thread."""

    server: GuestbookServer
    server_version = "guestbook"
    sys_version = ""
    timeout = 5

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.started = time.monotonic()
        try:
            self._route(urlsplit(self.path).path)
        except (RequestError, EntryError) as error:
            self._refuse(error)
        except sqlite3.Error as error:
            log("database failed", level="error", reason=str(error))
            self._send_json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the guestbook cannot be reached"})

    def _route(self, path: str) -> None:
        if action := _ROUTES.get((self.command, path)):
            action(self)
        elif path in _PATHS:
            raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, "not with this method")
        else:
            raise RequestError(HTTPStatus.NOT_FOUND, "no such page")

    def _front(self) -> None:
        settings = self.server.settings
        try:
            visits = self.server.counter.hit()
        except CounterError as error:
            self.server.metrics.counter_error()
            log("counter failed", level="warning", reason=str(error))
            visits = None
        page = pages.front_page(
            title=settings.title,
            greeting=settings.greeting,
            visitor=visitor(self.headers.get("Cookie", ""), settings.session_key),
            entries=self.server.entries.last(SHOWN),
            visits=visits,
        )
        self._send(HTTPStatus.OK, HTML, page)

    def _style(self) -> None:
        self._send(HTTPStatus.OK, "text/css", pages.style(self.server.settings.theme))

    def _sign(self) -> None:
        entry = parse_entry(read_fields(self.headers, self.rfile))
        self.server.entries.add(entry)
        cookie = {"Set-Cookie": session_cookie(entry.name, self.server.settings.session_key)}
        if self.headers.get_content_type() == FORM:
            self._send(HTTPStatus.SEE_OTHER, HTML, "", {**cookie, "Location": "/"})
        else:
            self._send_json(HTTPStatus.CREATED, entry.document(), cookie)

    def _admin(self) -> None:
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        wanted = f"Bearer {self.server.settings.admin_token}".encode()
        if not hmac.compare_digest(given, wanted):
            raise RequestError(HTTPStatus.UNAUTHORIZED, "a token is needed")
        entries = self.server.entries
        page = pages.admin_page(
            title=self.server.settings.title, count=entries.count(), entries=entries.last(5 * SHOWN)
        )
        self._send(HTTPStatus.OK, HTML, page)

    def _health(self) -> None:
        checks = {"database": "ok", "counter": "ok"}
        try:
            self.server.entries.count()
        except sqlite3.Error as error:
            checks["database"] = str(error)
        try:
            self.server.counter.check()
        except CounterError as error:
            checks["counter"] = str(error)
        if set(checks.values()) == {"ok"}:
            self._send_json(HTTPStatus.OK, checks)
        else:
            log("unhealthy", level="error", **checks)
            self._send_json(HTTPStatus.SERVICE_UNAVAILABLE, checks)

    def _metrics(self) -> None:
        self._send(HTTPStatus.OK, metrics.CONTENT_TYPE, self.server.metrics.text(self.server.entries.count()))

    def _refuse(self, error: RequestError | EntryError) -> None:
        status = error.status if isinstance(error, RequestError) else HTTPStatus.BAD_REQUEST
        headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
        self._send_json(status, {"error": str(error)}, headers)

    def _send_json(self, status: HTTPStatus, document: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, JSON, json.dumps(document) + "\n", headers)

    def _send(self, status: HTTPStatus, kind: str, text: str, headers: dict[str, str] | None = None) -> None:
        self._note(status)
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _note(self, status: HTTPStatus) -> None:
        """Count and log the request before the response is sent, so that clients find it counted."""
        seconds = time.monotonic() - self.started
        path = urlsplit(self.path).path
        self.server.metrics.request(self.command, path if path in _PATHS else "other", status, seconds)
        if path != "/healthz":
            log("request", method=self.command, path=path, status=status, seconds=round(seconds, 4))

    def log_request(self, _code: int | str = "-", _size: int | str = "-") -> None:
        """Do nothing: `_note` logs each request with its duration."""

    def log_message(self, format: str, *args: object) -> None:
        log("http", level="warning", reason=format % args)


_ROUTES = {
    ("GET", "/"): Handler._front,
    ("GET", "/style.css"): Handler._style,
    ("POST", "/entries"): Handler._sign,
    ("GET", "/admin"): Handler._admin,
    ("GET", "/healthz"): Handler._health,
    ("GET", "/metrics"): Handler._metrics,
}
_PATHS = {path for _, path in _ROUTES}
