"""Suggestions for names that do not exist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lyra_tasks.errors import UsageError


def closest_match(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like `name`, or an empty text."""
    from difflib import get_close_matches  # loaded only after a mistake

    return next(iter(get_close_matches(name, list(known), 1)), "")


def is_misspelling(name: str, known: str) -> bool:
    """Return whether one typing mistake turns `known` into `name`: a character more, less, other, or swapped."""
    shorter = min(len(name), len(known))
    start = next((index for index in range(shorter) if name[index] != known[index]), shorter)
    end = next((index for index in range(shorter - start) if name[-1 - index] != known[-1 - index]), shorter - start)
    written, meant = name[start : len(name) - end], known[start : len(known) - end]
    return 1 <= max(len(written), len(meant)) <= 2 and (max(len(written), len(meant)) == 1 or written == meant[::-1])


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the hint `Did you mean …?`, or `otherwise` if no known name is similar."""
    match = closest_match(name, known)
    return f"Did you mean {match}?" if match else otherwise


def select_known(names: Sequence[str], known: Sequence[str], kind: str) -> tuple[str, ...]:
    """Return the `known` names that `names` selects (none selects all), in the order of `known`.

    Raises:
        UsageError: A name is not known.
    """
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known, f"Known: {', '.join(known) or 'none'}")
            raise UsageError(f"Unknown {kind} {name!r}", hint=hint)
    return tuple(name for name in known if not names or name in names)
