"""Patterns as in `.dockerignore`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from lyra_tasks.documents import shorten

if TYPE_CHECKING:
    from e2b_dockerfile_utils import PatternMatcher


def compile_patterns(patterns: list[str]) -> PatternMatcher:
    """Return what matches paths as Docker does; raises ValueError if one is not valid, with the reason last."""
    from e2b_dockerfile_utils import PatternMatcher

    try:
        with warnings.catch_warnings(action="ignore"):  # of `re`, about patterns such as `[[a]`
            return PatternMatcher(patterns)
    except ValueError as error:
        what, _, reason = str(error).rpartition(": ")
        raise ValueError(f"{shorten(what)}: {reason}") from error
