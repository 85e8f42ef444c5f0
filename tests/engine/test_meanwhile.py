"""Tests of changes by other commands between two calls to the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects import containers, removal
from lyra_tasks.engine.objects.holder import HOLD_PATH, ensure_holder_image
from lyra_tasks.engine.objects.inventory import CONTAINER, LABEL_NONCE, NETWORK, EngineObject, list_objects
from lyra_tasks.engine.objects.ownership import OwnedObject, Owner, list_owned_objects
from lyra_tasks.engine.objects.removal import RemovalResult, remove_in_order, remove_objects, remove_run
from lyra_tasks.errors import EngineUnavailableError, LeftoverError, OvercommitError
from lyra_tasks.lab.admission import Capacity, Reservation, list_reservations, reserve_capacity
from lyra_tasks.locks import new_run_id
from lyra_tasks.records.journal import Journal


@pytest.fixture
def lab(tmp_path: Path, engine: Engine) -> Iterator[Owner]:
    """Create a run with one network and one container in it."""
    owner = Owner(Journal(tmp_path / "journal.jsonl"), new_run_id(), "tiny-1")
    image, network = ensure_holder_image(engine, owner), f"lyra-{owner.run}-inner"
    containers.create_networks(engine, owner, {network: {"Internal": True}})
    host = {"NetworkMode": network, "Memory": 16 << 20, "NanoCpus": 100_000_000}
    payload = {"Image": image, "Cmd": [HOLD_PATH], "HostConfig": host}
    identity, _ = containers.create_containers(engine, owner, {f"lyra-{owner.run}-web": payload})[
        f"lyra-{owner.run}-web"
    ]
    containers.start_container(engine, identity, "web")
    yield owner
    for container in engine.client.containers.list(all=True, filters={"label": LABEL_NONCE}):
        container.remove(force=True)
    engine.client.networks.prune({"label": LABEL_NONCE})
    engine.api.remove_image(image)


def test_lab_removed_during_admission_reserves_nothing(
    lab: Owner, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reservation,) = list_reservations(engine)
    assert (reservation.cpus, reservation.memory) == (0.1, 16 << 20)
    listing = engine.api.containers(filters={"label": LABEL_NONCE})
    remove_run(engine, lab)
    monkeypatch.setattr(engine.api, "containers", lambda **_: listing)
    assert list_reservations(engine) == ()


def test_second_lab_counts_the_reservation_of_the_first(lab: Owner, engine: Engine, tmp_path: Path) -> None:
    capacity = Capacity(1.0, 1 << 30, tmp_path / "lock")
    half = [Reservation("half", 0.5, 16 << 20)]
    host = {"NetworkMode": "none", "Memory": 16 << 20, "NanoCpus": 500_000_000}
    payload = {"Image": ensure_holder_image(engine, lab), "Cmd": [HOLD_PATH], "HostConfig": host}

    def second() -> None:
        with reserve_capacity(engine, half, capacity):
            pass

    with (
        ThreadPoolExecutor(1) as pool,
        reserve_capacity(engine, half, capacity, lab_names=["", "unit"]) as mark_created,
    ):
        other = pool.submit(second)
        mark_created("")
        containers.create_containers(engine, lab, {f"lyra-{lab.run}-half": payload})
        assert not other.done()
        mark_created("unit")
        with pytest.raises(OvercommitError, match=r"1\.1 CPUs requested, 1 available"):
            other.result(timeout=10)
    second_try = [Reservation("less", 0.4, 16 << 20)]
    with reserve_capacity(engine, second_try, capacity):
        pass


@pytest.mark.parametrize("stranger_leaves", [True, False])
def test_only_what_stays_after_the_last_try_is_left_over(
    lab: Owner, engine: Engine, monkeypatch: pytest.MonkeyPatch, stranger_leaves: bool
) -> None:
    network = f"lyra-{lab.run}-inner"
    image = ensure_holder_image(engine, lab)
    stranger = engine.client.containers.run(image, [HOLD_PATH], network=network, detach=True)
    tries: list[int] = []

    def remove(
        engine: Engine, owner: Owner, objects: Sequence[OwnedObject], engine_objects: Sequence[EngineObject]
    ) -> RemovalResult:
        tries.append(len(objects))
        if stranger_leaves and len(tries) == 3:
            stranger.remove(force=True)
        return remove_objects(engine, owner, objects, engine_objects)

    monkeypatch.setattr(removal, "remove_objects", remove)
    if stranger_leaves:
        remove_run(engine, lab)
    else:
        with pytest.raises(LeftoverError, match="1 object") as raised:
            remove_run(engine, lab)
        assert network in raised.value.details[0]
        stranger.remove(force=True)
    assert tries == [2, 1, 1]


def test_networks_of_ended_containers_do_not_wait_for_their_removal(
    lab: Owner, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    network_removed = Event()
    remove_network, remove_container = engine.api.remove_network, engine.api.remove_container

    def remove_first(network: str) -> None:
        remove_network(network)
        network_removed.set()

    def remove_then(container: str, **options: Any) -> None:
        assert network_removed.wait(20)
        remove_container(container, **options)

    containers.kill_containers(engine, [f"lyra-{lab.run}-web"])
    monkeypatch.setattr(engine.api, "remove_network", remove_first)
    monkeypatch.setattr(engine.api, "remove_container", remove_then)
    remove_run(engine, lab)
    assert list_owned_objects(engine, lab.journal.entries(), run=lab.run) == []


def test_removals_before_an_error_are_recorded(lab: Owner, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_connection(_network: str) -> None:
        raise ConnectionError

    own_objects = list_owned_objects(engine, lab.journal.entries(), run=lab.run)
    monkeypatch.setattr(engine.api, "remove_network", lose_connection)
    with pytest.raises(EngineUnavailableError):
        remove_objects(engine, lab, own_objects)
    assert [entry.data["kind"] for entry in lab.journal.entries() if entry.event == "removed"] == [CONTAINER]


def test_stuck_container_does_not_delay_others(lab: Owner, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first container blocks until all others are removed."""
    first, others = f"lyra-{lab.run}-first", [f"lyra-{lab.run}-{number}" for number in range(3)]
    containers.create_networks(engine, lab, {first: {"Internal": True}})
    plain = {"Image": ensure_holder_image(engine, lab), "Cmd": [HOLD_PATH]}
    payloads = {name: {**plain, "HostConfig": {"NetworkMode": f"lyra-{lab.run}-inner"}} for name in others}
    created = containers.create_containers(
        engine, lab, {first: {**plain, "HostConfig": {"NetworkMode": first}}, **payloads}
    )
    own_objects = [item for item in list_objects(engine) if item.nonce and lab.run in item.name]
    # a restarting container keeps its network until it is removed
    restarting = [replace(item, state="restarting") if item.id == created[first][0] else item for item in own_objects]
    others_removed, remaining = Event(), {created[name][0] for name in others}
    remove_container = engine.api.remove_container

    def remove_last(container: str, **options: Any) -> Any:
        if container == created[first][0]:
            assert others_removed.wait(20)
        remove_container(container, **options)
        remaining.discard(container)
        if not remaining:
            others_removed.set()

    monkeypatch.setattr(engine.api, "remove_container", remove_last)
    owned = [OwnedObject(item.kind, item.name, item.id, lab.run) for item in own_objects]
    result = remove_in_order(engine, owned, restarting)
    assert sorted(item.kind for item in result.removed) == [*5 * [CONTAINER], *2 * [NETWORK]]
    assert not result.failed
