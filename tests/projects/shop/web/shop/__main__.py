"""Serve the shop on port 8000."""

from __future__ import annotations

import html
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shop.store import cache, connect


class Handler(BaseHTTPRequestHandler):
    """Answer requests for the front page, new goods and the health check."""

    def do_GET(self) -> None:
        """Show the goods."""
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT name FROM goods ORDER BY id")
            goods = [row[0] for row in cursor.fetchall()]
        visits = cache().incr("visits") if self.path == "/" else cache().get("visits")
        title = html.escape(os.environ["SHOP_TITLE"])
        items = "".join(f"<li>{html.escape(name)}</li>" for name in goods)
        health, page = json.dumps({"goods": len(goods)}), f"<h1>{title}</h1><ul>{items}</ul><p>{visits} visits</p>\n"
        self.reply(200, health if self.path == "/healthz" else page)

    def do_POST(self) -> None:
        """Add something that is sold."""
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["name"]
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO goods (name) VALUES (%s)", (name,))
        self.reply(201, json.dumps({"name": name}))

    def reply(self, status: int, text: str) -> None:
        """Send a response."""
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


ThreadingHTTPServer(("", 8000), Handler).serve_forever()
