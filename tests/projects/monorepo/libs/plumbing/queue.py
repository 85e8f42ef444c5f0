"""The queue of orders."""

from __future__ import annotations

import os
import time
from typing import Any

import pika


def open_channel(name: str) -> Any:
    """Return a channel of the queue, with the queue `name` declared."""
    for _ in range(300):
        try:
            channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
            channel.queue_declare(name, durable=True)
            return channel
        except pika.exceptions.AMQPConnectionError:
            time.sleep(0.2)
    raise SystemExit("the queue does not answer")
