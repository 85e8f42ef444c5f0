"""The client of the counter service."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException

TIMEOUT = 2.0  # seconds
LONGEST_ANSWER = 1024


class CounterError(Exception):
    """The counter did not answer, or its response is invalid."""


class CounterClient:
    """Client of the counter at `address` (host and port)."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    def hit(self) -> int:
        """Count a visit and return the number of visits."""
        hits = self._ask("POST", "/hits").get("hits")
        if not isinstance(hits, int):
            raise CounterError("the counter's answer holds no number")
        return hits

    def check(self) -> None:
        """Raise CounterError unless the counter is healthy."""
        self._ask("GET", "/healthz")

    def _ask(self, method: str, path: str) -> dict[str, object]:
        connection = HTTPConnection(*self._address, timeout=TIMEOUT)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            document = json.loads(response.read(LONGEST_ANSWER))
        except (OSError, HTTPException, ValueError) as error:
            raise CounterError(f"the counter cannot be asked: {error}") from error
        finally:
            connection.close()
        if response.status != 200 or not isinstance(document, dict):
            raise CounterError(f"the counter answered {response.status}")
        return document
