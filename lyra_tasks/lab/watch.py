"""Carrying changes in as they are made: what happens in a checkout is gathered for a moment, then synced as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.lab.sync import CarriedIn, Mirror, carry_in

if TYPE_CHECKING:
    from watchfiles import Change

_AT_MOST = 400  # milliseconds that a burst of changes is gathered before it is carried in
_QUIET = 50  # milliseconds without a change that end a burst
_BEGINNING = 250  # milliseconds until what was changed before is looked for
_OURS = {".git", ".lyra"}


def follow(mirrors: Sequence[Mirror], done: Callable[[CarriedIn], None]) -> None:
    """Carry every change in until the user interrupts; `done` is called after each sync that changed something.

    Each time the whole checkout is compared, so that no event can be missed, however many come at once.
    """
    from watchfiles import watch

    folders = {mirror.context for mirror in mirrors}
    changed = watch(
        *folders,
        watch_filter=_wanted,
        debounce=_AT_MOST,
        step=_QUIET,
        raise_interrupt=True,
        rust_timeout=_BEGINNING,
        yield_on_timeout=True,
    )
    began = False
    for batch in changed:
        paths = [Path(path) for _, path in batch]
        for mirror in mirrors:
            # what was changed before the watching began brings no event
            if not began or any(path.is_relative_to(mirror.context) for path in paths):
                _sync(mirror, done)
        began = True


def _sync(mirror: Mirror, done: Callable[[CarriedIn], None]) -> None:
    result = carry_in(mirror)
    if result.put or result.deleted:
        done(result)


def _wanted(_change: Change, path: str) -> bool:
    return not _OURS & set(Path(path).parts)
