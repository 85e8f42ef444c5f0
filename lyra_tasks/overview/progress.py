"""The one decision how far a checkout is from a promotion, shared by `status` and `explain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Progress = Literal["stale", "untested", "failed", "refused", "tested", "promoted"]

REMAINING_TASKS: Mapping[Progress, str] = {
    "stale": "build test promote",
    "untested": "test promote",
    "failed": "build test promote",
    "refused": "build test promote",
    "tested": "promote",
    "promoted": "",
}
"""The tasks to run; before those of `failed` and `refused`, something must be done by hand."""


def assess_progress(
    *, is_stale: bool, is_tested: bool, has_failures: bool, is_refused: bool, is_promoted: bool
) -> Progress:
    """Return the first thing that is missing for a promotion of the images as they are."""
    if is_stale:
        return "stale"
    if not is_tested:
        return "untested"
    if is_promoted:
        return "promoted"
    if is_refused:
        return "refused"
    return "failed" if has_failures else "tested"
