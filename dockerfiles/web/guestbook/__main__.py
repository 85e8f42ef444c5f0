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


def main() -> int:
    """Return 0 after SIGTERM or SIGINT, 2 if a setting is invalid or the database cannot be opened."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = GuestbookServer(ADDRESS, load_settings(os.environ))
    except (SettingsError, sqlite3.Error, OSError) as error:
        log("cannot start", level="error", reason=str(error))
        return 2
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}).start()
    log("listening", port=ADDRESS[1], theme=server.settings.theme)
    stop.wait()
    server.shutdown()
    server.server_close()
    log("stopped", drained=server.drain(1.0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
