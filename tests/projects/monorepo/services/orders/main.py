"""Take orders and tell the mailer."""

from __future__ import annotations

from typing import Any

from plumbing import serve
from plumbing.queue import open_channel


def order(body: Any) -> Any:
    """Put an order into the queue."""
    channel = open_channel("orders")
    channel.basic_publish("", "orders", body["title"].encode())
    channel.connection.close()
    return {"ordered": body["title"]}


serve({"GET /health": lambda _: "ok", "POST /orders": order})
