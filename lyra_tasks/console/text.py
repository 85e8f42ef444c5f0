"""Text for a terminal: made harmless, coloured where that is wanted, cut to a width."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTROL_OR_STYLE = re.compile(r"\x1b\[[0-9;]*m|" + _CONTROL.pattern)
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_DEFAULT_WIDTH = 80


def sanitize(text: str) -> str:
    """Replace control characters (terminal escapes of foreign output, NUL) so that they cannot act on a terminal."""
    return _CONTROL.sub("�", text)


def sanitize_styled(text: str) -> str:
    """`clean`, but the styles this package wrote itself stay."""
    return _CONTROL_OR_STYLE.sub(lambda match: match[0] if len(match[0]) > 1 else "�", text)


def escape_unencodable(text: str, stream: Any) -> str:
    """`text` with escapes for what `stream` cannot take: what its encoding lacks, and names that are no UTF-8."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def supports_colour(stream: Any) -> bool:
    """True if `stream` is a terminal that knows colours and `NO_COLOR` is not set."""
    return not os.environ.get("NO_COLOR") and supports_control_codes(stream)


def supports_control_codes(stream: Any) -> bool:
    """Whether `stream` is a terminal that does what escape sequences say; `TERM=dumb` is one that does not."""
    return bool(getattr(stream, "isatty", lambda: False)()) and os.environ.get("TERM", "dumb") != "dumb"


def apply_style(text: str, *names: str) -> str:
    """`text` in the named styles, wherever it goes."""
    return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"


def terminal_width(stream: Any = None) -> int:
    """Columns of the terminal that `stream` is (default: stdout); 80 where it is none."""
    try:
        return os.get_terminal_size((stream or sys.stdout).fileno()).columns or _DEFAULT_WIDTH
    except (OSError, ValueError, AttributeError):
        return _DEFAULT_WIDTH


def display_width(text: str) -> int:
    """How many columns a text takes; the characters of some scripts take two."""
    return sum(_character_width(character) for character in text)


def truncate(text: str, max_width: int) -> str:
    """As much of a text as has room, with a sign where something is missing."""
    if display_width(text) <= max_width:
        return text
    prefix = ""
    for character in text:
        if display_width(prefix) + _character_width(character) > max_width - 1:
            break
        prefix += character
    return f"{prefix}…"


def format_bytes(byte_count: float) -> str:
    """A number of bytes for people: `512 B`, `18.4 MB`, `1.2 GB` (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if abs(byte_count) < 1000:
            return f"{byte_count:.0f} {unit}" if unit == "B" else f"{byte_count:.1f} {unit}"
        byte_count /= 1000
    return f"{byte_count:.1f} GB"


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
