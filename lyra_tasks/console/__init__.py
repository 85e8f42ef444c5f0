"""All output: results to stdout, messages to stderr, colour only on a terminal. Imports nothing of Lyra's."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lyra_tasks.console.live import Activity as Activity
from lyra_tasks.console.live import LiveDisplay
from lyra_tasks.console.text import (
    apply_style,
    display_width,
    escape_unencodable,
    sanitize_styled,
    supports_colour,
    supports_control_codes,
)
from lyra_tasks.console.text import format_bytes as format_bytes
from lyra_tasks.console.text import sanitize as sanitize
from lyra_tasks.console.text import terminal_width as terminal_width

_json_mode = False
_quiet = False
_live_display = LiveDisplay()


def set_json_mode(enabled: bool) -> None:
    """Reserve stdout for one JSON document; everything else goes to stderr."""
    global _json_mode
    _json_mode = enabled


def is_json_mode() -> bool:
    """Return whether stdout is reserved for one JSON document."""
    return _json_mode


def set_quiet_mode(enabled: bool) -> None:
    """Print only warnings, errors and the JSON document."""
    global _quiet
    _quiet = enabled
    _live_display.is_quiet = enabled


def style(text: str, *names: str, stream: Any = None) -> str:
    """Return `text` in the named styles if `stream` (default: that of `print`) is a colour terminal."""
    return apply_style(text, *names) if supports_colour(stream or _stream()) else text


def print(text: str = "") -> None:
    """Print a line for people: to stdout, or to stderr in JSON mode."""
    if not _quiet:
        _write_line(sanitize_styled(text), _stream())


def info(text: str) -> None:
    """Print a line about progress to stderr."""
    if not _quiet:
        _write_line(style(sanitize_styled(text), "dim", stream=sys.stderr), sys.stderr)


def print_raw(line: str, current_step: str = "") -> None:
    """Print a line of another program's progress to stderr, or show its step in the progress line."""
    if not _quiet and not _live_display.update(current_step):
        _write_line(sanitize(line), sys.stderr)


def progress(text: str, detail: str = "") -> AbstractContextManager[Activity]:
    """Show a progress line with the elapsed time on a terminal until the block ends."""
    return _live_display.activity(text, detail)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    _write_line(f"{style('warning:', 'yellow', stream=sys.stderr)} {sanitize_styled(text)}", sys.stderr)


def error(message: str, hint: str = "", details: Iterable[str] = ()) -> None:
    """Print an error to stderr: message, details and hint."""
    lines = [f"{style('error:', 'red', 'bold', stream=sys.stderr)} {sanitize_styled(message)}"]
    lines += [f"  {sanitize_styled(line)}" for line in details]
    if hint:
        lines.append(f"{style('hint:', 'cyan', stream=sys.stderr)} {sanitize_styled(hint)}")
    _write_line("\n".join(lines), sys.stderr)


def print_json(value: Any) -> None:
    """Print a JSON document to stdout, in ASCII where the encoding of stdout requires it."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    if escape_unencodable(text, sys.stdout) != text:
        text = json.dumps(value, indent=2, sort_keys=True)
    _write_line(text, sys.stdout)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns as wide as their widest cell; nothing is truncated."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(display_width(line[index]) for line in lines) for index in range(len(header))]
    for line_number, line in enumerate(lines):
        cells = [cell + " " * (cell_width - display_width(cell)) for cell, cell_width in zip(line, widths, strict=True)]
        text = "  ".join(cells).rstrip()
        print(style(text, "dim") if line_number == 0 else text)


def refresh(render: Callable[[], None], interval_s: float) -> None:
    """Render again and again until Ctrl-C; on a terminal, clear the screen before."""
    try:
        while True:
            if supports_control_codes(_stream()):
                _stream().write("\x1b[H\x1b[2J")
            render()
            time.sleep(interval_s)
    except KeyboardInterrupt:
        sys.stderr.write("\n")


def confirm(question: str) -> bool:
    """Ask a yes/no question; return False if stdin is not a terminal."""
    if not sys.stdin.isatty():
        return False
    with _live_display.hidden():
        sys.stderr.write(escape_unencodable(f"{question} [y/N] ", sys.stderr))
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _write_line(text: str, stream: Any) -> None:
    with _live_display.hidden():
        stream.write(escape_unencodable(text, stream) + "\n")
        stream.flush()


def _stream() -> Any:
    return sys.stderr if _json_mode else sys.stdout
