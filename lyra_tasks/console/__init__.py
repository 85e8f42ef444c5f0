"""All output: results to stdout, messages to stderr, colour only on a terminal. Imports nothing of Lyra's."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lyra_tasks.console.terminal import LiveDisplay, wrap_table
from lyra_tasks.console.text import (
    apply_style,
    display_width,
    sanitize_styled,
    supports_colour,
    supports_control_codes,
    wrap_lines,
)
from lyra_tasks.console.text import format_bytes as format_bytes
from lyra_tasks.console.text import sanitize as sanitize
from lyra_tasks.console.text import terminal_width as terminal_width

_COLUMN_GAP = "  "

_json_mode = False
_quiet = False
_command_span: re.Pattern[str] | None = None
_program = ""
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


def set_program(program: str, tasks: Iterable[str]) -> None:
    """Put the name of the program before the commands in messages: code spans that begin with one of `tasks`."""
    global _command_span, _program
    # `promote = true` is a key, and only other programs have short options: `test -f FILE`
    _command_span = re.compile(rf"`(?=(?:{'|'.join(map(re.escape, tasks))})(?: (?!=|-\w)[^`\n]*)?`)")
    _program = program


def name_program(text: str) -> str:
    """Return a text with the name of the program in its commands, so that they can be pasted."""
    return _command_span.sub(f"`{_program} ", text) if _command_span else text


def style(text: str, *names: str, stream: Any = None) -> str:
    """Return `text` in the named styles if `stream` (default: that of `print`) is a colour terminal."""
    return apply_style(text, *names) if supports_colour(stream or _stream()) else text


def print(text: str = "") -> None:
    """Print a line for people: to stdout, or to stderr in JSON mode."""
    if not _quiet:
        _write_line(name_program(sanitize_styled(text)), _stream())


def print_verbatim(text: str) -> None:
    """Print files, scripts, logs and the like, as `print`, but as they are: nothing is wrapped or added."""
    if not _quiet:
        _write_line(sanitize_styled(text), _stream(), wrap=False)


def info(text: str) -> None:
    """Print a line about progress to stderr."""
    if not _quiet:
        _write_line(style(name_program(sanitize_styled(text)), "dim", stream=sys.stderr), sys.stderr)


def print_raw(line: str, current_step: str = "") -> None:
    """Print a line of another program's progress to stderr, or show its step in the progress line."""
    if not _quiet and not _live_display.update(current_step):
        _write_line(sanitize(line), sys.stderr, wrap=False)


def progress(text: str, detail: str = "") -> AbstractContextManager[Callable[[int], None]]:
    """Show a live line with the elapsed time on a terminal until the block ends; yield a function that adds bytes."""
    if _quiet or not supports_control_codes(sys.stderr):
        return nullcontext(lambda _count: None)
    return _live_display.activity(text, detail)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    head = style("warning:", "yellow", stream=sys.stderr)
    _write_line(name_program(f"{head} {sanitize_styled(text)}"), sys.stderr)


def error(message: str, hint: str = "", details: Iterable[str] = ()) -> None:
    """Print an error to stderr: message, details and hint."""
    lines = [f"{style('error:', 'red', 'bold', stream=sys.stderr)} {sanitize_styled(message)}"]
    lines += [f"  {sanitize_styled(line)}" for line in details]
    if hint:
        lines.append(f"{style('hint:', 'cyan', stream=sys.stderr)} {sanitize_styled(hint)}")
    _write_line(name_program("\n".join(lines)), sys.stderr)


def print_json(value: Any) -> None:
    """Print a JSON document to stdout, in ASCII where the encoding of stdout requires it."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, sort_keys=True)
    _write_line(text, sys.stdout, wrap=False)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns as wide as their widest cell; nothing is truncated."""
    lines = [[sanitize(cell) for cell in line] for line in (header, *rows)]
    widths = [max(map(display_width, column)) for column in zip(*lines, strict=True)]
    if supports_control_codes(_stream()) and sum(widths) + len(_COLUMN_GAP) * (len(widths) - 1) > terminal_width(
        _stream()
    ):
        return print_verbatim(wrap_table(lines[0], lines[1:], _stream()))
    for number, line in enumerate(lines):
        cells = [cell + " " * (width - display_width(cell)) for cell, width in zip(line, widths, strict=True)]
        text = _COLUMN_GAP.join(cells).rstrip()
        print_verbatim(text if number else style(text, "dim"))
    return None


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
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _write_line(text: str, stream: Any, *, wrap: bool = True) -> None:
    if stream.errors != "backslashreplace":  # for characters that the encoding lacks, and names that are not UTF-8
        stream.reconfigure(errors="backslashreplace")
    if supports_control_codes(stream):
        text = wrap_lines(text, terminal_width(stream)) if wrap else text
        if _live_display.print_above(text):
            return
    stream.write(f"{text}\n")
    stream.flush()


def _stream() -> Any:
    return sys.stderr if _json_mode else sys.stdout
