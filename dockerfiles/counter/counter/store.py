"""The number of visits in a file that is replaced atomically."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class HitStore:
    """A number that only grows; thread-safe and crash-safe."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._hits = int(file.read_text()) if file.exists() else 0

    @property
    def hits(self) -> int:
        """Return the number of hits."""
        return self._hits

    def add(self) -> int:
        """Count one hit and return the new number; raise OSError, without counting, if it cannot be written."""
        with self._lock:
            self._write(self._hits + 1)
            self._hits += 1
            return self._hits

    def check(self) -> None:
        """Raise OSError if the file's directory is not writable."""
        with self._lock:
            self._write(self._hits)

    def _write(self, hits: int) -> None:
        aside = self._file.with_suffix(".new")
        with aside.open("w") as stream:
            stream.write(f"{hits}\n")
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(self._file)
