"""What a checkout owns by its journal, and what a cleanup of it removes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.cleanup.plan import CleanupFacts, plan_cleanup, require_no_active_runs
from lyra_tasks.engine.objects.inventory import CONTAINER, IMAGE, NETWORK, VOLUME, EngineObject
from lyra_tasks.engine.objects.known_engines import count_claims
from lyra_tasks.engine.objects.ownership import (
    OwnedObject,
    Owner,
    OwnershipIndex,
    build_ownership_index,
    load_ownership_index,
)
from lyra_tasks.engine.objects.removal import plan_removal
from lyra_tasks.errors import LockedError
from lyra_tasks.paths import Paths
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.journal_entry import JournalEntry

ENGINE = "engine-1"


def index_journal(*events: tuple[str, str, dict[str, object]]) -> OwnershipIndex:
    """Return the ownership index of a journal with these (run, event, data)."""
    return build_ownership_index(
        [JournalEntry(n, "", run, event, dict(data)) for n, (run, event, data) in enumerate(events)], ENGINE
    )


def intent(kind: str, name: str, nonce: str = "n1") -> tuple[str, str, dict[str, object]]:
    return "r1", "intent", {"kind": kind, "name": name, "nonce": nonce}


def image(event: str, name: str, **data: object) -> tuple[str, str, dict[str, object]]:
    return "r1", event, {"kind": IMAGE, "name": name, "engine": ENGINE, **data}


def test_ownership_needs_label_and_journal_entry() -> None:
    index = index_journal(intent(VOLUME, "v"))
    assert index.match(EngineObject(VOLUME, "v", "v", nonce="n1")) == OwnedObject(VOLUME, "v", "v", "r1")
    assert index.match(EngineObject(VOLUME, "v", "v")) is None
    assert index.match(EngineObject(VOLUME, "v", "v", nonce="n2")) is None
    assert index.match(EngineObject(VOLUME, "w", "w", nonce="n1")) is None
    assert index.match(EngineObject(NETWORK, "v", "v", nonce="n1")) is None


def test_damaged_journal_entries_are_ignored() -> None:
    damaged: list[dict[str, object]] = [
        {"kind": VOLUME},
        {"kind": VOLUME, "name": ["v"]},
        {"kind": VOLUME, "name": "v"},
        {"kind": IMAGE, "name": None, "previous_id": {}},
    ]
    events = [("r2", event, data) for data in damaged for event in ("intent", "created", "removed")]
    index = index_journal(intent(VOLUME, "v"), *events)
    assert index.match(EngineObject(VOLUME, "v", "v", nonce="n1")) == OwnedObject(VOLUME, "v", "v", "r1")


def test_journaled_id_outweighs_copied_label() -> None:
    index = index_journal(intent(CONTAINER, "c"), ("r1", "created", {"kind": CONTAINER, "name": "c", "id": "1"}))
    assert index.match(EngineObject(CONTAINER, "c", "1", nonce="n1")) is not None
    assert index.match(EngineObject(CONTAINER, "c", "2", nonce="n1")) is None


def test_removed_object_is_not_owned() -> None:
    index = index_journal(
        intent(VOLUME, "v"),
        image("created", "tiny/web:1", id="i1"),
        ("r2", "removed", {"kind": VOLUME, "name": "v", "id": "v"}),
        image("removed", "tiny/web:1", id="i1"),
    )
    assert index.match(EngineObject(VOLUME, "v", "v", nonce="n1")) is None
    assert index.match(EngineObject(IMAGE, "tiny/web:1", "i1")) is None, "somebody else may have loaded it since"
    assert index.match(EngineObject(IMAGE, "i1", "i1")) is not None, "without a reference, it is left by our build"


def test_image_is_owned_only_in_its_engine() -> None:
    other = build_ownership_index(
        [JournalEntry(1, "", "r1", "created", image("created", "t:1", id="i1")[2])], "engine-2"
    )
    assert other.match(EngineObject(IMAGE, "t:1", "i1")) is None


def test_image_of_unfinished_build_is_owned_by_label_or_private_name() -> None:
    index = index_journal(image("intent", "tiny/web:1", previous_id="i0", private=False))
    assert index.match(EngineObject(IMAGE, "tiny/web:1", "i1", title="tiny/web")) is not None
    assert index.match(EngineObject(IMAGE, "tiny/web:1", "i0", title="tiny/web")) is None, "it existed before"
    assert index.match(EngineObject(IMAGE, "tiny/web:1", "i1", title="other/web")) is None
    holder = index_journal(image("intent", "tiny-1/holder:2", previous_id="", private=True))
    assert holder.match(EngineObject(IMAGE, "tiny-1/holder:2", "i1")) is not None


def test_image_of_interrupted_pull_is_owned_by_its_digest() -> None:
    name = "vendor/cache@sha256:1"
    pulled = EngineObject(IMAGE, "i1", "i1", digests=frozenset({name}))
    index = index_journal(image("intent", name, previous_id="", private=True))
    assert index.match(pulled) == OwnedObject(IMAGE, "i1", "i1", "r1")
    assert index.match(EngineObject(IMAGE, "i2", "i2", digests=frozenset({"other@sha256:1"}))) is None
    settled = index_journal(image("intent", name, previous_id="", private=True), image("removed", name, id="i1"))
    assert settled.match(pulled) is None, "somebody else has pulled it since"


def test_third_party_image_without_our_reference_is_not_owned() -> None:
    reference = "tiny/cache:locked-1"
    index = index_journal(image("created", reference, id="i1", foreign=True))
    assert index.match(EngineObject(IMAGE, reference, "i1")) is not None
    assert index.match(EngineObject(IMAGE, "vendor/cache:1", "i1")) is None
    assert index.match(EngineObject(IMAGE, "i1", "i1")) is None


def test_holder_image_of_old_journal_is_owned() -> None:
    index = index_journal(("r1", "intent", {"kind": IMAGE, "name": "tiny-1/holder:2"}))
    assert index.match(EngineObject(IMAGE, "tiny-1/holder:2", "i1")) is not None


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / ".lyra", tmp_path / "state" / "web-123456", tmp_path / "cache", "web-123456")


def record_old_intent(owner: Owner, name: str) -> None:
    """Record a volume as journals did that named the engine of images only."""
    owner.journal.append(owner.run, "intent", kind=VOLUME, name=name, nonce="n1")


@pytest.fixture
def owner(paths: Paths) -> Owner:
    """The owner of a run with a volume that has vanished without a journal entry."""
    owner = Owner(Journal(paths.journal), "r1", paths.project_id)
    record_old_intent(owner, "before")
    return owner


def volumes(paths: Paths, engine: str) -> set[str]:
    return {name for _, name in load_ownership_index(paths, engine).nonces}


def test_cleared_objects_are_not_owned(paths: Paths, owner: Owner) -> None:
    last_entry = load_ownership_index(paths, "engine-1").last_entry
    record_old_intent(owner, "meanwhile")
    owner.journal.append("r2", "cleared", engine="engine-1", last_entry=last_entry)
    record_old_intent(owner, "after")
    assert volumes(paths, "engine-1") == {"meanwhile", "after"}
    assert volumes(paths, "engine-2") == {"before", "meanwhile", "after"}, "it was not cleared there"
    owner.journal.append(
        "r3", "cleared", engine="engine-2", last_entry=load_ownership_index(paths, "engine-2").last_entry
    )
    assert volumes(paths, "engine-1") == {"meanwhile", "after"}, "the newest one of this engine counts"


@pytest.mark.parametrize("value", [-1, 10**9, "many", None])
@pytest.mark.parametrize("key", ["last_entry", "journal_bytes"])
def test_impossible_cleared_event_is_ignored(paths: Paths, owner: Owner, key: str, value: object) -> None:
    owner.journal.append("r2", "cleared", engine="engine-1", **{key: value})
    assert volumes(paths, "engine-1") == {"before"}


def test_objects_cleared_by_an_older_version_are_not_owned(paths: Paths, owner: Owner) -> None:
    owner.journal.append("r2", "cleared", engine="engine-1", journal_bytes=owner.journal.size)
    record_old_intent(owner, "after")
    assert volumes(paths, "engine-1") == {"after"}


def test_renamed_project_reads_all_its_journals(paths: Paths, owner: Owner) -> None:
    renamed = replace(paths, state=paths.state.parent / "shop-123456", project_id="shop-123456")
    new_owner = Owner(Journal(renamed.journal), "r2", renamed.project_id)
    record_old_intent(new_owner, "now")
    new_owner.journal.append("r2", "cleared", engine="engine-1", last_entry=new_owner.journal.last_seq)
    assert volumes(renamed, "engine-1") == {"before", "now"}
    assert load_ownership_index(renamed, "engine-1").last_entry == 0, "so that no cleanup clears it"


def test_claims_are_counted_by_engine_until_removed_or_cleared(owner: Owner) -> None:
    journal = owner.journal
    for engine, name in (("e1", "a"), ("e1", "b"), ("e2", "a"), ("e3", "a")):
        journal.append("r1", "intent", kind=VOLUME, name=name, nonce="n1", engine=engine)
        journal.append("r1", "created", kind=VOLUME, name=name, id=name, engine=engine)
    journal.append("r1", "intent", kind=IMAGE, name="t:1", previous_id="", engine="e2")
    journal.append("r1", "created", kind=IMAGE, name="t:2", id="i2", engine="e2")
    assert count_claims([journal], set()) == {"e1": 2, "e2": 3, "e3": 1}, "the volume of an old journal has no engine"
    journal.append("r2", "removed", kind=VOLUME, name="a", id="a", engine="e1")
    journal.append("r2", "cleared", engine="e3", last_entry=journal.last_seq)
    assert count_claims([journal], {"e2"}) == {"e1": 1}


OWNED = (
    OwnedObject(CONTAINER, "c", "1", "dead"),
    OwnedObject(CONTAINER, "d", "2", "alive"),
    OwnedObject(VOLUME, "v", "v", "dead"),
    OwnedObject(IMAGE, "tiny/web:1", "i1", "dead"),
)


def test_cleanup_keeps_active_run_and_all_images() -> None:
    facts = CleanupFacts(owned=OWNED, live_runs={"alive": 42}, auto_started_sandboxes=(Path("s"),))
    plan = plan_cleanup(facts, "objects")
    assert {item.name for item in plan.objects} == {"c", "v"}
    assert plan.stop_sandboxes == (), "the engine of the active run is kept, too"
    with pytest.raises(LockedError, match=r"active in another process \(pid 42\): 2 object\(s\) kept"):
        require_no_active_runs(plan)


def test_cleanup_of_everything_refuses_active_run() -> None:
    with pytest.raises(LockedError, match="pid 42"):
        plan_cleanup(CleanupFacts(owned=OWNED, live_runs={"alive": 42}), "all")


def test_cleanup_keeps_what_other_containers_use() -> None:
    uses = frozenset({(VOLUME, "v"), (IMAGE, "i1")})
    engine_objects: tuple[EngineObject, ...] = (
        EngineObject(CONTAINER, "theirs", "9", uses=uses),
        EngineObject(IMAGE, "tiny/web:1", "i1"),
        EngineObject(VOLUME, "v", "v"),
    )
    plan = plan_cleanup(CleanupFacts(engine_objects=engine_objects, owned=OWNED), "objects")
    assert {item.name: user for item, user in plan.used_by_others.items()} == {"v": "theirs", "tiny/web:1": "theirs"}
    engine_objects = (*engine_objects, EngineObject(IMAGE, "theirs/web:1", "i1"))
    plan = plan_cleanup(CleanupFacts(engine_objects=engine_objects, owned=OWNED), "objects")
    assert {item.name for item in plan.used_by_others} == {"v"}, "the image keeps another reference"


def test_higher_level_removes_more() -> None:
    state = Path("s")
    facts = CleanupFacts(owned=OWNED, owns_builder=True, running_sandboxes=(state,), sandboxes_with_data=(state,))
    objects, cache, everything = (plan_cleanup(facts, level) for level in ("objects", "cache", "all"))
    assert (objects.prune_cache, cache.prune_cache, everything.prune_cache) == (False, True, True)
    assert (objects.stop_sandboxes, cache.stop_sandboxes, everything.stop_sandboxes) == ((), (), (state,)), (
        "an engine that engine.up started is stopped by engine.down"
    )
    assert (cache.purge_sandboxes, everything.purge_sandboxes) == ((), (state,))
    assert everything.removes_state and not cache.removes_state
    assert not plan_cleanup(CleanupFacts(owned=OWNED), "cache").prune_cache, "a builder that is not ours"


def test_cleanup_is_complete_only_without_runs_and_users() -> None:
    owned = (OwnedObject(CONTAINER, "c", "1", "r1"), OwnedObject(VOLUME, "v", "v", "r1"))
    facts = CleanupFacts(owned=owned)
    stranger = EngineObject(CONTAINER, "theirs", "9", uses=frozenset({(VOLUME, "v")}))
    assert plan_cleanup(facts, "objects").is_complete
    assert plan_cleanup(replace(facts, has_unfinished_build=True), "objects").is_complete, (
        "a build that failed yesterday"
    )
    for other in (
        replace(facts, live_runs={"r2": 42}),
        replace(facts, crashed_runs=frozenset({"r1"})),
        replace(facts, has_unfinished_build=True, has_recent_build=True),
        replace(facts, engine_objects=(stranger,)),
    ):
        assert not plan_cleanup(other, "objects").is_complete


def test_removal_order_starts_with_attached_containers() -> None:
    states = ("running", "restarting", "created", "exited")
    uses = {"running": frozenset({(NETWORK, "n")})}
    engine_objects = [
        EngineObject(CONTAINER, state, state, uses=uses.get(state, frozenset()), state=state) for state in states
    ]
    owned = {name: OwnedObject(CONTAINER, name, name, "r1") for name in (*states, "unknown")}
    network, volume = OwnedObject(NETWORK, "n", "7", "r1"), OwnedObject(VOLUME, "v", "v", "r1")

    order = plan_removal([network, *owned.values(), volume], engine_objects)

    assert order.attached_containers == [owned["running"], owned["unknown"], owned["restarting"]]
    assert order.networks == [(network, [owned["running"], owned["unknown"]])], "an unknown container may use it"
    assert order.detached_containers == [owned["created"], owned["exited"]], "they are attached to no network"
    assert order.others == [volume], "containers must be removed before the volumes that they use"


def test_removal_order_without_states_assumes_attached_containers() -> None:
    containers = [OwnedObject(CONTAINER, f"c{number}", f"c{number}", "r1") for number in range(5)]
    network, web = OwnedObject(NETWORK, "n", "7", "r1"), OwnedObject(IMAGE, "tiny/web:1", "i1", "r1")
    order = plan_removal([web, network, *containers], ())
    assert (order.attached_containers, order.networks, order.others) == (containers, [(network, containers)], [web])
    assert not order.detached_containers


@pytest.mark.parametrize(
    ("containers", "networks", "workers"), [(20, 10, 2), (40, 10, 3), (100, 10, 8), (1, 0, 8), (0, 3, 2)]
)
def test_containers_leave_the_line_of_networks_a_processor(containers: int, networks: int, workers: int) -> None:
    attached = [OwnedObject(CONTAINER, str(number), str(number), "r1") for number in range(containers)]
    objects = [OwnedObject(NETWORK, str(number), str(number), "r1") for number in range(networks)]
    assert plan_removal([*attached, *objects], ()).count_workers(2) == workers


def test_object_with_our_label_that_the_journal_does_not_know_is_named_and_stays() -> None:
    ours = EngineObject(CONTAINER, "known", "1", nonce="n1", project="tiny-1")
    unknown = EngineObject(CONTAINER, "unknown", "2", nonce="n2", project="tiny-1")
    theirs = EngineObject(VOLUME, "theirs", "3", nonce="n3", project="tiny-2")
    owned = (OwnedObject(CONTAINER, "known", "1", "r1"),)
    facts = CleanupFacts(project_id="tiny-1", engine_objects=(ours, unknown, theirs), owned=owned)
    plan = plan_cleanup(facts, "objects")
    assert plan.unknown_objects == (unknown,)
    assert plan.objects == owned


def test_image_of_this_project_that_the_journal_does_not_know_is_named_and_stays() -> None:
    known, unknown = (EngineObject(IMAGE, f"tiny/web:{n}", f"sha256:{n}", title="tiny/web") for n in (1, 2))
    renamed = EngineObject(IMAGE, "mine:1", "sha256:2", title="tiny/web")
    others = EngineObject(IMAGE, "tiny-shop/web:1", "sha256:3", title="tiny-shop/web")
    owned = (OwnedObject(IMAGE, "tiny/web:1", "sha256:1", "r1"),)
    objects = (known, unknown, renamed, others)
    plan = plan_cleanup(CleanupFacts(project_id="tiny-1", engine_objects=objects, owned=owned), "objects")
    assert plan.unknown_images == ("tiny/web:2",)
    assert plan.objects == owned
