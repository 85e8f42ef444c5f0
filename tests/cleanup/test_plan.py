from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.cleanup.plan import CleanFacts, plan, require_nobody
from lyra_tasks.engine.claims import Claims, Owned, claims_of
from lyra_tasks.engine.remove import Step, steps
from lyra_tasks.engine.things import CONTAINER, IMAGE, NETWORK, VOLUME, Thing
from lyra_tasks.errors import LockedError
from lyra_tasks.records.journal import Entry

ENGINE = "engine-1"
STATES = ("running", "created", "restarting")


def journaled(*events: tuple[str, str, dict[str, object]]) -> Claims:
    """The claims of a journal with these (run, event, data)."""
    return claims_of([Entry(n, "", run, event, dict(data)) for n, (run, event, data) in enumerate(events)], ENGINE)


def intent(kind: str, name: str, nonce: str = "n1") -> tuple[str, str, dict[str, object]]:
    return "r1", "intent", {"kind": kind, "name": name, "nonce": nonce}


def image(event: str, name: str, **data: object) -> tuple[str, str, dict[str, object]]:
    return "r1", event, {"kind": IMAGE, "name": name, "engine": ENGINE, **data}


def test_a_label_alone_and_a_journal_alone_make_nothing_ours() -> None:
    claims = journaled(intent(VOLUME, "v"))
    assert claims.of(Thing(VOLUME, "v", "v", nonce="n1")) == Owned(VOLUME, "v", "v", "r1")
    assert claims.of(Thing(VOLUME, "v", "v")) is None
    assert claims.of(Thing(VOLUME, "v", "v", nonce="n2")) is None
    assert claims.of(Thing(VOLUME, "w", "w", nonce="n1")) is None
    assert claims.of(Thing(NETWORK, "v", "v", nonce="n1")) is None


def test_a_damaged_line_claims_nothing_and_takes_nothing_from_the_others() -> None:
    damaged: list[dict[str, object]] = [
        {"kind": VOLUME},
        {"kind": VOLUME, "name": ["v"]},
        {"kind": VOLUME, "name": "v"},
        {"kind": IMAGE, "name": None, "before": {}},
    ]
    events = [("r2", event, data) for data in damaged for event in ("intent", "made", "removed")]
    claims = journaled(intent(VOLUME, "v"), *events)
    assert claims.of(Thing(VOLUME, "v", "v", nonce="n1")) == Owned(VOLUME, "v", "v", "r1")


def test_an_id_that_the_engine_gave_counts_more_than_a_label_which_can_be_copied() -> None:
    claims = journaled(intent(CONTAINER, "c"), ("r1", "made", {"kind": CONTAINER, "name": "c", "id": "1"}))
    assert claims.of(Thing(CONTAINER, "c", "1", nonce="n1")) is not None
    assert claims.of(Thing(CONTAINER, "c", "2", nonce="n1")) is None


def test_what_was_removed_is_no_longer_claimed() -> None:
    claims = journaled(
        intent(VOLUME, "v"),
        image("made", "tiny/web:1", id="i1"),
        ("r2", "removed", {"kind": VOLUME, "name": "v", "id": "v"}),
        image("removed", "tiny/web:1", id="i1"),
    )
    assert claims.of(Thing(VOLUME, "v", "v", nonce="n1")) is None
    assert claims.of(Thing(IMAGE, "tiny/web:1", "i1")) is None, "somebody else may have loaded it since"
    assert claims.of(Thing(IMAGE, "i1", "i1")) is not None, "without a reference it is what a build of ours left"


def test_an_image_is_ours_in_the_engine_where_it_was_made_alone() -> None:
    elsewhere = claims_of([Entry(1, "", "r1", "made", image("made", "t:1", id="i1")[2])], "engine-2")
    assert elsewhere.of(Thing(IMAGE, "t:1", "i1")) is None


def test_an_image_of_a_build_that_did_not_end_is_ours_by_its_label_or_by_a_name_that_only_lyra_gives() -> None:
    begun = journaled(image("intent", "tiny/web:1", before="i0", private=False))
    assert begun.of(Thing(IMAGE, "tiny/web:1", "i1", title="tiny/web")) is not None
    assert begun.of(Thing(IMAGE, "tiny/web:1", "i0", title="tiny/web")) is None, "it was there before"
    assert begun.of(Thing(IMAGE, "tiny/web:1", "i1", title="other/web")) is None
    holder = journaled(image("intent", "tiny-1/holder:2", before="", private=True))
    assert holder.of(Thing(IMAGE, "tiny-1/holder:2", "i1")) is not None


def test_what_an_older_journal_says_of_a_holder_still_counts() -> None:
    older = journaled(("r1", "intent", {"kind": IMAGE, "name": "tiny-1/holder:2"}))
    assert older.of(Thing(IMAGE, "tiny-1/holder:2", "i1")) is not None


MINE = (
    Owned(CONTAINER, "c", "1", "dead"),
    Owned(CONTAINER, "d", "2", "alive"),
    Owned(VOLUME, "v", "v", "dead"),
    Owned(IMAGE, "tiny/web:1", "i1", "dead"),
)


def test_of_a_live_run_nothing_goes_and_no_image_which_it_may_need() -> None:
    planned = plan(CleanFacts(owned=MINE, live={"alive": 42}, by_itself=(Path("s"),)), "objects")
    assert {each.name for each in planned.objects} == {"c", "v"}
    assert planned.stop == (), "the engine that the run is in stays, too"
    with pytest.raises(LockedError, match=r"going on in another process \(pid 42\): 2 object\(s\) stay"):
        require_nobody(planned)


def test_everything_cannot_go_while_a_run_is_going_on() -> None:
    with pytest.raises(LockedError, match="pid 42"):
        plan(CleanFacts(owned=MINE, live={"alive": 42}), "all")


def test_what_a_strangers_container_uses_is_held_and_an_image_only_by_its_last_reference() -> None:
    uses = frozenset({(VOLUME, "v"), (IMAGE, "i1")})
    stranger = Thing(CONTAINER, "theirs", "9", uses=uses)
    things: tuple[Thing, ...] = (stranger, Thing(IMAGE, "tiny/web:1", "i1"), Thing(VOLUME, "v", "v"))
    held = plan(CleanFacts(things=things, owned=MINE), "objects").held
    assert {each.name: user for each, user in held.items()} == {"v": "theirs", "tiny/web:1": "theirs"}
    things = (*things, Thing(IMAGE, "theirs/web:1", "i1"))
    assert {each.name for each in plan(CleanFacts(things=things, owned=MINE), "objects").held} == {"v"}


def test_the_levels_take_more_and_more() -> None:
    state = Path("s")
    facts = CleanFacts(owned=MINE, owns_builder=True, sandboxes=(state,), with_data=(state,))
    objects, cache, everything = (plan(facts, level) for level in ("objects", "cache", "all"))
    assert (objects.prune_cache, cache.prune_cache, everything.prune_cache) == (False, True, True)
    assert (objects.stop, cache.stop, everything.stop) == ((), (), (state,)), (
        "engine.up started it, engine.down ends it"
    )
    assert (cache.purge, everything.purge) == ((), (state,))
    assert everything.forget and not cache.forget
    assert not plan(CleanFacts(owned=MINE), "cache").prune_cache, "a builder that is not ours"


def test_a_network_waits_for_containers_to_leave_it_and_a_volume_for_them_to_go() -> None:
    uses = frozenset({(NETWORK, "n"), (NETWORK, "theirs"), (VOLUME, "v")})
    runs, was_made, restarts = (Thing(CONTAINER, each, each, uses=uses, state=each) for each in STATES)
    owned = {each: Owned(CONTAINER, each, each, "r1") for each in (*STATES, "unknown")}
    network, volume = Owned(NETWORK, "n", "7", "r1"), Owned(VOLUME, "v", "v", "r1")

    found = steps([network, *owned.values(), volume], [runs, was_made, restarts])

    assert found[Step(owned["running"])] == {Step(owned["running"], leaves="n")}
    assert found[Step(owned["created"])] == found[Step(owned["restarting"])] == found[Step(owned["unknown"])] == set()
    assert found[Step(network)] == {
        Step(owned["unknown"]), Step(owned["running"], leaves="n"), Step(owned["restarting"])
    }, "one that was never started holds on to no network, of one that is not known it is not certain"  # fmt: skip
    assert found[Step(volume)] == {Step(each) for each in owned.values()}


def test_containers_leave_by_a_step_of_their_own_only_where_networks_wait_for_few_of_them() -> None:
    network = Owned(NETWORK, "n", "7", "r1")
    for count, leaves in ((4, "n"), (5, "")):
        owned = [Owned(CONTAINER, f"c{each}", f"c{each}", "r1") for each in range(count)]
        running = [
            Thing(CONTAINER, each.name, each.id, uses=frozenset({(NETWORK, "n")}), state="running") for each in owned
        ]
        assert steps([network, *owned], running)[Step(network)] == {Step(each, leaves=leaves) for each in owned}
