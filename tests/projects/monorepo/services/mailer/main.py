"""Send a mail for each order; here, it is only logged."""

from __future__ import annotations

from plumbing.queue import open_channel

channel = open_channel("orders")
print("waiting for orders", flush=True)
for _method, _properties, body in channel.consume("orders", auto_ack=True):
    print(f"mail about {body.decode()}", flush=True)
