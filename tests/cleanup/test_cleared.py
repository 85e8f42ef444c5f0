"""How far back a journal is read for what is ours: to the last cleaning that left nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.cleanup.plan import CleanupFacts, plan_cleanup
from lyra_tasks.engine.objects.inventory import EngineObject
from lyra_tasks.engine.objects.ownership import CONTAINER, VOLUME, OwnedObject, Owner, load_ownership_index
from lyra_tasks.paths import Paths
from lyra_tasks.records.journal import Journal


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / ".lyra", tmp_path / "state" / "web-123456", tmp_path / "cache", "web-123456")


@pytest.fixture
def owner(paths: Paths) -> Owner:
    """A run that has made a volume, which is not there any more, and no word of that."""
    found = Owner(Journal(paths.journal), "r1", paths.project_id)
    found.record_intent(VOLUME, ["before"])
    return found


def volumes(paths: Paths, engine: str) -> set[str]:
    return {name for _, name in load_ownership_index(paths, engine).nonces}


def test_what_a_cleaning_saw_that_left_nothing_is_not_claimed_any_more(paths: Paths, owner: Owner) -> None:
    seen = load_ownership_index(paths, "engine-1").journal_bytes
    owner.record_intent(VOLUME, ["meanwhile"])
    owner.journal.append("r2", "cleared", engine="engine-1", seen=seen)
    owner.record_intent(VOLUME, ["after"])
    assert volumes(paths, "engine-1") == {"meanwhile", "after"}
    assert volumes(paths, "engine-2") == {"before", "meanwhile", "after"}, "nobody looked there"
    owner.journal.append("r3", "cleared", engine="engine-2", seen=load_ownership_index(paths, "engine-2").journal_bytes)
    assert volumes(paths, "engine-1") == {"meanwhile", "after"}, "the newest one of this engine counts"


@pytest.mark.parametrize("seen", [-1, 10**9, "many", None])
def test_a_word_of_a_cleaning_that_cannot_be_true_is_passed_over(paths: Paths, owner: Owner, seen: object) -> None:
    owner.journal.append("r2", "cleared", engine="engine-1", seen=seen)
    assert volumes(paths, "engine-1") == {"before"}


def test_under_a_new_name_all_of_a_checkouts_journals_are_read(paths: Paths, owner: Owner) -> None:
    renamed = replace(paths, state=paths.state.parent / "shop-123456", project_id="shop-123456")
    now = Owner(Journal(renamed.journal), "r2", renamed.project_id)
    now.record_intent(VOLUME, ["now"])
    now.journal.append("r2", "cleared", engine="engine-1", seen=now.journal.size)
    assert volumes(renamed, "engine-1") == {"before", "now"}
    assert load_ownership_index(renamed, "engine-1").journal_bytes == 0, "so that no cleaning says how far it saw"


def test_only_after_what_ended_in_order_and_took_everything_nothing_can_be_left() -> None:
    mine = (OwnedObject(CONTAINER, "c", "1", "r1"), OwnedObject(VOLUME, "v", "v", "r1"))
    facts = CleanupFacts(owned=mine)
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
