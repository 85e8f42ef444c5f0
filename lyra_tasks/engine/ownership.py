"""Ownership, written down twice: a label with a nonce on the object, and the nonce in the journal before it exists.

Only what has both is ever removed. Images carry no such label (it would change their digest): they are owned by the
reference and the id that the journal holds.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.records.journal import Entry, Journal

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

LABEL_RUN = "dev.lyra.run"
LABEL_PROJECT = "dev.lyra.project"
LABEL_NONCE = "dev.lyra.nonce"
LABEL_SERVICE = "dev.lyra.service"
LABEL_TITLE = "org.opencontainers.image.title"

CONTAINER, NETWORK, VOLUME, IMAGE = "container", "network", "volume", "image"


@dataclass(frozen=True)
class Owned:
    """An object in the engine that is ours by label and journal (images: by reference, id and journal)."""

    kind: str
    name: str
    id: str
    run: str


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

    def intend_images(self, engine: Engine, references: Iterable[str]) -> None:
        """Journal the intent to build images, each with the id that its reference has before."""
        with engine_faults("looking for images"):
            held = {tag: image["Id"] for image in engine.api.images() for tag in image.get("RepoTags") or []}
        self.journal.extend(
            self.run,
            [("intent", {"kind": IMAGE, "name": name, "before": held.get(name, "")}) for name in references],
        )

    def made(self, kind: str, ids: dict[str, str]) -> None:
        """Journal the engine's ids of objects that were made, by name."""
        self.journal.extend(self.run, [("made", {"kind": kind, "name": n, "id": i}) for n, i in ids.items()])

    def removed(self, objects: Iterable[Owned]) -> None:
        """Journal that objects are gone."""
        self.journal.extend(
            self.run, [("removed", {"kind": each.kind, "name": each.name, "id": each.id}) for each in objects]
        )


@engine_faults("looking for what is ours")
def owned(engine: Engine, entries: Iterable[Entry], *, run: str | None = None) -> list[Owned]:
    """What the engine holds of ours, by label and journal together; of one run only if `run` is given."""
    history = list(entries)
    nonces = {
        (entry.data["kind"], entry.data["name"]): (entry.data["nonce"], entry.run)
        for entry in history
        if entry.event == "intent" and "nonce" in entry.data
    }
    found = [
        Owned(kind, name, identity, nonces[kind, name][1])
        for kind, name, identity, nonce in _labelled(engine)
        if (kind, name) in nonces and nonces[kind, name][0] == nonce
    ]
    if run is not None:
        return [each for each in found if each.run == run]
    return found + _images(engine, history)


def _labelled(engine: Engine) -> Iterable[tuple[str, str, str, str]]:
    api = engine.api
    only = {"label": LABEL_NONCE}
    for container in api.containers(all=True, filters=only):
        yield CONTAINER, container["Names"][0].lstrip("/"), container["Id"], _nonce(container)
    for network in api.networks(filters=only):
        yield NETWORK, network["Name"], network["Id"], _nonce(network)
    for volume in api.volumes(filters=only)["Volumes"] or []:
        yield VOLUME, volume["Name"], volume["Name"], _nonce(volume)


def _nonce(item: dict[str, Any]) -> str:
    return str((item.get("Labels") or {}).get(LABEL_NONCE, ""))


def _images(engine: Engine, history: list[Entry]) -> list[Owned]:
    """References to the very image we made, to one that a build left which did not end, and images without any."""
    made: dict[str, tuple[str, str]] = {}
    open_builds: dict[str, tuple[str, str]] = {}
    ids: dict[str, str] = {}
    for entry in history:
        if entry.data.get("kind") != IMAGE:
            continue
        name = entry.data["name"]
        if entry.event == "intent" and "before" in entry.data:
            open_builds.setdefault(name, (entry.data["before"], entry.run))
        elif entry.event == "removed":
            open_builds.pop(name, None)
        elif entry.event == "made":
            open_builds.pop(name, None)
            made[name] = (entry.data["id"], entry.run)
            ids[entry.data["id"]] = entry.run
    found = []
    for image in engine.api.images(all=False):
        references = [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
        for reference in references:
            identity, maker = made.get(reference, ("", ""))
            if identity == image["Id"]:
                found.append(Owned(IMAGE, reference, image["Id"], maker))
            elif reference in open_builds and _left_by_a_build(image, reference, open_builds[reference][0]):
                found.append(Owned(IMAGE, reference, image["Id"], open_builds[reference][1]))
        if not references and image["Id"] in ids:
            found.append(Owned(IMAGE, image["Id"], image["Id"], ids[image["Id"]]))
    return found


def _left_by_a_build(image: Mapping[str, Any], reference: str, before: str) -> bool:
    """Whether a failed or killed build made this image: it was not there before, and its label says what it is."""
    title = (image.get("Labels") or {}).get(LABEL_TITLE)
    return bool(image["Id"] != before and title == reference.rpartition(":")[0])
