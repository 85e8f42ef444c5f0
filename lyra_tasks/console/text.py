"""Text for a terminal: sanitize, colour, measure and wrap."""

from __future__ import annotations

import os
import re
import sys
import textwrap
import unicodedata
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL_OR_STYLE = re.compile(f"{_STYLE.pattern}|{_CONTROL.pattern}")
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_COLUMNS = re.compile(r" *(?:.{,38}  (?=\S))?")  # before the last column of a line
_DEFAULT_WIDTH = 80


def sanitize(text: str) -> str:
    """Replace control characters (NUL, terminal escapes in other programs' output) so that they have no effect."""
    return _CONTROL.sub("�", text)


def sanitize_styled(text: str) -> str:
    """Replace control characters, except the colours and styles that this package writes."""
    return _CONTROL_OR_STYLE.sub(lambda match: match[0] if len(match[0]) > 1 else "�", text)


def supports_colour(stream: Any) -> bool:
    """Return whether `stream` is a terminal with colours and `NO_COLOR` is not set."""
    return not os.environ.get("NO_COLOR") and supports_control_codes(stream)


def supports_control_codes(stream: Any) -> bool:
    """Return whether `stream` is a terminal that obeys escape sequences (not `TERM=dumb`)."""
    return bool(getattr(stream, "isatty", lambda: False)()) and os.environ.get("TERM", "dumb") != "dumb"


def apply_style(text: str, *names: str) -> str:
    """Return `text` in the named styles."""
    return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"


def terminal_width(stream: Any = None) -> int:
    """Return the columns of the terminal behind `stream` (default: stdout), or 80."""
    try:
        return os.get_terminal_size((stream or sys.stdout).fileno()).columns or _DEFAULT_WIDTH
    except (OSError, ValueError, AttributeError):
        return _DEFAULT_WIDTH


def display_width(text: str) -> int:
    """Return the columns that a text takes on a terminal; East Asian characters take two, styles none."""
    plain = _STYLE.sub("", text)
    return len(plain) if plain.isascii() else sum(map(_character_width, plain))


def wrap_lines(text: str, width: int) -> str:
    """Break lines between words; the rest of a line begins below its last column.

    A word that is wider than the terminal, such as a path, stays whole, so that it can be copied.
    """
    return "\n".join(line if display_width(line) <= width else _wrap_line(line, width) for line in text.split("\n"))


def format_bytes(byte_count: float) -> str:
    """Return a number of bytes for people: `512 B`, `18.4 MiB`, `1.2 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if abs(byte_count) < 1024:
            return f"{byte_count:.0f} {unit}" if unit == "B" else f"{byte_count:.1f} {unit}"
        byte_count /= 1024
    return f"{byte_count:.1f} GiB"


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _wrap_line(line: str, width: int) -> str:
    plain, codes = _STYLE.sub("", line), iter(_STYLE.findall(line))
    indent = " " * (len(plain) - len(_COLUMNS.sub("", plain, count=1)))
    wrapper = textwrap.TextWrapper(width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return re.sub("\0", lambda _: next(codes), wrapper.fill(_STYLE.sub("\0", line)))
