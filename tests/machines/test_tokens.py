"""A registry that lets in by tokens, as most on the internet do; each is good for a few requests."""

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
    """`lasts` is how many requests a token is good for, `blobs` what has been uploaded."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.lasts = 2
        self.given: dict[str, int] = {}
        self.answer: dict[str, Any] = {}
        self.blobs: list[bytes] = []

    @property
    def host(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            token = f"t{len(self.server.given)}"
            signed = self.headers["Authorization"] == f"Basic {base64.b64encode(b'ada:open sesame').decode()}"
            self.server.given[token] = self.server.lasts if signed else 0
            return self._answer(200, {}, json.dumps(self.server.answer or {"token": token}).encode())
        return self._answer(200) if self._let_in() else None

    def do_HEAD(self) -> None:
        if self._let_in():
            self._answer(404)

    def do_POST(self) -> None:
        if self._let_in():
            self._answer(202, {"Location": "/v2/team/web/uploads/1"})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._let_in():
            self.server.blobs.append(body)
            self._answer(201)

    def _let_in(self) -> bool:
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if self.server.given.get(token, 0) > 0:
            self.server.given[token] -= 1
            return True
        realm = f'Bearer realm="http://{self.server.host}/token",service="here"'
        self._answer(401, {"WWW-Authenticate": realm})
        return False

    def _answer(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody is told."""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with Registry() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        auth = base64.b64encode(b"ada:open sesame").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        yield server
        server.shutdown()


def test_a_token_that_has_expired_meanwhile_is_replaced_and_the_blob_is_whole(registry: Registry) -> None:
    registry.lasts = 1  # whatever is asked next needs another
    target = open_repository(registry.host, "team/web")
    for _ in range(2):
        assert not target.has_blob(DIGEST)
        target.put_blob(DIGEST, io.BytesIO(BLOB))
    assert registry.blobs == [BLOB, BLOB]
    target.session.close()


def test_who_is_not_let_in_is_asked_to_sign_in_and_a_strange_token_is_told(registry: Registry) -> None:
    registry.lasts = 0
    target = open_repository(registry.host, "team/web")
    with pytest.raises(PreconditionError, match="does not let us write to team/web"):
        target.has_blob(DIGEST)
    target.session.close()
    registry.answer = {"message": "what?"}
    with pytest.raises(PreconditionError, match="gives none"):
        open_repository(registry.host, "team/web")
