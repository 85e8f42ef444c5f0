"""The only module that prints: messages to stderr, results to stdout, colour only on a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

_json_mode = False


def json_mode(on: bool) -> None:
    """Keep stdout for one JSON document: everything that is said goes to stderr."""
    global _json_mode
    _json_mode = on


def is_json() -> bool:
    """Whether stdout is kept for one JSON document."""
    return _json_mode


def clean(text: str) -> str:
    """Replace control characters (terminal escapes of foreign output, NUL) so that they cannot act on a terminal."""
    return _CONTROL.sub("�", text)


def coloured(stream: Any) -> bool:
    """True if `stream` is a terminal and `NO_COLOR` is not set."""
    return not os.environ.get("NO_COLOR") and bool(getattr(stream, "isatty", lambda: False)())


def style(text: str, *names: str, stream: Any = None) -> str:
    """`text` in the named styles if the stream it goes to (default: where `say` writes) is a colour terminal."""
    target = stream or _voice()
    if not coloured(target):
        return text
    return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """One line for people: on stdout, or on stderr while stdout is kept for JSON."""
    print(clean_lines(text), file=_voice(), flush=True)


def note(text: str) -> None:
    """One line about what is going on, always on stderr."""
    print(style(clean_lines(text), "dim", stream=sys.stderr), file=sys.stderr, flush=True)


def passthrough(line: str) -> None:
    """One line of a foreign program's progress, on stderr."""
    print(clean(line), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A warning, on stderr."""
    print(f"{style('warning:', 'yellow', stream=sys.stderr)} {clean_lines(text)}", file=sys.stderr, flush=True)


def error(message: str, hint: str = "", details: Iterable[str] = ()) -> None:
    """A fault: what happened, further lines, what to do. On stderr, shown once."""
    print(f"{style('error:', 'red', 'bold', stream=sys.stderr)} {clean_lines(message)}", file=sys.stderr)
    for line in details:
        print(f"  {clean_lines(line)}", file=sys.stderr)
    if hint:
        print(f"{style('hint:', 'cyan', stream=sys.stderr)} {clean_lines(hint)}", file=sys.stderr)
    sys.stderr.flush()


def document(value: Any) -> None:
    """The one JSON document of a `--json` command, on stdout."""
    print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False), flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows in columns as wide as their widest cell; long cells are never cut."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        say(style(text, "dim") if number == 0 else text)


def confirm(question: str) -> bool:
    """Ask a yes/no question; False where nobody can answer."""
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def size(count: float) -> str:
    """A number of bytes for people: `512 B`, `18.4 MB`, `1.2 GB` (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def clean_lines(text: str) -> str:
    """`clean`, but the styles this module wrote itself stay."""
    return re.sub(r"\x1b\[[0-9;]*m|" + _CONTROL.pattern, lambda m: m[0] if len(m[0]) > 1 else "�", text)


def _voice() -> Any:
    return sys.stderr if _json_mode else sys.stdout
