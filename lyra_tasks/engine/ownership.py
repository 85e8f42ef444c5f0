"""Ownership, written down twice: a label with a nonce on the object, and the nonce in the journal before it exists.

Only what has both is ever removed. Images carry no such label (it would change their digest): they are owned by the
reference and the id that the journal holds, in the engine where they were made.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lyra_tasks.engine.claims import Claims, Owned, claims_of
from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.things import CONTAINER, IMAGE, LABEL_NONCE, NETWORK, VOLUME, everything, labelled
from lyra_tasks.records.checkouts import former, history
from lyra_tasks.records.journal import Entry, Journal

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine
    from lyra_tasks.run import Paths

__all__ = [
    "CONTAINER",
    "IMAGE",
    "LABEL_NONCE",
    "LABEL_PROJECT",
    "LABEL_RUN",
    "LABEL_SERVICE",
    "NETWORK",
    "VOLUME",
    "Owned",
    "Owner",
    "claimed_by",
    "owned",
]

LABEL_RUN = "dev.lyra.run"
LABEL_PROJECT = "dev.lyra.project"
LABEL_SERVICE = "dev.lyra.service"
_CLEARED = "cleared"


@dataclass(frozen=True)
class Owner:
    """Writes down what one run is about to make, and what it made and removed."""

    journal: Journal
    run: str
    project_id: str

    def intend(self, kind: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Journal the intent to make objects of `kind`; returns the labels that each of them must carry, by name."""
        nonces = {name: secrets.token_hex(8) for name in names}
        self.journal.extend(
            self.run, [("intent", {"kind": kind, "name": name, "nonce": nonce}) for name, nonce in nonces.items()]
        )
        return {
            name: {LABEL_RUN: self.run, LABEL_PROJECT: self.project_id, LABEL_NONCE: nonce}
            for name, nonce in nonces.items()
        }

    def intend_images(self, engine: Engine, references: Iterable[str], *, private: bool = False) -> None:
        """Journal the intent to make images, each with the id that its reference has before.

        `private` are references that only Lyra gives; others are ours only if the image's label says so, too.
        """
        names = list(references)
        with engine_faults("looking for images"):
            # of these alone: an engine adds up the sizes of all that it lists
            listed = engine.api.images(filters={"reference": names}) if names else []
        held = {tag: image["Id"] for image in listed for tag in image.get("RepoTags") or []}
        common = {"kind": IMAGE, "engine": engine.facts.id, "private": private}
        self.journal.extend(
            self.run, [("intent", {**common, "name": name, "before": held.get(name, "")}) for name in names]
        )

    def made(self, kind: str, ids: dict[str, str]) -> None:
        """Journal the engine's ids of objects that were made, by name."""
        self.journal.extend(self.run, [("made", {"kind": kind, "name": n, "id": i}) for n, i in ids.items()])

    def made_images(self, engine: Engine, ids: dict[str, str]) -> None:
        """Journal the ids of images that were made, by reference; they are ours in this engine alone."""
        common = {"kind": IMAGE, "engine": engine.facts.id}
        self.journal.extend(self.run, [("made", {**common, "name": n, "id": i}) for n, i in ids.items()])

    def removed(self, engine: Engine, objects: Iterable[Owned]) -> None:
        """Journal that objects are gone."""
        self._over("removed", engine, objects)

    def released(self, engine: Engine, objects: Iterable[Owned]) -> None:
        """Journal that objects are left to another checkout that made them as well."""
        self._over("released", engine, objects)

    def cleared(self, engine: Engine, seen: int) -> None:
        """Journal that of all that the first `seen` bytes of the journal claim in this engine, nothing is there."""
        self.journal.append(self.run, _CLEARED, engine=engine.facts.id, seen=seen)

    def _over(self, event: str, engine: Engine, objects: Iterable[Owned]) -> None:
        common = {"engine": engine.facts.id}
        gone = [{**common, "kind": each.kind, "name": each.name, "id": each.id} for each in objects]
        if gone:
            self.journal.extend(self.run, [(event, each) for each in gone])


def claimed_by(paths: Paths, engine: str) -> Claims:
    """What a checkout claims in an engine, under every name that its project ever had in this folder."""
    before, own = [each.journal for each in former(paths)], Journal(paths.journal)
    seen = own.size
    if before:  # what was removed of theirs stands in the present one
        return claims_of(history([*before, own]), engine)
    return replace(claims_of(own.entries(_cleared(own, engine)), engine), seen=seen)


def _cleared(journal: Journal, engine: str) -> int:
    """From which byte on a journal may claim anything in this engine: what a cleaning had seen that left nothing."""
    for begin, entry in journal.told_last(_CLEARED):
        seen = entry.data.get("seen")
        if entry.data.get("engine") == engine and isinstance(seen, int) and 0 <= seen <= begin:
            return seen
    return 0


def owned(engine: Engine, entries: Iterable[Entry], *, run: str | None = None) -> list[Owned]:
    """What the engine holds of ours, by label and journal together; of one run only, without images, if it is given."""
    claims = claims_of(entries, engine.facts.id)
    things = everything(engine) if run is None else labelled(engine)
    found = [mine for each in things if (mine := claims.of(each)) is not None]
    return [each for each in found if run is None or each.run == run]
