"""Draw live lines and wrapped tables with rich, which takes 60 ms to import: for terminals only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lyra_tasks.console.text import format_bytes, sanitize, supports_colour, terminal_width, wrap_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class LiveDisplay:
    """The live lines on stderr, below everything else that is printed; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None

    @contextmanager
    def activity(self, text: str, detail: str = "") -> Iterator[Callable[[int], None]]:
        """Show a live line with the elapsed time until the block ends; yield a function that counts bytes in it."""
        with self._lock:
            progress = self._progress = self._progress or _start_progress()
            task = progress.add_task(sanitize(text), total=None, detail=sanitize(detail))
        total = 0

        def add_bytes(count: int) -> None:
            nonlocal total
            total += count
            progress.update(task, detail=format_bytes(total))

        try:
            yield add_bytes
        finally:
            with self._lock:
                progress.remove_task(task)
                if not progress.task_ids:
                    progress.stop()
                    self._progress = None

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
    """Return a table with cells that are wrapped between words, or lines for each row if a word would not fit."""
    from rich.table import Table
    from rich.text import Text

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
