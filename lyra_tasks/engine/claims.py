"""What a journal says is ours, held against what an engine holds. Nothing here asks anybody: it is a pure function."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from lyra_tasks.engine.things import IMAGE, Thing
from lyra_tasks.records.journal import Entry


@dataclass(frozen=True)
class Owned:
    """An object in the engine that is ours by label and journal (images: by reference, id and journal)."""

    kind: str
    name: str
    id: str
    run: str


@dataclass(frozen=True)
class _Begun:
    """An image that was about to be made: what its reference was before, and whether nobody else gives such a name."""

    run: str
    before: str
    private: bool


@dataclass(frozen=True)
class Claims:
    """What was journaled as about to be made, or made, and not as removed or given up since.

    `seen` is how many bytes of the checkout's own journal that was read out of; 0 where it is not the only one.
    """

    labels: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    images: dict[str, tuple[str, str]] = field(default_factory=dict)
    begun: dict[str, _Begun] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    seen: int = 0

    def of(self, thing: Thing) -> Owned | None:
        """The thing as ours, or None if it is somebody else's."""
        run = self._image(thing) if thing.kind == IMAGE else self._labelled(thing)
        return None if run is None else Owned(thing.kind, thing.name, thing.id, run)

    def _labelled(self, thing: Thing) -> str | None:
        key = (thing.kind, thing.name)
        nonce, run = self.labels.get(key, ("", ""))
        # a label can be copied; an id that the engine gave cannot
        same = bool(nonce) and nonce == thing.nonce and self.ids.get(key, thing.id) == thing.id
        return run if same else None

    def _image(self, thing: Thing) -> str | None:
        if thing.name == thing.id:
            return self.layers.get(thing.id)
        identity, run = self.images.get(thing.name, ("", ""))
        if identity == thing.id:
            return run
        begun = self.begun.get(thing.name)
        if begun is None or thing.id == begun.before:
            return None
        # a build that did not end: its image's label says what it is, or its name alone does
        titled = thing.title == thing.name.rpartition(":")[0]
        return begun.run if begun.private or titled else None


def claims_of(entries: Iterable[Entry], engine: str) -> Claims:
    """What these entries claim in the engine of this id; the same image in another engine is somebody else's."""
    found = Claims()
    for entry in entries:
        data = entry.data
        if "kind" not in data or data.get("engine", engine) != engine:
            continue
        with suppress(KeyError, TypeError):  # a damaged line claims nothing; `history --check` names it
            _take(found, entry, (data["kind"], data["name"]))
    return found


def _take(found: Claims, entry: Entry, key: tuple[str, str]) -> None:
    kind, name = key
    if entry.event == "intent":
        _intended(found, entry, key)
    elif entry.event == "made":
        identity = entry.data["id"]
        found.begun.pop(name, None)
        if kind == IMAGE:
            found.images[name] = (identity, entry.run)
            found.layers[identity] = entry.run
        else:
            found.ids[key] = identity
    elif entry.event in {"removed", "released"}:
        _given_up(found, key, entry.data["id"])


def _intended(found: Claims, entry: Entry, key: tuple[str, str]) -> None:
    if key[0] == IMAGE:
        private = bool(entry.data.get("private", "before" not in entry.data))
        found.begun.setdefault(key[1], _Begun(entry.run, entry.data.get("before", ""), private))
    else:
        found.labels[key] = (entry.data["nonce"], entry.run)
        found.ids.pop(key, None)


def _given_up(found: Claims, key: tuple[str, str], identity: str) -> None:
    kind, name = key
    if kind == IMAGE:
        found.begun.pop(name, None)
        found.images.pop(name, None)
        if name == identity:
            found.layers.pop(identity, None)
    elif found.ids.get(key, identity) == identity:
        found.labels.pop(key, None)
        found.ids.pop(key, None)
