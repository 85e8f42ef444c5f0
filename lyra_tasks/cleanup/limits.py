"""Apply the limits of `[resources]` after a command: what goes by itself. The rule is in `records/retention.py`."""

from __future__ import annotations

from lyra_tasks.cleanup.cache_limits import remove_unused_cache
from lyra_tasks.cleanup.expired_images import remove_expired_images
from lyra_tasks.cleanup.facts import find_live_runs, list_own_journals
from lyra_tasks.cleanup.journal_limits import archive_old_entries
from lyra_tasks.engine.objects.disk_usage import prune_build_cache
from lyra_tasks.engine.sandbox import limit_log
from lyra_tasks.engine.workspace import Workspace


def keep_limits(work: Workspace, *, has_built: bool = False) -> None:
    """Remove what nothing needs any more, beyond the limits of `[resources]`; a line says what went.

    If the command `has_built` something, or an image went, the private engine's build cache is pruned: what belonged to
    the image counts as cache from then on.
    """
    if remove_expired_images(work) or has_built:
        prune_build_cache(work.engine, work.config.resources.cache)
    keep_file_limits(work)


def keep_file_limits(work: Workspace, *, is_due: bool = False) -> None:
    """Keep the limits of what is not in an engine: those of caches once a day, or if that `is_due`."""
    if not find_live_runs(work, list_own_journals(work)):
        archive_old_entries(work)
    remove_unused_cache(work, is_due=is_due)
    limit_log(work.paths.state)
