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
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Return 0 after SIGTERM or SIGINT, 2 if the state cannot be read."""
    # waited for, not handled: an event that a handler sets may not wake this thread while others are busy
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        server = CounterServer(ADDRESS, HitStore(STATE))
    except (OSError, ValueError) as error:
        log("cannot start", level="error", reason=str(error))
        return 2
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}).start()
    log("listening", port=ADDRESS[1], hits=server.store.hits)
    signal.sigwait(_STOP_SIGNALS)
    server.shutdown()
    server.server_close()
    log("stopped", drained=server.drain(1.0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
