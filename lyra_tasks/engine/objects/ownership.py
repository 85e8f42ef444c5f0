"""What a journal says is ours, held against what an engine holds. Nothing here asks anybody: it is a pure function."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.inventory import (
    CONTAINER,
    IMAGE,
    LABEL_NONCE,
    NETWORK,
    VOLUME,
    EngineObject,
    list_labelled_objects,
    list_objects,
)
from lyra_tasks.records.checkouts import list_former_states, merge_journals
from lyra_tasks.records.journal import Journal, JournalEntry

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.paths import Paths


@dataclass(frozen=True)
class OwnedObject:
    """An object in the engine that is ours by label and journal (images: by reference, id and journal)."""

    kind: str
    name: str
    id: str
    run: str


@dataclass(frozen=True)
class _ImageIntent:
    """An image that was about to be made: what its reference was before, and whether nobody else gives such a name."""

    run: str
    previous_id: str
    is_private: bool


@dataclass(frozen=True)
class OwnershipIndex:
    """What was journaled as about to be made, or made, and not as removed or given up since.

    `seen` is how many bytes of the checkout's own journal that was read out of; 0 where it is not the only one.
    """

    nonces: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    images: dict[str, tuple[str, str]] = field(default_factory=dict)
    image_intents: dict[str, _ImageIntent] = field(default_factory=dict)
    runs_by_image_id: dict[str, str] = field(default_factory=dict)
    journal_bytes: int = 0

    def match(self, engine_object: EngineObject) -> OwnedObject | None:
        """The thing as ours, or None if it is somebody else's."""
        run = self._run_by_image(engine_object) if engine_object.kind == IMAGE else self._run_by_label(engine_object)
        return None if run is None else OwnedObject(engine_object.kind, engine_object.name, engine_object.id, run)

    def _run_by_label(self, engine_object: EngineObject) -> str | None:
        key = (engine_object.kind, engine_object.name)
        nonce, run = self.nonces.get(key, ("", ""))
        # a label can be copied; an id that the engine gave cannot
        matches = (
            bool(nonce) and nonce == engine_object.nonce and self.ids.get(key, engine_object.id) == engine_object.id
        )
        return run if matches else None

    def _run_by_image(self, engine_object: EngineObject) -> str | None:
        if engine_object.name == engine_object.id:
            return self.runs_by_image_id.get(engine_object.id)
        image_id, run = self.images.get(engine_object.name, ("", ""))
        if image_id == engine_object.id:
            return run
        intent = self.image_intents.get(engine_object.name)
        if intent is None or engine_object.id == intent.previous_id:
            return None
        # a build that did not end: its image's label says what it is, or its name alone does
        has_matching_title = engine_object.title == engine_object.name.rpartition(":")[0]
        return intent.run if intent.is_private or has_matching_title else None


def build_ownership_index(entries: Iterable[JournalEntry], engine: str) -> OwnershipIndex:
    """What these entries claim in the engine of this id; the same image in another engine is somebody else's."""
    index = OwnershipIndex()
    for entry in entries:
        data = entry.data
        if "kind" not in data or data.get("engine", engine) != engine:
            continue
        with suppress(KeyError, TypeError):  # a damaged line claims nothing; `history --check` names it
            _apply_entry(index, entry, (data["kind"], data["name"]))
    return index


def _apply_entry(index: OwnershipIndex, entry: JournalEntry, key: tuple[str, str]) -> None:
    kind, name = key
    if entry.event == "intent":
        _apply_intent(index, entry, key)
    elif entry.event == "made":
        object_id = entry.data["id"]
        index.image_intents.pop(name, None)
        if kind == IMAGE:
            index.images[name] = (object_id, entry.run)
            index.runs_by_image_id[object_id] = entry.run
        else:
            index.ids[key] = object_id
    elif entry.event in {"removed", "released"}:
        _release(index, key, entry.data["id"])


def _apply_intent(index: OwnershipIndex, entry: JournalEntry, key: tuple[str, str]) -> None:
    if key[0] == IMAGE:
        is_private = bool(entry.data.get("private", "before" not in entry.data))
        index.image_intents.setdefault(key[1], _ImageIntent(entry.run, entry.data.get("before", ""), is_private))
    else:
        index.nonces[key] = (entry.data["nonce"], entry.run)
        index.ids.pop(key, None)


def _release(index: OwnershipIndex, key: tuple[str, str], object_id: str) -> None:
    kind, name = key
    if kind == IMAGE:
        index.image_intents.pop(name, None)
        index.images.pop(name, None)
        if name == object_id:
            index.runs_by_image_id.pop(object_id, None)
    elif index.ids.get(key, object_id) == object_id:
        index.nonces.pop(key, None)
        index.ids.pop(key, None)


__all__ = [
    "CONTAINER",
    "IMAGE",
    "LABEL_NONCE",
    "LABEL_PROJECT",
    "LABEL_RUN",
    "LABEL_SERVICE",
    "NETWORK",
    "VOLUME",
    "OwnedObject",
    "Owner",
    "load_ownership_index",
    "list_owned_objects",
]

LABEL_RUN = "dev.lyra.run"
LABEL_PROJECT = "dev.lyra.project"
LABEL_SERVICE = "dev.lyra.service"
_CLEARED_EVENT = "cleared"


@dataclass(frozen=True)
class Owner:
    """Writes down what one run is about to make, and what it made and removed."""

    journal: Journal
    run: str
    project_id: str

    def record_intent(self, kind: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Journal the intent to make objects of `kind`; returns the labels that each of them must carry, by name."""
        nonces = {name: secrets.token_hex(8) for name in names}
        self.journal.extend(
            self.run, [("intent", {"kind": kind, "name": name, "nonce": nonce}) for name, nonce in nonces.items()]
        )
        return {
            name: {LABEL_RUN: self.run, LABEL_PROJECT: self.project_id, LABEL_NONCE: nonce}
            for name, nonce in nonces.items()
        }

    def record_image_intents(self, engine: Engine, references: Iterable[str], *, private: bool = False) -> None:
        """Journal the intent to make images, each with the id that its reference has before.

        `private` are references that only Lyra gives; others are ours only if the image's label says so, too.
        """
        names = list(references)
        with translate_errors("looking for images"):
            # of these alone: an engine adds up the sizes of all that it lists
            images = engine.api.images(filters={"reference": names}) if names else []
        ids = {tag: image["Id"] for image in images for tag in image.get("RepoTags") or []}
        common = {"kind": IMAGE, "engine": engine.facts.id, "private": private}
        self.journal.extend(
            self.run, [("intent", {**common, "name": name, "before": ids.get(name, "")}) for name in names]
        )

    def record_created(self, kind: str, ids: dict[str, str]) -> None:
        """Journal the engine's ids of objects that were made, by name."""
        self.journal.extend(
            self.run, [("made", {"kind": kind, "name": name, "id": object_id}) for name, object_id in ids.items()]
        )

    def record_created_images(self, engine: Engine, ids: dict[str, str]) -> None:
        """Journal the ids of images that were made, by reference; they are ours in this engine alone."""
        common = {"kind": IMAGE, "engine": engine.facts.id}
        self.journal.extend(
            self.run, [("made", {**common, "name": name, "id": image_id}) for name, image_id in ids.items()]
        )

    def record_removed(self, engine: Engine, objects: Iterable[OwnedObject]) -> None:
        """Journal that objects are gone."""
        self._record("removed", engine, objects)

    def record_released(self, engine: Engine, objects: Iterable[OwnedObject]) -> None:
        """Journal that objects are left to another checkout that made them as well."""
        self._record("released", engine, objects)

    def record_cleared(self, engine: Engine, journal_bytes: int) -> None:
        """Journal that of all that the first `seen` bytes of the journal claim in this engine, nothing is there."""
        self.journal.append(self.run, _CLEARED_EVENT, engine=engine.facts.id, seen=journal_bytes)

    def _record(self, event: str, engine: Engine, objects: Iterable[OwnedObject]) -> None:
        common = {"engine": engine.facts.id}
        records = [
            {**common, "kind": owned_object.kind, "name": owned_object.name, "id": owned_object.id}
            for owned_object in objects
        ]
        if records:
            self.journal.extend(self.run, [(event, record) for record in records])


def load_ownership_index(paths: Paths, engine: str) -> OwnershipIndex:
    """What a checkout claims in an engine, under every name that its project ever had in this folder."""
    previous, journal = [checkout.journal for checkout in list_former_states(paths)], Journal(paths.journal)
    journal_bytes = journal.size
    if previous:  # what was removed of theirs stands in the present one
        return build_ownership_index(merge_journals([*previous, journal]), engine)
    return replace(
        build_ownership_index(journal.entries(_read_cleared_offset(journal, engine)), engine),
        journal_bytes=journal_bytes,
    )


def _read_cleared_offset(journal: Journal, engine: str) -> int:
    """From which byte on a journal may claim anything in this engine: what a cleaning had seen that left nothing."""
    for position, entry in journal.find_backwards(_CLEARED_EVENT):
        offset = entry.data.get("seen")
        if entry.data.get("engine") == engine and isinstance(offset, int) and 0 <= offset <= position:
            return offset
    return 0


def list_owned_objects(engine: Engine, entries: Iterable[JournalEntry], *, run: str | None = None) -> list[OwnedObject]:
    """What the engine holds of ours, by label and journal together; of one run only, without images, if it is given."""
    index = build_ownership_index(entries, engine.facts.id)
    engine_objects = list_objects(engine) if run is None else list_labelled_objects(engine)
    owned_objects = [
        owned_object for engine_object in engine_objects if (owned_object := index.match(engine_object)) is not None
    ]
    return [owned_object for owned_object in owned_objects if run is None or owned_object.run == run]
