"""Log lines for machines: one JSON object per line, on standard output."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


def log(event: str, *, level: str = "info", **fields: object) -> None:
    """Write one line; control characters in values are escaped, so that no visitor can forge another line."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stdout.write(json.dumps({"time": now, "level": level, "event": event, **fields}) + "\n")
    sys.stdout.flush()
