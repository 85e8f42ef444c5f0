"""Metrics in Prometheus' text format."""

from __future__ import annotations

import threading
from collections import Counter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters since the start; labels come from fixed sets, so that visitors cannot add time series."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds = 0.0
        self._counter_errors = 0

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        with self._lock:
            self._requests[method, route, status] += 1
            self._seconds += seconds

    def counter_error(self) -> None:
        """Count a failure of the counter service."""
        with self._lock:
            self._counter_errors += 1

    def text(self, entries: int) -> str:
        """Return the page for Prometheus; `entries` is their current number."""
        with self._lock:
            requests, seconds, errors = sorted(self._requests.items()), self._seconds, self._counter_errors
        lines = ["# HELP guestbook_requests_total Requests answered.", "# TYPE guestbook_requests_total counter"]
        for (method, route, status), count in requests:
            labels = f'method="{method}",route="{route}",status="{status}"'
            lines.append(f"guestbook_requests_total{{{labels}}} {count}")
        for name, kind, text, value in (
            ("request_seconds_total", "counter", "Time spent on requests.", f"{seconds:.6f}"),
            ("counter_errors_total", "counter", "Failures of the counter service.", str(errors)),
            ("entries", "gauge", "Entries stored.", str(entries)),
        ):
            lines += [f"# HELP guestbook_{name} {text}", f"# TYPE guestbook_{name} {kind}", f"guestbook_{name} {value}"]
        return "\n".join(lines) + "\n"
