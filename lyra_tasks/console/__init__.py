"""All output: results to stdout, messages to stderr, colour only on a terminal. Imports only results of Lyra's."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lyra_tasks.console.streams import replace_closed_streams, require_open_stdout
from lyra_tasks.console.terminal import LiveDisplay, wrap_table
from lyra_tasks.console.text import (
    apply_style,
    display_width,
    escape_in_json,
    sanitize_styled,
    supports_colour,
    supports_control_codes,
    wrap_lines,
)
from lyra_tasks.console.text import escape as escape
from lyra_tasks.console.text import format_bytes as format_bytes
from lyra_tasks.console.text import format_count as format_count
from lyra_tasks.console.text import sanitize as sanitize
from lyra_tasks.console.text import terminal_width as terminal_width

_COLUMN_GAP = "  "
_UNINDENTED = re.compile(r"\n(?! )")


@dataclass(frozen=True)
class _Mode:
    """How the running task prints; `commands` are the program's names of the commands that messages mention."""

    json: bool = False
    quiet: bool = False
    program: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def command_span(self) -> re.Pattern[str]:
        """The beginning of a code span that is a command: its program's name is missing."""
        # `promote = true` is a key, and only other programs have short options: `test -f FILE`
        names = "|".join(map(re.escape, sorted(self.commands, key=len, reverse=True)))
        return re.compile(rf"`((?:{names})(?= |`)(?: (?!=|-\w)[^`\n]*)?)`")


_mode = _Mode()
_live_display = LiveDisplay()


@contextmanager
def output_of_task(*, json_mode: bool, quiet: bool, program: str, commands: Mapping[str, str]) -> Iterator[None]:
    """Print as one task demands until the block ends.

    Args:
        json_mode: Reserve stdout for one JSON document; everything else goes to stderr.
        quiet: Print only warnings, errors and the JSON document.
        program: The name that is put before the commands in messages, in code spans.
        commands: The name that the program has for each command.
    """
    global _mode
    replace_closed_streams()
    previous_mode, _mode = _mode, _Mode(json_mode, quiet, program, commands)
    try:
        yield
    finally:
        _mode = previous_mode


def is_json_mode() -> bool:
    """Return whether stdout is reserved for one JSON document."""
    return _mode.json


def name_program(text: str) -> str:
    """Return a text with the name of the program in its commands, so that they can be pasted."""
    return _mode.command_span.sub(_name_commands, text) if _mode.commands else text


def _name_commands(span: re.Match[str]) -> str:
    words = [_mode.commands.get(word, word) for word in span[1].split(" ")]
    return f"`{_mode.program} {' '.join(words)}`"


def style(text: str, *names: str, stream: Any = None) -> str:
    """Return `text` in the named styles if `stream` (default: that of `print`) is a colour terminal."""
    return apply_style(text, *names) if supports_colour(stream or _stream()) else text


def print(text: str = "", verbatim: Sequence[str] = ()) -> None:
    """Print a line for people, to stdout, or to stderr in JSON mode; below it, lines as they are: none is wrapped."""
    if not _mode.quiet:
        _write_line(name_program(_keep_below(sanitize_styled(text))), _stream(), verbatim=verbatim)


def print_verbatim(text: str) -> None:
    """Print files, scripts, logs and the like, as `print`, but as they are: nothing is wrapped or added."""
    if not _mode.quiet:
        _write_line(sanitize_styled(text), _stream(), wrap=False)


def info(text: str) -> None:
    """Print a line about progress to stderr."""
    if not _mode.quiet:
        _write_line(style(name_program(_keep_below(sanitize(text))), "dim", stream=sys.stderr), sys.stderr)


def print_raw(line: str, current_step: str = "") -> None:
    """Print a line of another program's progress to stderr, or show its step in the progress line."""
    if not _mode.quiet and not _live_display.update(current_step):
        _write_line(sanitize(line), sys.stderr, wrap=False)


def progress(text: str, detail: str = "") -> AbstractContextManager[None]:
    """Show a live line with the elapsed time, and the bytes that are counted, on a terminal until the block ends."""
    if _mode.quiet or not supports_control_codes(sys.stderr):
        return nullcontext()
    return _live_display.activity(text, detail)


def count_bytes(count: int) -> None:
    """Add bytes that were read, written or received to what the live line shows, if there is one."""
    _live_display.count_bytes(count)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    head = style("warning:", "yellow", stream=sys.stderr)
    _write_line(name_program(f"{head} {_keep_below(sanitize(text))}"), sys.stderr)


def error(message: str, hint: str = "", details: Iterable[str] = ()) -> None:
    """Print an error to stderr: message, details and hint."""
    _write_line(format_error(message, hint, details), sys.stderr)


def format_error(message: str, hint: str = "", details: Iterable[str] = ()) -> str:
    """Return the text that `error` prints."""
    lines = [f"{style('error:', 'red', 'bold', stream=sys.stderr)} {_indent(message)}"]
    lines += [f"  {_indent(line)}" for line in details]
    if hint:
        lines.append(f"{style('hint:', 'cyan', stream=sys.stderr)} {_indent(hint)}")
    return name_program("\n".join(lines))


def _keep_below(text: str) -> str:
    """Return lines of which none but the first begins in the first column: a value in it cannot pose as a message."""
    return _UNINDENTED.sub("\n  ", text) if "\n" in text else text


def _indent(text: str) -> str:
    """Return lines of which only the first can look like one of Lyra's own."""
    return sanitize(text).replace("\n", "\n  ")


def print_json(value: Any) -> None:
    """Print a JSON document to stdout, in ASCII where the encoding of stdout requires it; OSError if it is closed."""
    require_open_stdout()
    text = escape_in_json(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, sort_keys=True)
    _write_line(text, sys.stdout, wrap=False)


def print_result(result: object) -> bool:
    """Print the JSON document of a task's result in JSON mode; return whether it was printed."""
    from lyra_tasks.results import to_document

    if _mode.json:
        print_json(to_document(result))
    return _mode.json


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns as wide as their widest cell; nothing is truncated."""
    lines = [[escape(cell) for cell in line] for line in (header, *rows)]
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


def refresh(render: Callable[[], object], interval_s: float) -> None:
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
    sys.stderr.write(f"{_keep_below(sanitize(question))} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _write_line(text: str, stream: Any, *, wrap: bool = True, verbatim: Sequence[str] = ()) -> None:
    if stream.errors != "backslashreplace":  # for characters that the encoding lacks, and names that are not UTF-8
        stream.reconfigure(errors="backslashreplace")
    is_terminal = supports_control_codes(stream)
    if is_terminal and wrap:
        text = wrap_lines(text, terminal_width(stream))
    text = "\n".join((text, *map(sanitize_styled, verbatim)))
    if is_terminal and _live_display.print_above(text):
        return
    stream.write(f"{text}\n")
    stream.flush()


def _stream() -> Any:
    return sys.stderr if _mode.json else sys.stdout
