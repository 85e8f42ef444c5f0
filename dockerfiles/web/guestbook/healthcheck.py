"""What the image's HEALTHCHECK runs: exit code 0 if `/healthz` answers 200, else 1."""

from __future__ import annotations

import sys
from http.client import HTTPConnection, HTTPException


def healthy(port: int = 8000) -> bool:
    """Whether the service on this container's loopback says that it is well."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if healthy() else 1)
