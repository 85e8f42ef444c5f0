"""Registries with token authentication."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.errors import PreconditionError
from lyra_tasks.registry.client import open_repository

BLOB = b"layer" * 1000
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"


class Registry(ThreadingHTTPServer):
    """A registry whose tokens are valid for `token_uses` requests; `blobs` are the uploads."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _RequestHandler)
        self.token_uses = 2
        self.tokens: dict[str, int] = {}
        self.token_response: dict[str, Any] = {}
        self.blobs: list[bytes] = []

    @property
    def host(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self.server_port}"


class _RequestHandler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            token = f"t{len(self.server.tokens)}"
            is_signed_in = self.headers["Authorization"] == f"Basic {base64.b64encode(b'ada:open sesame').decode()}"
            self.server.tokens[token] = self.server.token_uses if is_signed_in else 0
            return self._respond(200, {}, json.dumps(self.server.token_response or {"token": token}).encode())
        return self._respond(200) if self._authenticate() else None

    def do_HEAD(self) -> None:
        if self._authenticate():
            self._respond(404)

    def do_POST(self) -> None:
        if self._authenticate():
            self._respond(202, {"Location": "/v2/team/web/uploads/1"})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._authenticate():
            self.server.blobs.append(body)
            self._respond(201)

    def _authenticate(self) -> bool:
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if self.server.tokens.get(token, 0) > 0:
            self.server.tokens[token] -= 1
            return True
        realm = f'Bearer realm="http://{self.server.host}/token",service="here"'
        self._respond(401, {"WWW-Authenticate": realm})
        return False

    def _respond(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with Registry() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        auth = base64.b64encode(b"ada:open sesame").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        yield server
        server.shutdown()


def test_expired_token_is_renewed_and_upload_is_complete(registry: Registry) -> None:
    registry.token_uses = 1  # every request needs a new token
    target = open_repository(registry.host, "team/web")
    for _ in range(2):
        assert not target.has_blob(DIGEST)
        target.put_blob(DIGEST, io.BytesIO(BLOB))
    assert registry.blobs == [BLOB, BLOB]
    target.session.close()


def test_denied_access_and_missing_token_are_reported(registry: Registry) -> None:
    registry.token_uses = 0
    target = open_repository(registry.host, "team/web")
    with pytest.raises(PreconditionError, match="Access to team/web denied"):
        target.has_blob(DIGEST)
    target.session.close()
    registry.token_response = {"message": "what?"}
    with pytest.raises(PreconditionError, match="returned no token"):
        open_repository(registry.host, "team/web")
