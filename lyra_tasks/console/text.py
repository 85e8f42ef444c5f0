"""Text for a terminal: made harmless, coloured where that is wanted, cut to a width."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STYLED = re.compile(r"\x1b\[[0-9;]*m|" + _CONTROL.pattern)
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_USUAL_WIDTH = 80


def clean(text: str) -> str:
    """Replace control characters (terminal escapes of foreign output, NUL) so that they cannot act on a terminal."""
    return _CONTROL.sub("�", text)


def clean_lines(text: str) -> str:
    """`clean`, but the styles this package wrote itself stay."""
    return _STYLED.sub(lambda match: match[0] if len(match[0]) > 1 else "�", text)


def printable(text: str, stream: Any) -> str:
    """`text` with escapes for what `stream` cannot take: what its encoding lacks, and names that are no UTF-8."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def coloured(stream: Any) -> bool:
    """True if `stream` is a terminal that knows colours and `NO_COLOR` is not set."""
    return not os.environ.get("NO_COLOR") and capable(stream)


def capable(stream: Any) -> bool:
    """Whether `stream` is a terminal that does what escape sequences say; `TERM=dumb` is one that does not."""
    return bool(getattr(stream, "isatty", lambda: False)()) and os.environ.get("TERM", "dumb") != "dumb"


def styled(text: str, *names: str) -> str:
    """`text` in the named styles, wherever it goes."""
    return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"


def width(stream: Any = None) -> int:
    """Columns of the terminal that `stream` is (default: stdout); 80 where it is none."""
    try:
        return os.get_terminal_size((stream or sys.stdout).fileno()).columns or _USUAL_WIDTH
    except (OSError, ValueError, AttributeError):
        return _USUAL_WIDTH


def columns(text: str) -> int:
    """How many columns a text takes; the characters of some scripts take two."""
    return sum(_columns(character) for character in text)


def cut(text: str, room: int) -> str:
    """As much of a text as has room, with a sign where something is missing."""
    if columns(text) <= room:
        return text
    kept = ""
    for character in text:
        if columns(kept) + _columns(character) > room - 1:
            break
        kept += character
    return f"{kept}…"


def size(count: float) -> str:
    """A number of bytes for people: `512 B`, `18.4 MB`, `1.2 GB` (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
