"""The HTTP server of the counter."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from counter.logs import log
from counter.store import HitStore

CONCURRENT_REQUESTS = 32


class CounterServer(ThreadingHTTPServer):
    """A threading server with a limit on its threads, since the container limits processes."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], store: HitStore) -> None:
        super().__init__(address, Handler)
        self.store = store
        self._slots = threading.BoundedSemaphore(CONCURRENT_REQUESTS)

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

    server: CounterServer
    server_version = "counter"
    sys_version = ""
    timeout = 5

    def do_GET(self) -> None:
        if self.path == "/hits":
            self._answer(HTTPStatus.OK, {"hits": self.server.store.hits})
        elif self.path == "/healthz":
            self._health()
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "no such page"})

    def do_POST(self) -> None:
        if self.path != "/hits":
            self._answer(HTTPStatus.NOT_FOUND, {"error": "no such page"})
        elif self.headers.get("Transfer-Encoding") or self.headers.get("Content-Length", "0") != "0":
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "a hit has no body"})
        else:
            self._count()

    def _count(self) -> None:
        try:
            hits = self.server.store.add()
        except OSError as error:
            log("store failed", level="error", reason=str(error))
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the count cannot be stored"})
        else:
            self._answer(HTTPStatus.OK, {"hits": hits})

    def _health(self) -> None:
        try:
            self.server.store.check()
        except OSError as error:
            log("unhealthy", level="error", reason=str(error))
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "failing"})
        else:
            self._answer(HTTPStatus.OK, {"status": "ok"})

    def _answer(self, status: HTTPStatus, document: dict[str, object]) -> None:
        body = json.dumps(document).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", _size: int | str = "-") -> None:
        if self.path != "/healthz":
            log("request", method=self.command, path=self.path, status=int(code))

    def log_message(self, format: str, *args: object) -> None:
        log("http", level="warning", reason=format % args)
