"""Groups of checks: each is made in its own order in a lab of its own, several at a time where there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lyra_tasks.config.models import Test
from lyra_tasks.lab.plan import LabPlan


@dataclass(frozen=True)
class PlannedGroup:
    """The checks of one group and their lab; `name` is empty for those that name no group.

    A lab of another platform than the engine's own makes them again: the name of its groups ends with `@linux-arm64` or
    the like, which is their `label`. `images` are the ids of what is checked there, by image.
    """

    name: str
    lab: LabPlan
    tests: tuple[Test, ...]
    platform: str = ""
    label: str = ""
    images: Mapping[str, str] = field(default_factory=dict)


def grouped(tests: Iterable[Test]) -> dict[str, tuple[Test, ...]]:
    """The checks by group, both in the order of the file."""
    found: dict[str, tuple[Test, ...]] = {}
    for test in tests:
        found[test.group] = (*found.get(test.group, ()), test)
    return found


def together(groups: Sequence[PlannedGroup], cpus: float, memory: int) -> tuple[tuple[PlannedGroup, ...], ...]:
    """The groups in rounds: those of one run at the same time, within `cpus` and `memory` (bytes).

    The order of the file is kept. A lab that does not fit at all has a round to itself, and is refused when it begins.
    """
    rounds: list[tuple[PlannedGroup, ...]] = []
    for group in groups:
        beside = (*rounds[-1], group) if rounds else (group,)
        fits = (
            sum(each.lab.cpus for each in beside) <= cpus + 1e-9 and sum(each.lab.memory for each in beside) <= memory
        )
        if rounds and fits:
            rounds[-1] = beside
        else:
            rounds.append((group,))
    return tuple(rounds)


def labelled(group: str, service: str) -> str:
    """What a service is called in results: its name, or GROUP/NAME."""
    return f"{group}/{service}" if group else service
