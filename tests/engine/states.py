"""Generated states of an engine: what several checkouts and strangers made in it, and what of that a `clean` may take.

The expectation is kept while things are made, by who made them and who uses them; nothing of the cleaning's own logic
is asked for it.
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
    """An image of one layer that can hold; other content is another image. Returns its id."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        held = build_holder_program(engine.facts.platform.split("/")[1], HOLD_PATH)
        for name, data, mode in (("hold", held, 0o755), ("content", content, 0o644)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    changes = [f'LABEL "{key}"="{value}"' for key, value in (labels or {}).items()]
    repository, _, tag = reference.rpartition(":")
    engine.api.import_image_from_data(buffer.getvalue(), repository=repository, tag=tag, changes=changes)
    return str(engine.api.inspect_image(reference)["Id"])


@dataclass
class State:
    """One generated state: folders of three checkouts and what was made, as (kind, name).

    `mine` must be gone after checkout A was cleaned, `stays` must be as it was; `held` is A's and stays because a
    stranger's container uses it. `live` goes only when A's run has ended.
    """

    number: int
    engine: Engine
    folder: Path
    random: random.Random
    mine: set[tuple[str, str]] = field(default_factory=set)
    held: set[tuple[str, str]] = field(default_factory=set)
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
        """A new run over one of the checkouts."""
        return open_workspace(load_config(self.folder / name))

    def rename(self, name: str, project: str) -> None:
        """Write a checkout's configuration anew, under this name of the project."""
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / name / ".lyra.toml").write_text(_CONFIG.format(name=project))

    def name(self, what: str) -> str:
        """A name that only this state has."""
        return f"s{self.number}-{what}-{len(self.moves)}"

    def container(self, work: Workspace, what: str, image: str = STRANGER_IMAGE, **host: Any) -> str:
        """A container of a checkout; one in a few runs, or is paused."""
        name = self.name(what)
        payload = {"Image": image, "Cmd": [HOLD_PATH], "HostConfig": {"NetworkMode": "none", **host}}
        identity, _ = create_containers(self.engine, work.owner, {name: payload})[name]
        self._liven(identity)
        return name

    def stranger(
        self, what: str, image: str = STRANGER_IMAGE, labels: dict[str, str] | None = None, **host: Any
    ) -> str:
        """A container that no checkout made."""
        name = self.name(what)
        payload = {
            "Image": image,
            "Cmd": [HOLD_PATH],
            "Labels": labels or {},
            "HostConfig": {"NetworkMode": "none", **host},
        }
        identity = self.engine.api.create_container_from_config(payload, name)["Id"]
        self._liven(identity)
        self.stay(CONTAINER, name, identity)
        self.strangers.add((CONTAINER, name))
        return name

    def _liven(self, identity: str) -> None:
        fate = self.random.random()
        if fate < 0.08:
            self.engine.api.start(identity)
        if fate < 0.03:
            self.engine.api.pause(identity)

    def stay(self, kind: str, name: str, identity: str) -> None:
        """Expect this to be there after the cleaning, as the very same thing."""
        self.stays[kind, name] = identity

    def labels_of(self, work: Workspace, kind: str, name: str) -> dict[str, str]:
        """The labels that a checkout's journal knows for an object."""
        nonce = [e for e in work.journal.entries() if e.event == "intent" and e.data["name"] == name][-1].data["nonce"]
        return {"dev.lyra.run": work.run, "dev.lyra.project": work.paths.project_id, "dev.lyra.nonce": nonce}


Move = Callable[[State], None]


def ours(state: State) -> None:
    """A volume, and a container that mounts it."""
    volume = state.name("volume")
    create_volumes(state.engine, state.a.owner, {volume: {}})
    name = state.container(state.a, "ours", Mounts=[{"Type": "volume", "Source": volume, "Target": "/v"}])
    state.mine |= {(VOLUME, volume), (CONTAINER, name)}


def in_a_network(state: State) -> None:
    """A network, with a container in it, and one of a stranger's beside."""
    network, other = state.name("network"), state.name("other")
    create_networks(state.engine, state.a.owner, {network: {}})
    name = state.container(state.a, "joined", NetworkMode=network)
    identity = state.engine.api.create_network(other)["Id"]
    state.mine |= {(NETWORK, network), (CONTAINER, name)}
    state.stay(NETWORK, other, identity)
    state.strangers.add((NETWORK, other))


def crashed_between_intent_and_record(state: State) -> None:
    """Made with its labels, but the engine's id was never written down."""
    name = state.name("half")
    labels = state.a.owner.record_intent(VOLUME, [name])[name]
    state.engine.api.create_volume(name, labels=labels)
    state.a.owner.record_intent(CONTAINER, [state.name("never")])
    state.mine.add((VOLUME, name))


def image_of_ours(state: State) -> None:
    """A reference of ours, and one of a stranger's on the same image."""
    reference, other = f"tiny/{state.name('image')}:1", f"stranger/{state.name('image')}:1"
    identity = _image(state, reference)
    state.a.owner.record_created_images(state.engine, {reference: identity})
    state.mine.add((IMAGE, reference))
    if state.random.random() < 0.5:
        state.engine.api.tag(identity, *other.split(":"))
        state.stay(IMAGE, other, identity)
        state.strangers.add((IMAGE, other))


def image_of_a_killed_build(state: State) -> None:
    """A build that was to make a reference and did not end; beside it one whose label tells of something else."""
    mine, other = f"tiny/{state.name('killed')}:1", f"tiny/{state.name('foreign')}:1"
    state.a.owner.record_image_intents(state.engine, [mine, other])
    for reference, title in ((mine, mine.removesuffix(":1")), (other, "stranger/image")):
        import_image(state.engine, reference, reference.encode(), {"org.opencontainers.image.title": title})
    state.mine.add((IMAGE, mine))
    state.stay(IMAGE, other, str(state.engine.api.inspect_image(other)["Id"]))
    state.strangers.add((IMAGE, other))


def holder_of_a_killed_run(state: State) -> None:
    """A run was killed after it had imported an image that only Lyra names so, and before it wrote that down."""
    reference = f"{state.a.paths.project_id}/{state.name('holder')}:2"
    state.a.owner.record_image_intents(state.engine, [reference], private=True)
    import_image(state.engine, reference, reference.encode())
    state.mine.add((IMAGE, reference))


def image_that_a_stranger_runs(state: State) -> None:
    """The only reference of an image from which a stranger made a container."""
    reference = f"tiny/{state.name('used')}:1"
    identity = import_image(state.engine, reference, reference.encode())
    state.a.owner.record_created_images(state.engine, {reference: identity})
    state.stranger("runs", identity)
    state.held.add((IMAGE, reference))


def image_with_our_labels(state: State) -> None:
    """Strangers' containers of an image that carries our labels, as after a `docker commit`: they inherit them."""
    name = state.container(state.a, "committed")
    labels = state.labels_of(state.a, CONTAINER, name)
    reference = f"stranger/{state.name('labelled')}:1"
    identity = import_image(state.engine, reference, reference.encode(), labels)
    state.stranger("inherits", reference)
    state.mine.add((CONTAINER, name))
    state.stay(IMAGE, reference, identity)
    state.strangers.add((IMAGE, reference))


def strangers(state: State) -> None:
    """Everything without a label, and everything with labels copied from ours."""
    copied = state.container(state.a, "copied")
    state.mine.add((CONTAINER, copied))
    for labels in ({}, state.labels_of(state.a, CONTAINER, copied), {"dev.lyra.nonce": "0" * 16}):
        state.moves.append("")
        volume = state.name("theirs")
        state.engine.api.create_volume(volume, labels=labels)
        state.stay(VOLUME, volume, volume)
        state.strangers.add((VOLUME, volume))
        state.stranger("theirs", labels=labels)


def volume_of_ours_in_a_strangers_container(state: State) -> None:
    """Theirs must live, so ours cannot go."""
    volume = state.name("shared")
    create_volumes(state.engine, state.a.owner, {volume: {}})
    state.stranger("mounts", Mounts=[{"Type": "volume", "Source": volume, "Target": "/v"}])
    state.held.add((VOLUME, volume))


def strangers_volume_in_a_container_of_ours(state: State) -> None:
    """The container goes, the volume does not."""
    volume = state.name("borrowed")
    state.engine.api.create_volume(volume)
    name = state.container(state.a, "borrows", Mounts=[{"Type": "volume", "Source": volume, "Target": "/v"}])
    state.mine.add((CONTAINER, name))
    state.stay(VOLUME, volume, volume)
    state.strangers.add((VOLUME, volume))


def network_of_ours_with_a_stranger_in_it(state: State) -> None:
    """A container of somebody else joined our network, and need not even run."""
    network = state.name("joined")
    create_networks(state.engine, state.a.owner, {network: {}})
    state.stranger("guest", NetworkMode=network)
    state.held.add((NETWORK, network))


def made_anew_by_a_stranger(state: State) -> None:
    """Ours was removed; somebody else made one of the same name with the same labels."""
    name = state.container(state.a, "again")
    labels = state.labels_of(state.a, CONTAINER, name)
    state.engine.api.remove_container(name, force=True)
    payload = {"Image": STRANGER_IMAGE, "Cmd": [HOLD_PATH], "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
    state.stay(CONTAINER, name, state.engine.api.create_container_from_config(payload, name)["Id"])
    state.strangers.add((CONTAINER, name))


def other_checkout(state: State) -> None:
    """What the second checkout of the same project made, and a reference that both made."""
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
    """What a checkout made that is gone from the disk: its own stays, a reference that A made too is A's alone."""
    volume = state.name("orphan")
    create_volumes(state.engine, state.gone.owner, {volume: {}})
    state.stay(VOLUME, volume, volume)
    reference = f"tiny/{state.name('gone')}:1"
    identity = _image(state, reference)
    for work in (state.a, state.gone):
        work.owner.record_created_images(state.engine, {reference: identity})
    state.mine.add((IMAGE, reference))
    shutil.rmtree(state.folder / "gone", ignore_errors=True)


def renamed_project(state: State) -> None:
    """The project gets another name; what it made under the old one is still its own."""
    ours(state)
    state.moves.append("")
    state.rename("a", "other-name")
    state.a = state.open("a")
    ours(state)


def deleted_work_folder(state: State) -> None:
    """`.lyra/` can be deleted at any time."""
    (state.a.run_directory / "logs").mkdir(exist_ok=True)
    state.a.mark_finished()
    shutil.rmtree(state.a.paths.work)
    ours(state)


def deleted_and_checked_out_again(state: State) -> None:
    """The whole project is deleted and is back at the same place."""
    ours(state)
    name = state.a.config.project.name
    shutil.rmtree(state.folder / "a")
    state.rename("a", name)


def live_run(state: State) -> None:
    """A run of another terminal: what it made, and every image, stays as long as it lives."""
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
    """The run of the other terminal ends without having removed anything."""
    folder, run = state.live_run  # type: ignore[attr-defined]
    assert state.lock is not None
    finish_run(folder, run, state.lock)
    state.lock = None


MOVES: tuple[Move, ...] = (
    ours, in_a_network, holder_of_a_killed_run, crashed_between_intent_and_record, image_of_ours,
    image_of_a_killed_build,
    image_that_a_stranger_runs, image_with_our_labels, strangers, volume_of_ours_in_a_strangers_container,
    strangers_volume_in_a_container_of_ours, network_of_ours_with_a_stranger_in_it, made_anew_by_a_stranger,
    other_checkout, deleted_checkout, renamed_project, deleted_work_folder, deleted_and_checked_out_again, live_run,
)  # fmt: skip


def generated(number: int, engine: Engine, folder: Path, seed: int) -> State:
    """The state of this number: two to five moves, in any order; the same seed makes the same one."""
    chance = random.Random(f"{seed}/{number}")
    state = State(number, engine, folder, chance)
    for move in chance.sample(MOVES, chance.randint(2, 5)):
        state.moves.append(move.__name__)
        move(state)
    return state


def _image(state: State, reference: str) -> str:
    """A reference on a stranger's image, or now and then on an image of its own."""
    if state.random.random() < 0.3:
        return import_image(state.engine, reference, reference.encode())
    state.engine.api.tag(STRANGER_IMAGE, *reference.split(":"))
    return str(state.engine.api.inspect_image(STRANGER_IMAGE)["Id"])
