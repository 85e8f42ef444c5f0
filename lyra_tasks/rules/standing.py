"""Where a project's deviations stand: which are needed, which have expired or soon will; for whoever tells of them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lyra_tasks.config.models import Configuration, Deviation
from lyra_tasks.records.evidence import RuleResult
from lyra_tasks.rules.deviations import covers

SOON = 30  # days


@dataclass(frozen=True)
class Standing:
    """One deviation: `unknown` until its rule was looked at; `days` are left, negative once it has expired."""

    deviation: Deviation
    state: Literal["used", "unused", "expired", "unknown"]
    days: int

    @property
    def ends_soon(self) -> bool:
        """Whether somebody must decide about it within a month."""
        return 0 <= self.days <= SOON


def standings(config: Configuration, results: Sequence[RuleResult], today: datetime.date) -> tuple[Standing, ...]:
    """Every deviation of the configuration, by the results of the last test; expired counts before anything else."""
    return tuple(_standing(each, results, today) for each in config.deviations)


def _standing(deviation: Deviation, results: Sequence[RuleResult], today: datetime.date) -> Standing:
    days = (deviation.expires - today).days
    if days < 0:
        return Standing(deviation, "expired", days)
    looked = [each for each in results if each.rule == deviation.rule and each.outcome != "skipped"]
    needed = any(each.outcome != "kept" and covers(deviation, each.rule, each.scope) for each in looked)
    return Standing(deviation, "used" if needed else "unused" if looked else "unknown", days)
