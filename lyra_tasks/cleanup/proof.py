"""The parts of a cleaning's proof, and what is said of residue."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lyra_tasks.cleanup.plan import CleanPlan
from lyra_tasks.engine.claims import Owned
from lyra_tasks.engine.connect import Engine
from lyra_tasks.engine.space import Figures
from lyra_tasks.engine.things import CONTAINER, IMAGE, NETWORK, VOLUME, Thing
from lyra_tasks.engine.traces import Traces
from lyra_tasks.errors import ResidueError
from lyra_tasks.records.cleanup import CleanupProof, Forgotten, Inventory, Item, Kept, Residue

_REMOVES = {
    CONTAINER: "docker rm --force --volumes",
    NETWORK: "docker network rm",
    VOLUME: "docker volume rm",
    IMAGE: "docker rmi",
}


@dataclass(frozen=True)
class Beginning:
    """A cleaning when it begins: what is known then, for the proof at its end."""

    run: str
    level: Literal["objects", "cache", "all", "gone"]
    engine: Engine | None
    things: tuple[Thing, ...]
    at: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def proof(
        self,
        before: Inventory,
        after: Inventory,
        things: Iterable[Thing],
        *,
        removed: Sequence[Owned],
        kept: Sequence[Kept],
        residue: Sequence[Residue],
        stopped: bool,
        live: bool = False,
        forgotten: Sequence[Forgotten] = (),
    ) -> CleanupProof:
        """The proof, where the engine holds `things` at the end; nothing is clean while a `live` run goes on."""
        facts = self.engine.facts if self.engine is not None else None
        return CleanupProof(
            run=self.run,
            level=self.level,
            started_at=self.started_at,
            seconds=round(time.monotonic() - self.at, 3),
            engine={"id": facts.id, "version": facts.version} if facts else None,
            before=before,
            after=after,
            removed=items(removed),
            kept=list(kept),
            residue=list(residue),
            others_gone=vanished(self.things, things, removed),
            sandbox_stopped=stopped,
            forgotten=list(forgotten),
            clean=not residue and not live,
        )


def inventory(things: Iterable[Thing], space: Figures | None, traces: Traces, temporary: Iterable[Path]) -> Inventory:
    """What there is at one moment, as it is recorded."""
    by_kind: dict[str, dict[str, str]] = {CONTAINER: {}, NETWORK: {}, VOLUME: {}, IMAGE: {}}
    for each in things:
        by_kind[each.kind] |= {each.name: each.id} if each.kind == IMAGE else {each.id: each.name}
    return Inventory(
        containers=by_kind[CONTAINER],
        networks=by_kind[NETWORK],
        volumes=sorted(by_kind[VOLUME]),
        images=by_kind[IMAGE],
        layers_size=space.layers if space else 0,
        cache_size=space.cache if space else 0,
        builders=list(traces.builders),
        temporary_files=[str(path) for path in temporary],
        processes=traces.processes,
        mounts=list(traces.mounts),
        interfaces=list(traces.interfaces),
    )


def items(objects: Iterable[Owned]) -> list[Item]:
    """Objects as they are recorded."""
    return [Item(kind=each.kind, name=each.name, id=each.id, run=each.run) for each in objects]


def kept(plan: CleanPlan) -> list[Kept]:
    """What is ours and stays on purpose."""
    reasons = {each: why for each, why in plan.stays.items() if each not in plan.held}
    return [Kept(kind=each.kind, name=each.name, id=each.id, run=each.run, why=why) for each, why in reasons.items()]


def vanished(before: Iterable[Thing], after: Iterable[Thing], removed: Iterable[Owned]) -> list[str]:
    """What went meanwhile without having been removed by this cleaning."""
    gone = {(each.kind, each.name) for each in before} - {(each.kind, each.name) for each in after}
    return sorted(f"{kind} {name}" for kind, name in gone - {(each.kind, each.name) for each in removed})


def residue_of(item: Owned, user: str | None, reason: str) -> Residue:
    """An object that is left: why, and what removes it."""
    command = f"{_REMOVES[item.kind]} {item.id if item.kind == CONTAINER else item.name}"
    if user is None:
        return Residue(kind=item.kind, name=item.name, why=reason or "the engine still lists it", remove=command)
    why = f"the container {user} uses it, which is not ours"
    return Residue(kind=item.kind, name=item.name, why=why, remove=f"end {user}, then {command}")


def deleted(folder: Path) -> list[Residue]:
    """Delete a folder; what of it is left."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return []
    return [Residue(kind="folder", name=str(folder), why="still there", remove=f"rm -r {folder}")]


def require_clean(proof: CleanupProof) -> None:
    """ResidueError naming everything that is left, and what removes it."""
    if proof.residue:
        raise ResidueError(
            f"{len(proof.residue)} thing(s) of this project are left",
            hint="remove them as it is said, then run `clean` again",
            details=tuple(f"{each.kind} {each.name}: {each.why}; {each.remove}" for each in proof.residue),
        )
