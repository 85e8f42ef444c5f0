"""Structured logs: one JSON object per line on stdout."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


def log(event: str, *, level: str = "info", **fields: object) -> None:
    """Write one line; control characters are escaped, so that visitors cannot forge lines."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stdout.write(json.dumps({"time": now, "level": level, "event": event, **fields}) + "\n")
    sys.stdout.flush()
