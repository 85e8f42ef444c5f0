"""Patterns as in `.dockerignore`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2b_dockerfile_utils import PatternMatcher


def compile_patterns(patterns: list[str]) -> PatternMatcher:
    """Return what matches paths as Docker does; raises ValueError if a pattern is not valid."""
    from e2b_dockerfile_utils import PatternMatcher

    with warnings.catch_warnings(action="ignore"):  # of `re`, about patterns such as `[[a]`
        return PatternMatcher(patterns)
