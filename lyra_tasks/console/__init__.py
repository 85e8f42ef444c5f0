"""The only room that prints: messages to stderr, results to stdout, colour only on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from lyra_tasks.console.live import Doing, Live
from lyra_tasks.console.text import capable, clean, clean_lines, coloured, columns, printable, size, styled, width

__all__ = [
    "Doing",
    "clean",
    "clean_lines",
    "coloured",
    "confirm",
    "document",
    "doing",
    "error",
    "is_json",
    "json_mode",
    "next_step",
    "note",
    "passthrough",
    "quiet_mode",
    "repeat",
    "say",
    "size",
    "style",
    "table",
    "warn",
    "width",
]

_json_mode = False
_quiet = False
_live = Live()


def json_mode(on: bool) -> None:
    """Keep stdout for one JSON document: everything that is said goes to stderr."""
    global _json_mode
    _json_mode = on


def is_json() -> bool:
    """Whether stdout is kept for one JSON document."""
    return _json_mode


def quiet_mode(on: bool) -> None:
    """Say nothing but warnings, faults and the JSON document."""
    global _quiet
    _quiet = on
    _live.silent = on


def style(text: str, *names: str, stream: Any = None) -> str:
    """`text` in the named styles if the stream it goes to (default: where `say` writes) is a colour terminal."""
    return styled(text, *names) if coloured(stream or _voice()) else text


def say(text: str = "") -> None:
    """One line for people: on stdout, or on stderr while stdout is kept for JSON."""
    if not _quiet:
        _print(clean_lines(text), _voice())


def note(text: str) -> None:
    """One line about what is going on, always on stderr."""
    if not _quiet:
        _print(style(clean_lines(text), "dim", stream=sys.stderr), sys.stderr)


def passthrough(line: str, step: str = "") -> None:
    """One line of a foreign program's progress, on stderr; a live line, where there is one, tells `step` instead."""
    if not _quiet and not _live.tell(step):
        _print(clean(line), sys.stderr)


def doing(text: str, detail: str = "") -> AbstractContextManager[Doing]:
    """Show on a terminal that `text` goes on, and for how long, until the block ends; `detail` may change meanwhile."""
    return _live.doing(text, detail)


def next_step(word: str, purpose: str) -> None:
    """What to do next, in one line; nothing for no word."""
    if word and not _json_mode:
        say(f"next: {style(word, 'bold')} {purpose}")


def warn(text: str) -> None:
    """A warning, on stderr."""
    _print(f"{style('warning:', 'yellow', stream=sys.stderr)} {clean_lines(text)}", sys.stderr)


def error(message: str, hint: str = "", details: Iterable[str] = ()) -> None:
    """A fault: what happened, further lines, what to do. On stderr, shown once."""
    lines = [f"{style('error:', 'red', 'bold', stream=sys.stderr)} {clean_lines(message)}"]
    lines += [f"  {clean_lines(line)}" for line in details]
    if hint:
        lines.append(f"{style('hint:', 'cyan', stream=sys.stderr)} {clean_lines(hint)}")
    _print("\n".join(lines), sys.stderr)


def document(value: Any) -> None:
    """The one JSON document of a `--json` command, on stdout; with escapes where that cannot take every character."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    if printable(text, sys.stdout) != text:
        text = json.dumps(value, indent=2, sort_keys=True)
    _print(text, sys.stdout)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows in columns as wide as their widest cell; long cells are never cut."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(columns(line[column]) for line in lines) for column in range(len(header))]
    for number, line in enumerate(lines):
        cells = [cell + " " * (room - columns(cell)) for cell, room in zip(line, widths, strict=True)]
        text = "  ".join(cells).rstrip()
        say(style(text, "dim") if number == 0 else text)


def repeat(show: Callable[[], None], every: float) -> None:
    """Show the same again and again until Ctrl-C: on a terminal from its top, elsewhere one below the other."""
    with _until_interrupted():
        while True:
            if capable(_voice()):
                _voice().write("\x1b[H\x1b[2J")
            show()
            time.sleep(every)


def confirm(question: str) -> bool:
    """Ask a yes/no question; False where nobody can answer."""
    if not sys.stdin.isatty():
        return False
    with _live.aside():
        sys.stderr.write(printable(f"{question} [y/N] ", sys.stderr))
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}


@contextmanager
def _until_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(file=sys.stderr)


def _print(text: str, stream: Any) -> None:
    with _live.aside():
        print(printable(text, stream), file=stream, flush=True)


def _voice() -> Any:
    return sys.stderr if _json_mode else sys.stdout
