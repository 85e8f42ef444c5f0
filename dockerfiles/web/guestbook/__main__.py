"""Serve until SIGTERM or SIGINT: `python3 -m guestbook`."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading

from guestbook.logs import log
from guestbook.server import GuestbookServer
from guestbook.settings import SettingsError, load_settings

ADDRESS = ("0.0.0.0", 8000)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Return 0 after SIGTERM or SIGINT, 2 if a setting is invalid or the database cannot be opened."""
    # waited for, not handled: an event that a handler sets may not wake this thread while others are busy
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        server = GuestbookServer(ADDRESS, load_settings(os.environ))
    except (SettingsError, sqlite3.Error, OSError) as error:
        log("cannot start", level="error", reason=str(error))
        return 2
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}).start()
    log("listening", port=ADDRESS[1], theme=server.settings.theme)
    signal.sigwait(_STOP_SIGNALS)
    server.shutdown()
    server.server_close()
    log("stopped", drained=server.drain(1.0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
