"""Progress lines at the end of a terminal, redrawn in place, below everything else that is printed.

Nothing is drawn where stderr is not a terminal.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lyra_tasks.console.text import (
    escape_unencodable,
    format_bytes,
    sanitize,
    supports_colour,
    supports_control_codes,
    terminal_width,
    truncate,
)

_REFRESH_INTERVAL_S = 0.1
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_FRAMES = "|/-\\"
_ERASE_LINE = "\r\x1b[K"
_CURSOR_UP = "\x1b[A"


@dataclass
class Activity:
    """A progress line; `detail` may change while it is shown."""

    text: str
    detail: str = ""
    started: float = field(default_factory=time.monotonic)
    bytes: int = 0

    def add_bytes(self, count: int) -> None:
        """Show the number of bytes so far."""
        self.bytes += count
        self.detail = format_bytes(self.bytes)


class LiveDisplay:
    """The progress lines at the end of the terminal; thread-safe."""

    def __init__(self) -> None:
        self.is_quiet = False
        self._lock = threading.RLock()
        self._activities: list[Activity] = []
        self._drawn_lines = 0
        self._ticker: threading.Thread | None = None

    @property
    def is_visible(self) -> bool:
        """Whether stderr is a terminal that supports redrawing."""
        return not self.is_quiet and supports_control_codes(sys.stderr)

    @contextmanager
    def activity(self, text: str, detail: str = "") -> Iterator[Activity]:
        """Show a progress line with the elapsed time until the block ends."""
        new_activity = Activity(text, detail)
        with self._lock:
            self._activities.append(new_activity)
            self._draw()
            if self._ticker is None and self.is_visible:
                self._ticker = threading.Thread(target=self._tick, daemon=True)
                self._ticker.start()
        try:
            yield new_activity
        finally:
            with self._lock:
                self._activities.remove(new_activity)
                self._draw()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the progress lines while the block prints."""
        with self._lock:
            self._erase()
            yield
            self._draw()

    def update(self, step: str) -> bool:
        """Show `step`, if not empty, in the last progress line; return False if none is visible."""
        with self._lock:
            if not self._activities or not self.is_visible:
                return False
            if step:
                self._activities[-1].detail = sanitize(step)
                self._draw()
            return True

    def _tick(self) -> None:
        while True:
            time.sleep(_REFRESH_INTERVAL_S)
            with self._lock:
                if not self._activities:
                    self._ticker = None
                    return
                self._draw()

    def _erase(self) -> None:
        if self._drawn_lines:
            sys.stderr.write(_ERASE_LINE + (_CURSOR_UP + _ERASE_LINE) * (self._drawn_lines - 1))
            sys.stderr.flush()
            self._drawn_lines = 0

    def _draw(self) -> None:
        if not self.is_visible:
            return
        columns, rows = terminal_width(sys.stderr), max(_terminal_rows() - 2, 1)
        visible = self._activities[:rows]
        lines = [_render_line(activity, columns - 1) for activity in visible]
        erase = _ERASE_LINE + (_CURSOR_UP + _ERASE_LINE) * (self._drawn_lines - 1) if self._drawn_lines else ""
        if supports_colour(sys.stderr):
            lines = [f"\x1b[36m{line}\x1b[0m" for line in lines]
        sys.stderr.write(escape_unencodable(erase + "\n".join(lines), sys.stderr))
        sys.stderr.flush()
        self._drawn_lines = len(lines)


def _render_line(activity: Activity, columns: int) -> str:
    seconds = time.monotonic() - activity.started
    frames = _FRAMES if (sys.stderr.encoding or "").lower().startswith("utf") else _ASCII_FRAMES
    head = f"{frames[int(seconds / _REFRESH_INTERVAL_S) % len(frames)]} {sanitize(activity.text)}"
    elapsed = f"  {_format_duration(seconds)}"
    available = columns - len(elapsed)
    return truncate(f"{head}  {activity.detail}" if activity.detail else head, available) + elapsed


def _format_duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def _terminal_rows() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).lines or 24
    except (OSError, ValueError):
        return 24
