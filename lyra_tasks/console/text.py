"""Text for a terminal: sanitize, colour, measure and wrap."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import unicodedata
from typing import Any

# Control characters, also those of the upper half; text direction; what is invisible, but in names; line separators;
# surrogates, as in names that are not UTF-8; what is no character. None of them is printable for `str.isprintable`.
_UNSAFE_CHARACTERS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f"
) + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(1, 17))
_UNSAFE = re.compile(f"[{_UNSAFE_CHARACTERS}]")
_UNSAFE_OR_BREAK = re.compile(f"[\t\n{_UNSAFE_CHARACTERS}]")
_NAMED_ESCAPES = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_STYLE = re.compile(r"\x1b\[[0-9;:]*m")
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_OWN_CODE = f"(?:{'|'.join(_STYLES.values())})"
_UNSAFE_OR_STYLE = re.compile(rf"\x1b\[(?:0|{_OWN_CODE}(?:;{_OWN_CODE})*)m|{_UNSAFE.pattern}")
_COLUMNS = re.compile(r" *(?:.{,38}  (?=\S))?")  # before the last column of a line
_SPACE_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:[KMG]i)?B\b)")
_DEFAULT_WIDTH = 80


def escape(value: object) -> str:
    """Return a value of others as one line to put into a message: unsafe characters become visible escapes.

    File names, keys of documents, answers of services and output of programs may contain line breaks, terminal codes
    and characters that are invisible or change the direction of text.
    """
    text = str(value)
    return text if text.isprintable() else _UNSAFE_OR_BREAK.sub(_escape_character, text)


def sanitize(text: str) -> str:
    """Return lines of others, such as a log, without colours and with unsafe characters as visible escapes."""
    if text.replace("\n", "").isprintable():
        return text
    return _UNSAFE.sub(_escape_character, _STYLE.sub("", text))


def sanitize_styled(text: str) -> str:
    """Return lines with unsafe characters as visible escapes, except the styles that this package writes."""
    if text.replace("\n", "").isprintable():
        return text
    return _UNSAFE_OR_STYLE.sub(lambda match: match[0] if len(match[0]) > 1 else _escape_character(match), text)


def escape_in_json(document: str) -> str:
    """Return a JSON document with unsafe characters as JSON escapes."""
    return _UNSAFE.sub(lambda match: json.dumps(match[0])[1:-1], document.replace("\x7f", "\\u007f"))


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
    """Break lines between words, not between a number and its unit; the rest of a line begins below its last column.

    A word that is wider than the terminal, such as a path, stays whole, so that it can be copied.
    """
    return "\n".join(line if display_width(line) <= width else _wrap_line(line, width) for line in text.split("\n"))


def format_count(count: float, noun: str) -> str:
    """Return a number with a noun that is given in the singular: `1 image`, `0 images`, `2 entries`, `0.5 CPUs`."""
    if count != 1:
        noun = re.sub(r"(?<=[^aeiou])y$", "ie", re.sub(r"(s|x|ch|sh)$", r"\1e", noun)) + "s"
    return f"{count:g} {noun}" if isinstance(count, float) else f"{count} {noun}"


def format_bytes(byte_count: float) -> str:
    """Return a number of bytes for people: `512 B`, `18.4 MiB`, `1.2 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if abs(byte_count) < 1024:
            return f"{byte_count:.0f} {unit}" if unit == "B" else f"{byte_count:.1f} {unit}"
        byte_count /= 1024
    return f"{byte_count:.1f} GiB"


def _escape_character(match: re.Match[str]) -> str:
    code = ord(match[0])
    numeric = f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"
    return _NAMED_ESCAPES.get(match[0], numeric)


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _wrap_line(line: str, width: int) -> str:
    plain, codes = _STYLE.sub("", line), iter(_STYLE.findall(line))
    indent = " " * (len(plain) - len(_COLUMNS.sub("", plain, count=1)))
    wrapper = textwrap.TextWrapper(width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    wrapped = wrapper.fill(_SPACE_BEFORE_UNIT.sub("\1", _STYLE.sub("\0", line)))
    return re.sub("\0", lambda _: next(codes), wrapped.replace("\1", " "))
