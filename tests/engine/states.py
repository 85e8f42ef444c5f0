"""Generate states of an engine with objects of several checkouts and of strangers, and what `clean` must do to them.

The expectation follows from who creates and uses an object, independently of the logic of the cleanup.
"""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyra_tasks.config.load import load_config
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.containers import create_containers, create_networks, create_volumes
from lyra_tasks.engine.objects.holder import HOLD_PATH, build_holder_program
from lyra_tasks.engine.objects.inventory import CONTAINER, IMAGE, NETWORK, VOLUME
from lyra_tasks.engine.workspace import Workspace, open_workspace
from lyra_tasks.locks import finish_run, start_run

STRANGER_IMAGE = "stranger/base:1"
_CONFIG = 'schema = 1\n[project]\nname = "{name}"\n'


def import_image(engine: Engine, reference: str, content: bytes, labels: dict[str, str] | None = None) -> str:
    """Import an image of one layer that can run as a holder, and return its id."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        holder = build_holder_program(engine.facts.platform.split("/")[1], HOLD_PATH)
        for name, data, mode in (("hold", holder, 0o755), ("content", content, 0o644)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    changes = [f'LABEL "{key}"="{value}"' for key, value in (labels or {}).items()]
    repository, _, tag = reference.rpartition(":")
    engine.api.import_image_from_data(buffer.getvalue(), repository=repository, tag=tag, changes=changes)
    return str(engine.api.inspect_image(reference)["Id"])


@dataclass
class State:
    """A generated state: directories of three checkouts and the objects created, as (kind, name).

    Attributes:
        mine: Must be removed when checkout A is cleaned.
        stays: Must remain unchanged.
        in_use: Belongs to A and stays, because a stranger's container uses it.
        live: May be removed only after A's active run has ended.
    """

    number: int
    engine: Engine
    directory: Path
    random: random.Random
    mine: set[tuple[str, str]] = field(default_factory=set)
    in_use: set[tuple[str, str]] = field(default_factory=set)
    live: set[tuple[str, str]] = field(default_factory=set)
    stays: dict[tuple[str, str], str] = field(default_factory=dict)
    strangers: set[tuple[str, str]] = field(default_factory=set)
    moves: list[str] = field(default_factory=list)
    lock: int | None = None
    images_made: int = 0

    def __post_init__(self) -> None:
        for name in ("a", "b", "gone"):
            self.rename(name, "tiny")
        self.a, self.b, self.gone = (self.open(name) for name in ("a", "b", "gone"))

    def open(self, name: str) -> Workspace:
        """Open a workspace with a new run of a checkout."""
        return open_workspace(load_config(self.directory / name))

    def rename(self, name: str, project: str) -> None:
        """Write a checkout's configuration with this project name."""
        (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / name / ".lyra.toml").write_text(_CONFIG.format(name=project))

    def name(self, what: str) -> str:
        """Return a name unique to this state."""
        return f"s{self.number}-{what}-{len(self.moves)}"

    def container(self, work: Workspace, what: str, image: str = STRANGER_IMAGE, **host: Any) -> str:
        """Create a container of a checkout; some of them run or are paused."""
        name = self.name(what)
        payload = {"Image": image, "Cmd": [HOLD_PATH], "HostConfig": {"NetworkMode": "none", **host}}
        identity, _ = create_containers(self.engine, work.owner, {name: payload})[name]
        self._maybe_start(identity)
        return name

    def stranger(
        self, what: str, image: str = STRANGER_IMAGE, labels: dict[str, str] | None = None, **host: Any
    ) -> str:
        """Create a container that belongs to no checkout."""
        name = self.name(what)
        payload = {
            "Image": image,
            "Cmd": [HOLD_PATH],
            "Labels": labels or {},
            "HostConfig": {"NetworkMode": "none", **host},
        }
        identity = self.engine.api.create_container_from_config(payload, name)["Id"]
        self._maybe_start(identity)
        self.stay(CONTAINER, name, identity)
        self.strangers.add((CONTAINER, name))
        return name

    def _maybe_start(self, identity: str) -> None:
        chance = self.random.random()
        if chance < 0.08:
            self.engine.api.start(identity)
        if chance < 0.03:
            self.engine.api.pause(identity)

    def stay(self, kind: str, name: str, identity: str) -> None:
        """Expect an object to remain unchanged."""
        self.stays[kind, name] = identity

    def labels_of(self, work: Workspace, kind: str, name: str) -> dict[str, str]:
        """Return the labels recorded in a checkout's journal for an object."""
        entries = [entry for entry in work.journal.entries() if entry.event == "intent" and entry.data["name"] == name]
        nonce = entries[-1].data["nonce"]
        return {"dev.lyra.run": work.run, "dev.lyra.project": work.paths.project_id, "dev.lyra.nonce": nonce}


Move = Callable[[State], None]


def ours(state: State) -> None:
    """Create a volume and a container that mounts it."""
    volume = state.name("volume")
    create_volumes(state.engine, state.a.owner, {volume: {}})
    name = state.container(state.a, "ours", Mounts=[{"Type": "volume", "Source": volume, "Target": "/v"}])
    state.mine |= {(VOLUME, volume), (CONTAINER, name)}


def container_in_network(state: State) -> None:
    """Create a network with a container in it, and a stranger's network."""
    network, other = state.name("network"), state.name("other")
    create_networks(state.engine, state.a.owner, {network: {}})
    name = state.container(state.a, "joined", NetworkMode=network)
    identity = state.engine.api.create_network(other)["Id"]
    state.mine |= {(NETWORK, network), (CONTAINER, name)}
    state.stay(NETWORK, other, identity)
    state.strangers.add((NETWORK, other))


def crashed_between_intent_and_record(state: State) -> None:
    """Create a labelled volume whose id was never recorded."""
    name = state.name("half")
    labels = state.a.owner.record_intent(state.engine, VOLUME, [name])[name]
    state.engine.api.create_volume(name, labels=labels)
    state.a.owner.record_intent(state.engine, CONTAINER, [state.name("never")])
    state.mine.add((VOLUME, name))


def own_image(state: State) -> None:
    """Create an own reference and a stranger's one to the same image."""
    reference, other = f"tiny/{state.name('image')}:1", f"stranger/{state.name('image')}:1"
    identity = _image(state, reference)
    state.a.owner.record_created_images(state.engine, {reference: identity})
    state.mine.add((IMAGE, reference))
    if state.random.random() < 0.5:
        state.engine.api.tag(identity, *other.split(":"))
        state.stay(IMAGE, other, identity)
        state.strangers.add((IMAGE, other))


def image_of_a_killed_build(state: State) -> None:
    """Record a build that did not finish, and an image of the same intent with a foreign label."""
    mine, other = f"tiny/{state.name('killed')}:1", f"tiny/{state.name('foreign')}:1"
    state.a.owner.record_image_intents(state.engine, [mine, other])
    for reference, title in ((mine, mine.removesuffix(":1")), (other, "stranger/image")):
        import_image(state.engine, reference, reference.encode(), {"org.opencontainers.image.title": title})
    state.mine.add((IMAGE, mine))
    state.stay(IMAGE, other, str(state.engine.api.inspect_image(other)["Id"]))
    state.strangers.add((IMAGE, other))


def holder_of_a_killed_run(state: State) -> None:
    """Import an image under a private name without recording it, like a killed run."""
    reference = f"{state.a.paths.project_id}/{state.name('holder')}:2"
    state.a.owner.record_image_intents(state.engine, [reference], private=True)
    import_image(state.engine, reference, reference.encode())
    state.mine.add((IMAGE, reference))


def image_used_by_stranger(state: State) -> None:
    """Create the only reference of an image that a stranger's container uses."""
    reference = f"tiny/{state.name('used')}:1"
    identity = import_image(state.engine, reference, reference.encode())
    state.a.owner.record_created_images(state.engine, {reference: identity})
    state.stranger("runs", identity)
    state.in_use.add((IMAGE, reference))


def foreign_image_with_own_labels(state: State) -> None:
    """Create a stranger's container that inherits own labels from its image, as after `docker commit`."""
    name = state.container(state.a, "committed")
    labels = state.labels_of(state.a, CONTAINER, name)
    reference = f"stranger/{state.name('labelled')}:1"
    identity = import_image(state.engine, reference, reference.encode(), labels)
    state.stranger("inherits", reference)
    state.mine.add((CONTAINER, name))
    state.stay(IMAGE, reference, identity)
    state.strangers.add((IMAGE, reference))


def strangers(state: State) -> None:
    """Create a stranger's objects without labels and with copies of own labels."""
    copied = state.container(state.a, "copied")
    state.mine.add((CONTAINER, copied))
    for labels in ({}, state.labels_of(state.a, CONTAINER, copied), {"dev.lyra.nonce": "0" * 16}):
        state.moves.append("")
        volume = state.name("theirs")
        state.engine.api.create_volume(volume, labels=labels)
        state.stay(VOLUME, volume, volume)
        state.strangers.add((VOLUME, volume))
        state.stranger("theirs", labels=labels)


def own_volume_in_foreign_container(state: State) -> None:
    """Mount an own volume in a stranger's container, which keeps the volume."""
    volume = state.name("shared")
    create_volumes(state.engine, state.a.owner, {volume: {}})
    state.stranger("mounts", Mounts=[{"Type": "volume", "Source": volume, "Target": "/v"}])
    state.in_use.add((VOLUME, volume))


def foreign_volume_in_own_container(state: State) -> None:
    """Mount a stranger's volume in an own container, which alone is removed."""
    volume = state.name("borrowed")
    state.engine.api.create_volume(volume)
    name = state.container(state.a, "borrows", Mounts=[{"Type": "volume", "Source": volume, "Target": "/v"}])
    state.mine.add((CONTAINER, name))
    state.stay(VOLUME, volume, volume)
    state.strangers.add((VOLUME, volume))


def own_network_with_foreign_container(state: State) -> None:
    """Connect a stranger's container to an own network."""
    network = state.name("joined")
    create_networks(state.engine, state.a.owner, {network: {}})
    state.stranger("guest", NetworkMode=network)
    state.in_use.add((NETWORK, network))


def replaced_by_stranger(state: State) -> None:
    """Replace an own container by a stranger's one with the same name and labels."""
    name = state.container(state.a, "again")
    labels = state.labels_of(state.a, CONTAINER, name)
    state.engine.api.remove_container(name, force=True)
    payload = {"Image": STRANGER_IMAGE, "Cmd": [HOLD_PATH], "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
    state.stay(CONTAINER, name, state.engine.api.create_container_from_config(payload, name)["Id"])
    state.strangers.add((CONTAINER, name))


def other_checkout(state: State) -> None:
    """Create objects of a second checkout, and a reference of both."""
    volume = state.name("second")
    create_volumes(state.engine, state.b.owner, {volume: {}})
    name = state.container(state.b, "second", Mounts=[{"Type": "volume", "Source": volume, "Target": "/v"}])
    state.stay(VOLUME, volume, volume)
    state.stay(CONTAINER, name, str(state.engine.api.inspect_container(name)["Id"]))
    reference = f"tiny/{state.name('both')}:1"
    identity = _image(state, reference)
    for work in (state.a, state.b):
        work.owner.record_created_images(state.engine, {reference: identity})
    state.stay(IMAGE, reference, identity)


def deleted_checkout(state: State) -> None:
    """Create objects of a deleted checkout: they stay, except for a reference shared with A."""
    volume = state.name("orphan")
    create_volumes(state.engine, state.gone.owner, {volume: {}})
    state.stay(VOLUME, volume, volume)
    reference = f"tiny/{state.name('gone')}:1"
    identity = _image(state, reference)
    for work in (state.a, state.gone):
        work.owner.record_created_images(state.engine, {reference: identity})
    state.mine.add((IMAGE, reference))
    shutil.rmtree(state.directory / "gone", ignore_errors=True)


def renamed_project(state: State) -> None:
    """Rename the project, which still owns its earlier objects."""
    ours(state)
    state.moves.append("")
    state.rename("a", "other-name")
    state.a = state.open("a")
    ours(state)


def deleted_work_directory(state: State) -> None:
    """Delete `.lyra/` between runs."""
    (state.a.run_directory / "logs").mkdir(exist_ok=True)
    state.a.mark_finished()
    shutil.rmtree(state.a.paths.work)
    ours(state)


def deleted_and_checked_out_again(state: State) -> None:
    """Delete the project and check it out again at the same path."""
    ours(state)
    name = state.a.config.project.name
    shutil.rmtree(state.directory / "a")
    state.rename("a", name)


def live_run(state: State) -> None:
    """Start a run of another terminal, which keeps its objects and all images."""
    if state.lock is not None:
        return
    work = state.open("a")
    volume = state.name("live")
    create_volumes(state.engine, work.owner, {volume: {}})
    name = state.container(work, "live", Mounts=[{"Type": "volume", "Source": volume, "Target": "/v"}])
    state.live |= {(VOLUME, volume), (CONTAINER, name)}
    state.lock = start_run(work.paths.run_locks, work.run)
    state.live_run = (work.paths.run_locks, work.run)  # type: ignore[attr-defined]


def end_live_run(state: State) -> None:
    """Finish the run of the other terminal without removing anything."""
    directory, run = state.live_run  # type: ignore[attr-defined]
    assert state.lock is not None
    finish_run(directory, run, state.lock)
    state.lock = None


MOVES: tuple[Move, ...] = (
    ours, container_in_network, holder_of_a_killed_run, crashed_between_intent_and_record, own_image,
    image_of_a_killed_build,
    image_used_by_stranger, foreign_image_with_own_labels, strangers, own_volume_in_foreign_container,
    foreign_volume_in_own_container, own_network_with_foreign_container, replaced_by_stranger,
    other_checkout, deleted_checkout, renamed_project, deleted_work_directory, deleted_and_checked_out_again, live_run,
)  # fmt: skip


def generate_state(number: int, engine: Engine, directory: Path, seed: int) -> State:
    """Generate a state from two to five moves, reproducible from its seed and number."""
    rng = random.Random(f"{seed}/{number}")
    state = State(number, engine, directory, rng)
    for move in rng.sample(MOVES, rng.randint(2, 5)):
        state.moves.append(move.__name__)
        move(state)
    return state


def _image(state: State, reference: str) -> str:
    """Create a reference to the stranger's image or, sometimes, to a new image."""
    if state.random.random() < 0.3:
        return import_image(state.engine, reference, reference.encode())
    state.engine.api.tag(STRANGER_IMAGE, *reference.split(":"))
    return str(state.engine.api.inspect_image(STRANGER_IMAGE)["Id"])
