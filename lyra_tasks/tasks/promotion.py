"""`verify` and `bundle.*`: bundles that exist."""

from __future__ import annotations

from typing import Any

from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import word


@word(positional=("path",), path="the folder of one version; default: the newest bundle of this project")
def verify(c: Any, path: str = "", json: bool = False) -> None:
    """Rehash every byte of a bundle; missing, changed and extra files are refused with 6."""
    from pathlib import Path

    from lyra_tasks.bundle import show
    from lyra_tasks.bundle.verify import verify

    show.verified(verify(Path(path) if path else show.newest(workspace().bundles)))


@word("list")
def listing(c: Any, json: bool = False) -> None:
    """The bundles of this project, newest first."""
    from lyra_tasks.bundle import show

    show.listed(workspace().bundles)
