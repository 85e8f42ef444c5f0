"""What the services share: a web server of functions, and requests to others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import urlopen

Route = Callable[[Any], Any]


def serve(routes: Mapping[str, Route]) -> None:
    """Answer `GET PATH` and `POST PATH` with the JSON that a function returns, on port 8000."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            route = routes.get(f"{self.command} {self.path}")
            result = route(json.loads(body or b"null")) if route else {"error": "not found"}
            data = json.dumps(result).encode()
            self.send_response(200 if route else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    ThreadingHTTPServer(("", 8000), Handler).serve_forever()


def ask(url: str, body: Any = None) -> Any:
    """Return the JSON of another service."""
    data = json.dumps(body).encode() if body is not None else None
    with urlopen(url, data=data, timeout=5) as response:
        return json.load(response)
