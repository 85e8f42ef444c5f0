"""The count, kept in one small file that is replaced as a whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class HitStore:
    """A number that only grows; safe to use from many threads of one process, and after a crash."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._hits = int(file.read_text()) if file.exists() else 0

    @property
    def hits(self) -> int:
        """How many hits there were so far."""
        return self._hits

    def add(self) -> int:
        """Count one hit and return the new number. OSError if it cannot be written; then it is not counted."""
        with self._lock:
            self._write(self._hits + 1)
            self._hits += 1
            return self._hits

    def check(self) -> None:
        """OSError if the file's folder takes no writing."""
        with self._lock:
            self._write(self._hits)

    def _write(self, hits: int) -> None:
        aside = self._file.with_suffix(".new")
        with aside.open("w") as stream:
            stream.write(f"{hits}\n")
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(self._file)
