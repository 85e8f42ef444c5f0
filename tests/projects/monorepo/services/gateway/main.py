"""The only service that the world sees."""

from __future__ import annotations

import os
from typing import Any

from plumbing import ask, serve


def order(body: Any) -> Any:
    """Order a book that is in the catalog."""
    if body["title"] not in ask(os.environ["CATALOG_URL"] + "/books"):
        ask(os.environ["CATALOG_URL"] + "/books", body)
    return ask(os.environ["ORDERS_URL"] + "/orders", body)


serve(
    {
        "GET /health": lambda _: "ok",
        "GET /books": lambda _: ask(os.environ["CATALOG_URL"] + "/books"),
        "POST /orders": order,
    }
)
