"""Serve pages at /PATH: GET shows one, PUT writes one."""

from __future__ import annotations

import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pymysql


def connect() -> Any:
    """Connect to the database, with the table of pages in it."""
    settings = {key: os.environ[f"DB_{key.upper()}"] for key in ("host", "user")}
    connection = pymysql.connect(**settings, password=os.environ["DB_PASS"], database=os.environ["DB_NAME"])
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS pages (path VARCHAR(200) PRIMARY KEY, text TEXT)")
    return connection


def count_view(path: str) -> str:
    """Count a view in memcached and return the number."""
    with socket.create_connection((os.environ["CACHE_HOST"], 11211), timeout=3) as cache:
        key = path.replace("/", "_")
        cache.sendall(f"add {key} 0 0 1\r\n0\r\nincr {key} 1\r\n".encode())
        lines = cache.makefile()
        lines.readline()
        return lines.readline().strip()


class Handler(BaseHTTPRequestHandler):
    """Answer requests."""

    def do_GET(self) -> None:
        """Show a page and what the uploads hold."""
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT text FROM pages WHERE path = %s", (self.path,))
            row = cursor.fetchone()
        text = row[0] if row else "This page is empty."
        views = count_view(self.path)
        uploads = len(list(Path("data").iterdir()))
        self.reply(200, f"{text}\n{views} views, {uploads} uploads, wiki {os.environ['WIKI_VERSION']}\n")

    def do_PUT(self) -> None:
        """Write a page, and keep a copy among the uploads."""
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("REPLACE INTO pages VALUES (%s, %s)", (self.path, text))
            connection.commit()
        (Path("data") / self.path.strip("/").replace("/", "_")).write_text(text)
        self.reply(201, "written")

    def reply(self, status: int, text: str) -> None:
        """Send a response."""
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if sys.argv[1:] == ["health"]:
    sys.exit(urlopen("http://127.0.0.1:3000/healthz", timeout=3).status != 200)
ThreadingHTTPServer(("", 3000), Handler).serve_forever()
