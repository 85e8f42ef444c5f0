"""Draw live lines and wrapped tables with rich, which takes 60 ms to import: for terminals only."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lyra_tasks.console.text import (
    apply_style,
    display_width,
    format_bytes,
    sanitize,
    supports_colour,
    terminal_width,
    wrap_lines,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_COLUMN_GAP = "  "
_MIN_LAST_WIDTH = 16
_MIN_RATE_S = 0.5  # before, the rate is a guess


class _ByteCount:
    """A number of bytes, and how fast they come."""

    def __init__(self) -> None:
        self._total = 0
        self._started_at = time.monotonic()

    def add(self, count: int) -> None:
        """Add some bytes; the time before the first ones does not count."""
        if not self._total:
            self._started_at = time.monotonic()
        self._total += count

    def __str__(self) -> str:
        seconds = time.monotonic() - self._started_at
        rate = f", {format_bytes(self._total / seconds)}/s" if seconds > _MIN_RATE_S else ""
        return format_bytes(self._total) + rate


class LiveDisplay:
    """The live lines on stderr, below everything else that is printed; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._byte_counts: dict[TaskID, _ByteCount] = {}

    @contextmanager
    def activity(self, text: str, detail: str = "") -> Iterator[None]:
        """Show a live line with the elapsed time until the block ends."""
        with self._lock:
            progress = self._progress = self._progress or _start_progress()
            task = progress.add_task(sanitize(text), total=None, detail=sanitize(detail))
            self._byte_counts[task] = _ByteCount()
        try:
            yield
        finally:
            with self._lock:
                progress.remove_task(task)
                del self._byte_counts[task]
                if not progress.task_ids:
                    progress.stop()
                    self._progress = None

    def count_bytes(self, count: int) -> None:
        """Add to the bytes that the last live line shows, if there is one."""
        if self._progress is None:
            return
        with self._lock:
            if self._progress is not None:
                task, byte_count = next(reversed(self._byte_counts.items()))
                byte_count.add(count)
                self._progress.update(task, detail=str(byte_count))

    def update(self, step: str) -> bool:
        """Show `step`, if not empty, in the last live line; return False if there is none."""
        with self._lock:
            if self._progress and step:
                # at once: a step may be over before the next regular refresh
                self._progress.update(self._progress.task_ids[-1], detail=sanitize(step), refresh=True)
            return self._progress is not None

    def print_above(self, text: str) -> bool:
        """Print styled lines; return False if there are no live lines to print them above."""
        progress = self._progress
        if progress is None:
            return False
        from rich.text import Text

        progress.console.print(Text.from_ansi(text), soft_wrap=True)
        return True


def wrap_table(header: Sequence[str], rows: Sequence[Sequence[str]], stream: Any) -> str:
    """Return a table with cells that are wrapped between words, or lines for each row if words would not fit.

    In the last column, a few words may be too long, such as URLs: these stay whole.
    """
    from rich.table import Table
    from rich.text import Text

    if lines := _wrap_last_column(header, rows, terminal_width(stream)):
        heading, _, body = "\n".join(lines).partition("\n")
        return f"{apply_style(heading, 'dim') if supports_colour(stream) else heading}\n{body}"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name, *cells in zip(header, *rows, strict=True):
        words = [cell.split() for cell in (name, *cells)]
        longest = max(len(word) for cell in words for word in cell)
        table.add_column(name, no_wrap=max(map(len, words)) == 1, min_width=longest, overflow="fold")
    if sum(column.min_width or 0 for column in table.columns) + 2 * len(header) - 2 > terminal_width(stream):
        names = [name.ljust(max(map(len, header))) for name in header]
        lines = ["\n".join(map("  ".join, zip(names, row, strict=True))) for row in rows]
        return wrap_lines("\n\n".join(lines), terminal_width(stream))
    for row in rows:
        table.add_row(*map(Text, row))
    console = _create_console(stream, terminal_width(stream))
    with console.capture() as capture:
        console.print(table)
    return capture.get().removesuffix("\n")


def _wrap_last_column(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a table of which only the last column is wrapped; nothing if that leaves its words too little space."""
    table = [header, *rows]
    widths = [max(map(display_width, column)) for column in zip(*(row[:-1] for row in table), strict=True)]
    last_width = width - sum(widths) - len(_COLUMN_GAP) * len(widths)
    overlong = [row for row in rows if any(display_width(word) > last_width for word in row[-1].split())]
    if last_width < _MIN_LAST_WIDTH or len(overlong) * 2 >= len(rows):
        return []
    indent = " " * (width - last_width)
    lines = []
    for row in table:
        cells = [cell + " " * (width - display_width(cell)) for cell, width in zip(row[:-1], widths, strict=True)]
        folded = wrap_lines(row[-1], last_width).replace("\n", f"\n{indent}")
        lines.append(_COLUMN_GAP.join([*cells, folded]).rstrip())
    return lines


def _create_console(stream: Any, width: int | None) -> Console:
    """Create a console that interprets nothing; without `width`, it follows the terminal's (not `COLUMNS`)."""
    from rich.console import Console

    colours: Any = "standard" if supports_colour(stream) else None
    return Console(
        file=stream, width=width, force_terminal=True, color_system=colours, markup=False, emoji=False, highlight=False,
        _environ={},
    )  # fmt: skip


def _start_progress() -> Progress:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    is_utf8 = (sys.stderr.encoding or "").lower().startswith("utf")
    column = Column(ratio=1, no_wrap=True, overflow="ellipsis" if is_utf8 else "crop")
    progress = Progress(
        SpinnerColumn("dots" if is_utf8 else "line", style="cyan"),
        TextColumn("{task.description}  {task.fields[detail]}", style="cyan", markup=False, table_column=column),
        TimeElapsedColumn(),
        console=_create_console(sys.stderr, width=None),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        expand=True,
    )
    progress.start()
    progress.console.show_cursor(True)  # Ctrl-Z or SIGKILL would leave the terminal without a cursor
    return progress
