from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.cleanup.plan import CleanupFacts, plan_cleanup, require_no_active_runs
from lyra_tasks.engine.objects.inventory import CONTAINER, IMAGE, NETWORK, VOLUME, EngineObject
from lyra_tasks.engine.objects.ownership import OwnedObject, OwnershipIndex, build_ownership_index
from lyra_tasks.engine.objects.removal import RemovalStep, plan_removal_steps
from lyra_tasks.errors import LockedError
from lyra_tasks.records.journal import JournalEntry

ENGINE = "engine-1"
STATES = ("running", "created", "restarting")


def journaled(*events: tuple[str, str, dict[str, object]]) -> OwnershipIndex:
    """The claims of a journal with these (run, event, data)."""
    return build_ownership_index(
        [JournalEntry(n, "", run, event, dict(data)) for n, (run, event, data) in enumerate(events)], ENGINE
    )


def intent(kind: str, name: str, nonce: str = "n1") -> tuple[str, str, dict[str, object]]:
    return "r1", "intent", {"kind": kind, "name": name, "nonce": nonce}


def image(event: str, name: str, **data: object) -> tuple[str, str, dict[str, object]]:
    return "r1", event, {"kind": IMAGE, "name": name, "engine": ENGINE, **data}


def test_a_label_alone_and_a_journal_alone_make_nothing_ours() -> None:
    claims = journaled(intent(VOLUME, "v"))
    assert claims.match(EngineObject(VOLUME, "v", "v", nonce="n1")) == OwnedObject(VOLUME, "v", "v", "r1")
    assert claims.match(EngineObject(VOLUME, "v", "v")) is None
    assert claims.match(EngineObject(VOLUME, "v", "v", nonce="n2")) is None
    assert claims.match(EngineObject(VOLUME, "w", "w", nonce="n1")) is None
    assert claims.match(EngineObject(NETWORK, "v", "v", nonce="n1")) is None


def test_a_damaged_line_claims_nothing_and_takes_nothing_from_the_others() -> None:
    damaged: list[dict[str, object]] = [
        {"kind": VOLUME},
        {"kind": VOLUME, "name": ["v"]},
        {"kind": VOLUME, "name": "v"},
        {"kind": IMAGE, "name": None, "before": {}},
    ]
    events = [("r2", event, data) for data in damaged for event in ("intent", "made", "removed")]
    claims = journaled(intent(VOLUME, "v"), *events)
    assert claims.match(EngineObject(VOLUME, "v", "v", nonce="n1")) == OwnedObject(VOLUME, "v", "v", "r1")


def test_an_id_that_the_engine_gave_counts_more_than_a_label_which_can_be_copied() -> None:
    claims = journaled(intent(CONTAINER, "c"), ("r1", "made", {"kind": CONTAINER, "name": "c", "id": "1"}))
    assert claims.match(EngineObject(CONTAINER, "c", "1", nonce="n1")) is not None
    assert claims.match(EngineObject(CONTAINER, "c", "2", nonce="n1")) is None


def test_what_was_removed_is_no_longer_claimed() -> None:
    claims = journaled(
        intent(VOLUME, "v"),
        image("made", "tiny/web:1", id="i1"),
        ("r2", "removed", {"kind": VOLUME, "name": "v", "id": "v"}),
        image("removed", "tiny/web:1", id="i1"),
    )
    assert claims.match(EngineObject(VOLUME, "v", "v", nonce="n1")) is None
    assert claims.match(EngineObject(IMAGE, "tiny/web:1", "i1")) is None, "somebody else may have loaded it since"
    assert claims.match(EngineObject(IMAGE, "i1", "i1")) is not None, (
        "without a reference it is what a build of ours left"
    )


def test_an_image_is_ours_in_the_engine_where_it_was_made_alone() -> None:
    elsewhere = build_ownership_index([JournalEntry(1, "", "r1", "made", image("made", "t:1", id="i1")[2])], "engine-2")
    assert elsewhere.match(EngineObject(IMAGE, "t:1", "i1")) is None


def test_an_image_of_a_build_that_did_not_end_is_ours_by_its_label_or_by_a_name_that_only_lyra_gives() -> None:
    begun = journaled(image("intent", "tiny/web:1", before="i0", private=False))
    assert begun.match(EngineObject(IMAGE, "tiny/web:1", "i1", title="tiny/web")) is not None
    assert begun.match(EngineObject(IMAGE, "tiny/web:1", "i0", title="tiny/web")) is None, "it was there before"
    assert begun.match(EngineObject(IMAGE, "tiny/web:1", "i1", title="other/web")) is None
    holder = journaled(image("intent", "tiny-1/holder:2", before="", private=True))
    assert holder.match(EngineObject(IMAGE, "tiny-1/holder:2", "i1")) is not None


def test_what_an_older_journal_says_of_a_holder_still_counts() -> None:
    older = journaled(("r1", "intent", {"kind": IMAGE, "name": "tiny-1/holder:2"}))
    assert older.match(EngineObject(IMAGE, "tiny-1/holder:2", "i1")) is not None


MINE = (
    OwnedObject(CONTAINER, "c", "1", "dead"),
    OwnedObject(CONTAINER, "d", "2", "alive"),
    OwnedObject(VOLUME, "v", "v", "dead"),
    OwnedObject(IMAGE, "tiny/web:1", "i1", "dead"),
)


def test_of_a_live_run_nothing_goes_and_no_image_which_it_may_need() -> None:
    planned = plan_cleanup(
        CleanupFacts(owned=MINE, live_runs={"alive": 42}, auto_started_sandboxes=(Path("s"),)), "objects"
    )
    assert {each.name for each in planned.objects} == {"c", "v"}
    assert planned.stop_sandboxes == (), "the engine that the run is in stays, too"
    with pytest.raises(LockedError, match=r"going on in another process \(pid 42\): 2 object\(s\) stay"):
        require_no_active_runs(planned)


def test_everything_cannot_go_while_a_run_is_going_on() -> None:
    with pytest.raises(LockedError, match="pid 42"):
        plan_cleanup(CleanupFacts(owned=MINE, live_runs={"alive": 42}), "all")


def test_what_a_strangers_container_uses_is_held_and_an_image_only_by_its_last_reference() -> None:
    uses = frozenset({(VOLUME, "v"), (IMAGE, "i1")})
    stranger = EngineObject(CONTAINER, "theirs", "9", uses=uses)
    things: tuple[EngineObject, ...] = (
        stranger,
        EngineObject(IMAGE, "tiny/web:1", "i1"),
        EngineObject(VOLUME, "v", "v"),
    )
    held = plan_cleanup(CleanupFacts(engine_objects=things, owned=MINE), "objects").used_by_others
    assert {each.name: user for each, user in held.items()} == {"v": "theirs", "tiny/web:1": "theirs"}
    things = (*things, EngineObject(IMAGE, "theirs/web:1", "i1"))
    assert {
        each.name for each in plan_cleanup(CleanupFacts(engine_objects=things, owned=MINE), "objects").used_by_others
    } == {"v"}


def test_the_levels_take_more_and_more() -> None:
    state = Path("s")
    facts = CleanupFacts(owned=MINE, owns_builder=True, running_sandboxes=(state,), sandboxes_with_data=(state,))
    objects, cache, everything = (plan_cleanup(facts, level) for level in ("objects", "cache", "all"))
    assert (objects.prune_cache, cache.prune_cache, everything.prune_cache) == (False, True, True)
    assert (objects.stop_sandboxes, cache.stop_sandboxes, everything.stop_sandboxes) == ((), (), (state,)), (
        "engine.up started it, engine.down ends it"
    )
    assert (cache.purge_sandboxes, everything.purge_sandboxes) == ((), (state,))
    assert everything.removes_state and not cache.removes_state
    assert not plan_cleanup(CleanupFacts(owned=MINE), "cache").prune_cache, "a builder that is not ours"


def test_a_network_waits_for_containers_to_leave_it_and_a_volume_for_them_to_go() -> None:
    uses = frozenset({(NETWORK, "n"), (NETWORK, "theirs"), (VOLUME, "v")})
    runs, was_made, restarts = (EngineObject(CONTAINER, each, each, uses=uses, state=each) for each in STATES)
    owned = {each: OwnedObject(CONTAINER, each, each, "r1") for each in (*STATES, "unknown")}
    network, volume = OwnedObject(NETWORK, "n", "7", "r1"), OwnedObject(VOLUME, "v", "v", "r1")

    found = plan_removal_steps([network, *owned.values(), volume], [runs, was_made, restarts])

    assert found[RemovalStep(owned["running"])] == {RemovalStep(owned["running"], disconnect_from="n")}
    assert (
        found[RemovalStep(owned["created"])]
        == found[RemovalStep(owned["restarting"])]
        == found[RemovalStep(owned["unknown"])]
        == set()
    )
    assert found[RemovalStep(network)] == {
        RemovalStep(owned["unknown"]), RemovalStep(owned["running"], disconnect_from="n"), RemovalStep(owned["restarting"])
    }, "one that was never started holds on to no network, of one that is not known it is not certain"  # fmt: skip
    assert found[RemovalStep(volume)] == {RemovalStep(each) for each in owned.values()}


def test_containers_leave_by_a_step_of_their_own_only_where_networks_wait_for_few_of_them() -> None:
    network = OwnedObject(NETWORK, "n", "7", "r1")
    for count, leaves in ((4, "n"), (5, "")):
        owned = [OwnedObject(CONTAINER, f"c{each}", f"c{each}", "r1") for each in range(count)]
        running = [
            EngineObject(CONTAINER, each.name, each.id, uses=frozenset({(NETWORK, "n")}), state="running")
            for each in owned
        ]
        assert plan_removal_steps([network, *owned], running)[RemovalStep(network)] == {
            RemovalStep(each, disconnect_from=leaves) for each in owned
        }
