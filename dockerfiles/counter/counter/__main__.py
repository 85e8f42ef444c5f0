"""Serve until SIGTERM or SIGINT: `python3 -m counter`."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from counter.logs import log
from counter.server import CounterServer
from counter.store import HitStore

ADDRESS = ("0.0.0.0", 8000)
STATE = Path("/state/hits")


def main() -> int:
    """Return 0 after SIGTERM or SIGINT, 2 if the state cannot be read."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = CounterServer(ADDRESS, HitStore(STATE))
    except (OSError, ValueError) as error:
        log("cannot start", level="error", reason=str(error))
        return 2
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}).start()
    log("listening", port=ADDRESS[1], hits=server.store.hits)
    stop.wait()
    server.shutdown()
    server.server_close()
    log("stopped", drained=server.drain(1.0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
