"""Books, one per line of a file in the volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plumbing import serve

FILE = Path("/data/books.txt")


def books(_: Any) -> list[str]:
    """Return all titles."""
    return FILE.read_text().splitlines() if FILE.exists() else []


def add(body: Any) -> list[str]:
    """Add a title."""
    with FILE.open("a") as file:
        file.write(body["title"] + "\n")
    return books(None)


serve({"GET /health": lambda _: "ok", "GET /books": books, "POST /books": add})
