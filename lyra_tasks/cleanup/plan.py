"""What `clean` will remove: what is ours by label and journal together, and the engine that Lyra started itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lyra_tasks.engine.ownership import CONTAINER, IMAGE, NETWORK, VOLUME, Owned


@dataclass(frozen=True)
class CleanPlan:
    """Objects to remove in the engine, whether the sandbox is stopped, and what `--all` takes with it."""

    objects: tuple[Owned, ...]
    stop_sandbox: bool
    forget: bool

    def count(self, kind: str) -> int:
        """How many objects of one kind go."""
        return sum(each.kind == kind for each in self.objects)

    @property
    def summary(self) -> str:
        """What goes, in a line."""
        counts = [f"{self.count(kind)} {kind}(s)" for kind in (CONTAINER, NETWORK, VOLUME, IMAGE) if self.count(kind)]
        if self.stop_sandbox:
            counts.append("the sandbox engine")
        if self.forget:
            counts.append(".lyra/ and the sandbox's data")
        return ", ".join(counts) or "nothing"


def plan(owned: Sequence[Owned], *, sandbox_running: bool, everything: bool) -> CleanPlan:
    """Plan the cleaning of one checkout; bundles, journal, records and sources always stay."""
    return CleanPlan(tuple(owned), sandbox_running, everything)
