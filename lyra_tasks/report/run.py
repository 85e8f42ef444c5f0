"""The report in a run's own folder, written whenever the run came as far as to have results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lyra_tasks.files import write_file
from lyra_tasks.records.documents import documents_of_run
from lyra_tasks.report.page import page, prepare

NAME = "report.html"


@contextmanager
def reported(folder: Path) -> Iterator[None]:
    """Write the report of the run in `folder` at the end of the block, however it ends; nothing without results."""
    prepare()
    try:
        yield
    finally:
        documents = documents_of_run(folder)
        if documents is not None:
            write_file(folder / NAME, page(documents).encode())
