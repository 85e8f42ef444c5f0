"""status: what is built, tested, promoted or stale, what runs and what is left, as a value; and the next sensible word.

What is shown depends on the files as they are now and on what the engine says; without an engine, on the files alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

_SOON = 30
"""Days before its end from which on a deviation is pointed at."""


@dataclass(frozen=True)
class ImageRow:
    """One image: its last build (empty before the first), and why it is not current, or nothing."""

    name: str
    version: str
    commit: str
    dirty: bool
    built_at: str
    size: int
    digest: str
    problem: str


@dataclass(frozen=True)
class Tested:
    """The last verdict over the set as it is; `rules` counts the results of the rules by outcome.

    `refused` is what stands against a promotion although it passed, or nothing.
    """

    passed: bool
    run: str
    at: str
    checks: int
    failed: tuple[str, ...]
    rules: dict[str, int]
    refused: str = ""

    __test__ = False


@dataclass(frozen=True)
class DeviationRow:
    """A deviation, and how many days it still holds; below zero: it has ended."""

    rule: str
    scope: str
    owner: str
    expires: datetime.date
    days: int

    @property
    def ends_soon(self) -> bool:
        """Whether somebody should look at it now."""
        return self.days < _SOON


@dataclass(frozen=True)
class LabService:
    """A container of a lab: its state in the engine's word, ports by name, use now (None where it does not run)."""

    name: str
    state: str
    ports: dict[str, str]
    memory: int | None
    memory_limit: int
    cpu: float | None
    cpu_limit: float


@dataclass(frozen=True)
class LabRow:
    """A lab that runs: `kind` is `development`, `test` while its process is at work, or `kept running`."""

    run: str
    kind: str
    services: tuple[LabService, ...]


@dataclass(frozen=True)
class RunRow:
    """A run of the journal: what was typed, when, how its words ended (word, exit code, seconds)."""

    run: str
    at: str
    command: str
    words: tuple[tuple[str, int, float], ...]


@dataclass(frozen=True)
class BundleRow:
    """A version that was promoted, and the set that it holds."""

    version: str
    set_digest: str


@dataclass(frozen=True)
class Status:
    """Everything that `status` shows. `engine` says what it is, or why there is none; `unknown` what was not asked."""

    project: str
    version: str
    branch: str
    commit: str
    dirty: bool
    engine: str
    has_engine: bool
    images: tuple[ImageRow, ...]
    tested: Tested | None
    unknown: str
    promoted: str
    newest: str
    deviations: tuple[DeviationRow, ...]
    labs: tuple[LabRow, ...]
    leftovers: tuple[str, ...]
    runs: tuple[RunRow, ...]
    next: str
    why: str


def deviation_rows(found: Sequence[tuple[str, str, str, datetime.date]], today: datetime.date) -> list[DeviationRow]:
    """Deviations (rule, scope, owner, end), the one that ends first at the top."""
    rows = [DeviationRow(*each, days=(each[3] - today).days) for each in found]
    return sorted(rows, key=lambda each: (each.expires, each.rule, each.scope))


def next_word(
    images: Sequence[ImageRow],
    tested: Tested | None,
    promoted: str,
    deviations: Sequence[DeviationRow],
    leftovers: Sequence[str],
    *,
    dirty: bool,
) -> tuple[str, str]:
    """The word to type next, and why; the word is empty where something has to be mended by hand first."""
    expired = next((each for each in deviations if each.days < 0), None)
    stale = [each for each in images if each.problem]
    if not images:
        return "", "there is no image in the configuration: write an [images.NAME] table"
    if expired is not None:
        return "", f"the deviation from {expired.rule} for {expired.scope} has ended: keep the rule, or renew it"
    if leftovers:
        return "clean", "a run that was killed has left something behind"
    if stale:
        return "build", f"{stale[0].name} {stale[0].problem}"
    if tested is None:
        return "test", "this set has not been tested"
    if not tested.passed:
        return "", f"mend what failed ({', '.join(tested.failed) or 'no check was made'}), then `build test`"
    if tested.refused and not promoted:
        return "", f"`promote` would refuse {tested.refused}: write a [[deviations]] entry, then `test promote`"
    if not promoted:
        return "promote", "this set has passed, and is in no bundle"
    if dirty:
        return "", f"all is done for these files: {promoted}; commit them before a release"
    return "", f"all is done for this commit: {promoted}"
