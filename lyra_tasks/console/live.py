"""What is going on now, in lines at the end of a terminal that are written over in place.

Everything else that is printed appears above them. Where stderr is no terminal there is nothing to see.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lyra_tasks.console.text import capable, clean, coloured, cut, printable, size, width

_EVERY = 0.1  # seconds
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_FRAMES = "|/-\\"
_ERASE = "\r\x1b[K"
_UP = "\x1b[A"


@dataclass
class Doing:
    """One thing that goes on; `detail` may change while it does."""

    text: str
    detail: str = ""
    began: float = field(default_factory=time.monotonic)
    bytes: int = 0

    def count(self, more: int) -> None:
        """Show how many bytes there were so far."""
        self.bytes += more
        self.detail = size(self.bytes)


class Live:
    """The lines at the end of the terminal; any thread may add one, print beside them, or take one away."""

    def __init__(self) -> None:
        self.silent = False
        self._lock = threading.RLock()
        self._doing: list[Doing] = []
        self._drawn = 0
        self._ticker: threading.Thread | None = None

    @property
    def visible(self) -> bool:
        """Whether stderr is a terminal that can be written over."""
        return not self.silent and capable(sys.stderr)

    @contextmanager
    def doing(self, text: str, detail: str = "") -> Iterator[Doing]:
        """Show that `text` goes on, with the time it has taken, until the block ends."""
        mine = Doing(text, detail)
        with self._lock:
            self._doing.append(mine)
            self._draw()
            if self._ticker is None and self.visible:
                self._ticker = threading.Thread(target=self._tick, daemon=True)
                self._ticker.start()
        try:
            yield mine
        finally:
            with self._lock:
                self._doing.remove(mine)
                self._draw()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The lines are gone while the block prints, and come again below."""
        with self._lock:
            self._erase()
            yield
            self._draw()

    def tell(self, step: str) -> bool:
        """Make a step (nothing: the one before) the detail of what was begun last; False where nobody would see it."""
        with self._lock:
            if not self._doing or not self.visible:
                return False
            if step:
                self._doing[-1].detail = clean(step)
                self._draw()
            return True

    def _tick(self) -> None:
        while True:
            time.sleep(_EVERY)
            with self._lock:
                if not self._doing:
                    self._ticker = None
                    return
                self._draw()

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(_ERASE + (_UP + _ERASE) * (self._drawn - 1))
            sys.stderr.flush()
            self._drawn = 0

    def _draw(self) -> None:
        if not self.visible:
            return
        columns, rows = width(sys.stderr), max(_rows() - 2, 1)
        shown = self._doing[:rows]
        lines = [_line(each, columns - 1) for each in shown]
        erase = _ERASE + (_UP + _ERASE) * (self._drawn - 1) if self._drawn else ""
        if coloured(sys.stderr):
            lines = [f"\x1b[36m{line}\x1b[0m" for line in lines]
        sys.stderr.write(printable(erase + "\n".join(lines), sys.stderr))
        sys.stderr.flush()
        self._drawn = len(lines)


def _line(doing: Doing, columns: int) -> str:
    seconds = time.monotonic() - doing.began
    frames = _FRAMES if (sys.stderr.encoding or "").lower().startswith("utf") else _PLAIN_FRAMES
    head = f"{frames[int(seconds / _EVERY) % len(frames)]} {clean(doing.text)}"
    took = f"  {_clock(seconds)}"
    room = columns - len(took)
    return cut(f"{head}  {doing.detail}" if doing.detail else head, room) + took


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def _rows() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).lines or 24
    except (OSError, ValueError):
        return 24
