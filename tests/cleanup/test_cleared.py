"""The journal is read back to the last cleanup that left nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.cleanup.plan import CleanupFacts, plan_cleanup
from lyra_tasks.engine.objects.inventory import CONTAINER, VOLUME, EngineObject
from lyra_tasks.engine.objects.ownership import OwnedObject, Owner, load_ownership_index
from lyra_tasks.paths import Paths
from lyra_tasks.records.journal import Journal


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / ".lyra", tmp_path / "state" / "web-123456", tmp_path / "cache", "web-123456")


@pytest.fixture
def owner(paths: Paths) -> Owner:
    """The owner of a run with a volume that has vanished without a journal entry."""
    owner = Owner(Journal(paths.journal), "r1", paths.project_id)
    owner.record_intent(VOLUME, ["before"])
    return owner


def volumes(paths: Paths, engine: str) -> set[str]:
    return {name for _, name in load_ownership_index(paths, engine).nonces}


def test_cleared_objects_are_not_owned(paths: Paths, owner: Owner) -> None:
    journal_bytes = load_ownership_index(paths, "engine-1").journal_bytes
    owner.record_intent(VOLUME, ["meanwhile"])
    owner.journal.append("r2", "cleared", engine="engine-1", journal_bytes=journal_bytes)
    owner.record_intent(VOLUME, ["after"])
    assert volumes(paths, "engine-1") == {"meanwhile", "after"}
    assert volumes(paths, "engine-2") == {"before", "meanwhile", "after"}, "it was not cleared there"
    owner.journal.append(
        "r3", "cleared", engine="engine-2", journal_bytes=load_ownership_index(paths, "engine-2").journal_bytes
    )
    assert volumes(paths, "engine-1") == {"meanwhile", "after"}, "the newest one of this engine counts"


@pytest.mark.parametrize("journal_bytes", [-1, 10**9, "many", None])
def test_impossible_cleared_event_is_ignored(paths: Paths, owner: Owner, journal_bytes: object) -> None:
    owner.journal.append("r2", "cleared", engine="engine-1", journal_bytes=journal_bytes)
    assert volumes(paths, "engine-1") == {"before"}


def test_renamed_project_reads_all_its_journals(paths: Paths, owner: Owner) -> None:
    renamed = replace(paths, state=paths.state.parent / "shop-123456", project_id="shop-123456")
    new_owner = Owner(Journal(renamed.journal), "r2", renamed.project_id)
    new_owner.record_intent(VOLUME, ["now"])
    new_owner.journal.append("r2", "cleared", engine="engine-1", journal_bytes=new_owner.journal.size)
    assert volumes(renamed, "engine-1") == {"before", "now"}
    assert load_ownership_index(renamed, "engine-1").journal_bytes == 0, "so that no cleanup clears it"


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
