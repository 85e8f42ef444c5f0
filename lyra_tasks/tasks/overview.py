"""`status`: where things stand."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import looking
from lyra_tasks.tasks.word import word

_EVERY = 2.0


@word(watch="show it again every two seconds, until Ctrl-C")
def status(c: Any, watch: bool = False, json: bool = False) -> None:
    """What is built, tested, promoted or stale and why, what runs and what is left, and the next sensible word."""
    if watch:
        return console.repeat(_show, _EVERY)
    return _show()


def _show() -> None:
    from lyra_tasks.bundle.read import read_index
    from lyra_tasks.overview.status import BundleRow
    from lyra_tasks.overview.status_facts import gather
    from lyra_tasks.overview.status_show import shown

    work = looking()
    index = read_index(work.bundles, work.config.project.name)
    shown(gather(work, [BundleRow(each.version, each.set_digest) for each in index.versions]))
