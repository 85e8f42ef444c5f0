"""The only room that prints: messages to stderr, results to stdout, colour only on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from lyra_tasks.console.live import Activity, LiveDisplay
from lyra_tasks.console.text import (
    apply_style,
    display_width,
    escape_unencodable,
    format_bytes,
    sanitize,
    sanitize_styled,
    supports_colour,
    supports_control_codes,
    terminal_width,
)

__all__ = [
    "Activity",
    "sanitize",
    "sanitize_styled",
    "supports_colour",
    "confirm",
    "print_json",
    "progress",
    "error",
    "is_json_mode",
    "set_json_mode",
    "print_next_step",
    "info",
    "print_raw",
    "set_quiet_mode",
    "refresh",
    "print",
    "format_bytes",
    "style",
    "print_table",
    "warn",
    "terminal_width",
]

_json_mode = False
_quiet = False
_live_display = LiveDisplay()


def set_json_mode(enabled: bool) -> None:
    """Keep stdout for one JSON document: everything that is said goes to stderr."""
    global _json_mode
    _json_mode = enabled


def is_json_mode() -> bool:
    """Whether stdout is kept for one JSON document."""
    return _json_mode


def set_quiet_mode(enabled: bool) -> None:
    """Say nothing but warnings, faults and the JSON document."""
    global _quiet
    _quiet = enabled
    _live_display.is_quiet = enabled


def style(text: str, *names: str, stream: Any = None) -> str:
    """`text` in the named styles if the stream it goes to (default: where `say` writes) is a colour terminal."""
    return apply_style(text, *names) if supports_colour(stream or _stream()) else text


def print(text: str = "") -> None:
    """One line for people: on stdout, or on stderr while stdout is kept for JSON."""
    if not _quiet:
        _write_line(sanitize_styled(text), _stream())


def info(text: str) -> None:
    """One line about what is going on, always on stderr."""
    if not _quiet:
        _write_line(style(sanitize_styled(text), "dim", stream=sys.stderr), sys.stderr)


def print_raw(line: str, current_step: str = "") -> None:
    """One line of a foreign program's progress, on stderr; a live line, where there is one, tells `step` instead."""
    if not _quiet and not _live_display.update(current_step):
        _write_line(sanitize(line), sys.stderr)


def progress(text: str, detail: str = "") -> AbstractContextManager[Activity]:
    """Show on a terminal that `text` goes on, and for how long, until the block ends; `detail` may change meanwhile."""
    return _live_display.activity(text, detail)


def print_next_step(command: str, purpose: str) -> None:
    """What to do next, in one line; nothing for no word."""
    if command and not _json_mode:
        print(f"next: {style(command, 'bold')} {purpose}")


def warn(text: str) -> None:
    """A warning, on stderr."""
    _write_line(f"{style('warning:', 'yellow', stream=sys.stderr)} {sanitize_styled(text)}", sys.stderr)


def error(message: str, hint: str = "", details: Iterable[str] = ()) -> None:
    """A fault: what happened, further lines, what to do. On stderr, shown once."""
    lines = [f"{style('error:', 'red', 'bold', stream=sys.stderr)} {sanitize_styled(message)}"]
    lines += [f"  {sanitize_styled(line)}" for line in details]
    if hint:
        lines.append(f"{style('hint:', 'cyan', stream=sys.stderr)} {sanitize_styled(hint)}")
    _write_line("\n".join(lines), sys.stderr)


def print_json(value: Any) -> None:
    """The one JSON document of a `--json` command, on stdout; with escapes where that cannot take every character."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    if escape_unencodable(text, sys.stdout) != text:
        text = json.dumps(value, indent=2, sort_keys=True)
    _write_line(text, sys.stdout)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows in columns as wide as their widest cell; long cells are never cut."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(display_width(line[index]) for line in lines) for index in range(len(header))]
    for row_number, line in enumerate(lines):
        cells = [cell + " " * (cell_width - display_width(cell)) for cell, cell_width in zip(line, widths, strict=True)]
        text = "  ".join(cells).rstrip()
        print(style(text, "dim") if row_number == 0 else text)


def refresh(render: Callable[[], None], interval_s: float) -> None:
    """Show the same again and again until Ctrl-C: on a terminal from its top, elsewhere one below the other."""
    with _until_interrupted():
        while True:
            if supports_control_codes(_stream()):
                _stream().write("\x1b[H\x1b[2J")
            render()
            time.sleep(interval_s)


def confirm(question: str) -> bool:
    """Ask a yes/no question; False where nobody can answer."""
    if not sys.stdin.isatty():
        return False
    with _live_display.hidden():
        sys.stderr.write(escape_unencodable(f"{question} [y/N] ", sys.stderr))
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}


@contextmanager
def _until_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("\n")


def _write_line(text: str, stream: Any) -> None:
    with _live_display.hidden():
        stream.write(escape_unencodable(text, stream) + "\n")
        stream.flush()


def _stream() -> Any:
    return sys.stderr if _json_mode else sys.stdout
