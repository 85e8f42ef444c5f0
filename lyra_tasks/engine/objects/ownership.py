"""Record which engine objects are ours in the journal, and match the objects of an engine with it.

A container, network or volume carries a label with a nonce that is in the journal before the object is created; it is
removed only if both agree. Images get no such label, since it would change their digest: they are identified by
reference, id and engine.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.inventory import IMAGE, LABEL_NONCE, LABEL_PROJECT, EngineObject, list_labelled_objects
from lyra_tasks.records.checkouts import list_former_states, merge_journals
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.journal_entry import JournalEntry
from lyra_tasks.redaction import strip_url_credentials

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.paths import Paths

LABEL_RUN = "dev.lyra.run"
LABEL_SERVICE = "dev.lyra.service"
ENGINE_EVENT = "engine"
_CLEARED_EVENT = "cleared"


@dataclass(frozen=True)
class OwnedObject:
    """An engine object that is ours, and the run that created it."""

    kind: str
    name: str
    id: str
    run: str


@dataclass(frozen=True)
class _ImageIntent:
    """An image that was about to be built: the previous id of its reference, and whether only Lyra uses such a name."""

    run: str
    previous_id: str
    is_private: bool


@dataclass(frozen=True)
class OwnershipIndex:
    """The objects that a journal claims in one engine.

    Keys are (kind, name), and references for images; `nonces` and `images` also hold the run. `last_entry` is the
    number of the last entry that was read, 0 if there are several journals.
    """

    nonces: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    images: dict[str, tuple[str, str]] = field(default_factory=dict)
    image_intents: dict[str, _ImageIntent] = field(default_factory=dict)
    runs_by_image_id: dict[str, str] = field(default_factory=dict)
    last_entry: int = 0

    def match(self, engine_object: EngineObject) -> OwnedObject | None:
        """Return the object as ours, or None if it is not."""
        run = self._run_by_image(engine_object) if engine_object.kind == IMAGE else self._run_by_label(engine_object)
        return None if run is None else OwnedObject(engine_object.kind, engine_object.name, engine_object.id, run)

    def _run_by_label(self, engine_object: EngineObject) -> str | None:
        key = (engine_object.kind, engine_object.name)
        nonce, run = self.nonces.get(key, ("", ""))
        # a label can be copied, an id cannot
        has_same_id = self.ids.get(key, engine_object.id) == engine_object.id
        return run if nonce and nonce == engine_object.nonce and has_same_id else None

    def _run_by_image(self, engine_object: EngineObject) -> str | None:
        if engine_object.name == engine_object.id:
            # a pull was interrupted: its image has no other name than the digest, which nobody had before
            pulls = (self.image_intents.get(digest) for digest in engine_object.digests)
            pulled = next((intent.run for intent in pulls if intent is not None), None)
            return self.runs_by_image_id.get(engine_object.id, pulled)
        image_id, run = self.images.get(engine_object.name, ("", ""))
        if image_id == engine_object.id:
            return run
        intent = self.image_intents.get(engine_object.name)
        if intent is None or engine_object.id == intent.previous_id:
            return None
        # the build was interrupted: its image is known by its title label, or by a name that only Lyra uses
        has_matching_title = engine_object.title == engine_object.name.rpartition(":")[0]
        return intent.run if intent.is_private or has_matching_title else None


def read_object_entries(journal: Journal, start: int = 0) -> Iterator[JournalEntry]:
    """Yield the entries of a journal that an ownership index is built from, and few others: parsing all takes long."""
    return journal.entries(start, key="kind")


def build_ownership_index(entries: Iterable[JournalEntry], engine: str) -> OwnershipIndex:
    """Build the index of journal entries for the engine with this id."""
    index = OwnershipIndex()
    for entry in entries:
        data = entry.data
        if "kind" not in data or data.get("engine", engine) != engine:
            continue
        with suppress(KeyError, TypeError):  # a damaged entry claims nothing; `history --check` reports it
            apply_entry = _apply_image_entry if data["kind"] == IMAGE else _apply_labelled_entry
            apply_entry(index, entry)
    return index


def _apply_image_entry(index: OwnershipIndex, entry: JournalEntry) -> None:
    name = entry.data["name"]
    if entry.event == "intent":
        is_private = bool(entry.data.get("private", "previous_id" not in entry.data))
        index.image_intents.setdefault(name, _ImageIntent(entry.run, entry.data.get("previous_id", ""), is_private))
    elif entry.event == "created":
        image_id = entry.data["id"]
        index.image_intents.pop(name, None)
        index.images[name] = (image_id, entry.run)
        if not entry.data.get("foreign"):
            index.runs_by_image_id[image_id] = entry.run
    elif entry.event in {"removed", "disowned"}:
        image_id = entry.data["id"]
        index.image_intents.pop(name, None)
        index.images.pop(name, None)
        if name == image_id:
            index.runs_by_image_id.pop(image_id, None)


def _apply_labelled_entry(index: OwnershipIndex, entry: JournalEntry) -> None:
    key = entry.data["kind"], entry.data["name"]
    if entry.event == "intent":
        index.nonces[key] = (entry.data["nonce"], entry.run)
        index.ids.pop(key, None)
    elif entry.event == "created":
        index.ids[key] = entry.data["id"]
    elif entry.event in {"removed", "disowned"} and index.ids.get(key, entry.data["id"]) == entry.data["id"]:
        index.nonces.pop(key, None)
        index.ids.pop(key, None)


@dataclass(frozen=True)
class Owner:
    """Records in the journal what one run is about to create, and what it created and removed."""

    journal: Journal
    run: str
    project_id: str
    _recorded_engines: set[str] = field(default_factory=set, compare=False, repr=False)

    def record_intent(self, engine: Engine, kind: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Record the intent to create objects and return the labels that each of them must have, by name."""
        nonces = {name: secrets.token_hex(8) for name in names}
        common = {"kind": kind, "engine": engine.facts.id}
        self._record_intents(engine, [{**common, "name": name, "nonce": nonce} for name, nonce in nonces.items()])
        return {
            name: {LABEL_RUN: self.run, LABEL_PROJECT: self.project_id, LABEL_NONCE: nonce}
            for name, nonce in nonces.items()
        }

    def record_image_intents(self, engine: Engine, references: Iterable[str], *, private: bool = False) -> None:
        """Record the intent to build images, with the present ids of their references.

        References are `private` if only Lyra uses them; other images must also have a matching title label.
        """
        names = list(references)
        with translate_errors("listing images"):
            # filtered, because the engine computes the size of each image that it lists
            images = engine.api.images(filters={"reference": names}) if names else []
        ids = {tag: image["Id"] for image in images for tag in image.get("RepoTags") or []}
        common = {"kind": IMAGE, "engine": engine.facts.id, "private": private}
        self._record_intents(engine, [{**common, "name": name, "previous_id": ids.get(name, "")} for name in names])

    def record_created(self, engine: Engine, kind: str, ids: dict[str, str]) -> None:
        """Record the ids of created objects, by name; they are ours in this engine only."""
        common = {"kind": kind, "engine": engine.facts.id}
        self._record("created", [{**common, "name": name, "id": object_id} for name, object_id in ids.items()])

    def record_created_images(self, engine: Engine, ids: dict[str, str], *, foreign: bool = False) -> None:
        """Record the ids of built images, by reference.

        An image is `foreign` if others may have it, too: only the reference is ours, not the image once it has none.
        """
        common = {"kind": IMAGE, "engine": engine.facts.id, **({"foreign": True} if foreign else {})}
        self._record("created", [{**common, "name": name, "id": image_id} for name, image_id in ids.items()])

    def record_removed(self, engine: Engine, objects: Iterable[OwnedObject]) -> None:
        """Record that objects were removed."""
        self._record("removed", [_describe(engine, item) for item in objects])

    def record_disowned(self, engine: Engine, objects: Iterable[OwnedObject]) -> None:
        """Record that objects are left to another checkout that created them, too."""
        self._record("disowned", [_describe(engine, item) for item in objects])

    def record_cleared(self, engine_id: str, last_entry: int) -> None:
        """Record that no object claimed up to this entry of the journal still exists in this engine."""
        self.journal.append(self.run, _CLEARED_EVENT, engine=engine_id, last_entry=last_entry)

    def _record_intents(self, engine: Engine, records: list[dict[str, Any]]) -> None:
        """Record intents; those of a run that are the first in an engine come after how that engine is reached."""
        events = [("intent", record) for record in records]
        if events and engine.facts.id not in self._recorded_engines:
            events.insert(0, (ENGINE_EVENT, _describe_engine(engine, self.project_id)))
            self._recorded_engines.add(engine.facts.id)
        self.journal.extend(self.run, events)

    def _record(self, event: str, records: Iterable[dict[str, Any]]) -> None:
        self.journal.extend(self.run, [(event, record) for record in records])


def _describe_engine(engine: Engine, project_id: str) -> dict[str, Any]:
    """Return what finds an engine again, also where the configuration, shell or user is another one by then."""
    return {
        "engine": engine.facts.id,
        "version": engine.facts.version,
        "context": engine.cli_environment.get("DOCKER_CONTEXT", ""),
        "host": strip_url_credentials(engine.cli_environment.get("DOCKER_HOST", "")),
        "private": engine.facts.sandboxed,
        "checkout": project_id,
    }


def _describe(engine: Engine, item: OwnedObject) -> dict[str, str]:
    return {"engine": engine.facts.id, "kind": item.kind, "name": item.name, "id": item.id}


def load_ownership_index(paths: Paths, engine: str) -> OwnershipIndex:
    """Load what a checkout claims in an engine, under all names that its project ever had."""
    former, journal = [checkout.journal for checkout in list_former_states(paths)], Journal(paths.journal)
    last_entry = journal.last_seq
    if former:  # removals of their objects are recorded in the present journal
        return build_ownership_index(merge_journals([*former, journal]), engine)
    index = build_ownership_index(read_object_entries(journal, read_cleared_offset(journal, engine)), engine)
    return replace(index, last_entry=last_entry)


def read_cleared_offset(journal: Journal, engine: str) -> int:
    """Return how many bytes of a journal a complete cleanup has settled for this engine."""
    for position, entry in journal.find_backwards(_CLEARED_EVENT):
        last, offset = entry.data.get("last_entry"), entry.data.get("journal_bytes")
        if entry.data.get("engine") != engine:
            continue
        if type(last) is int and 0 < last < entry.seq:
            return journal.find_end(last)
        # of older versions, which archived nothing
        if type(offset) is int and 0 <= offset <= position and not journal.archives:
            return offset
    return 0


def list_owned_objects(engine: Engine, entries: Iterable[JournalEntry], *, run: str) -> list[OwnedObject]:
    """Return the containers, networks and volumes of one run in an engine."""
    return select_owned_objects(engine, list_labelled_objects(engine), entries, run=run)


def select_owned_objects(
    engine: Engine, engine_objects: Iterable[EngineObject], entries: Iterable[JournalEntry], *, run: str
) -> list[OwnedObject]:
    """Return the objects in `engine_objects` that are of one run."""
    index = build_ownership_index(entries, engine.facts.id)
    matches = map(index.match, engine_objects)
    return [match for match in matches if match is not None and match.run == run]
