"""What stays in a journal when its older entries are archived."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.cleanup.journal_limits import select_needed_entries
from lyra_tasks.engine.objects.inventory import CONTAINER, IMAGE, VOLUME
from lyra_tasks.engine.objects.known_engines import count_claims
from lyra_tasks.engine.objects.ownership import load_ownership_index
from lyra_tasks.paths import Paths
from lyra_tasks.records.journal import Journal
from tests.thorough import keep

ENGINES = ("e1", "e2")


def make_paths(tmp_path: Path, name: str = "web") -> Paths:
    project_id = f"{name}-123456"
    return Paths(tmp_path, tmp_path / ".lyra", tmp_path / "state" / project_id, tmp_path / "cache", project_id)


def work_for_a_while(journal: Journal, chance: random.Random, count: int) -> None:
    """Record what runs do to objects, in any order."""
    for number in range(count):
        run, engine = f"r{number}", chance.choice(ENGINES)
        kind, name = chance.choice(((CONTAINER, "c"), (VOLUME, "v"), (IMAGE, "t:1"), (IMAGE, "t:2")))
        identity = {"kind": kind, "name": name, "engine": engine}
        object_id = f"i{chance.randrange(4)}"
        event = chance.choice(("intent", "created", "created", "removed", "disowned", "cleared", "engine", "task"))
        if event == "intent":
            journal.append(run, event, **identity, nonce=f"n{number}", previous_id="")
        elif event == "cleared":
            journal.append(run, event, engine=engine, last_entry=journal.last_seq)
        elif event == "engine":
            journal.append(run, event, engine=engine, host=f"unix:///{number}")
        elif event == "task":
            journal.append(run, event, task="status")
        else:
            journal.append(run, event, **identity, id=object_id)


@pytest.mark.parametrize("seed", keep(10, range(40)))
def test_archiving_changes_no_claim(tmp_path: Path, seed: int) -> None:
    paths, chance = make_paths(tmp_path), random.Random(seed)
    journal = Journal(paths.journal)
    for _ in range(3):
        work_for_a_while(journal, chance, 40)
        before = [load_ownership_index(paths, engine) for engine in ENGINES]
        counts = count_claims([journal], set())
        assert journal.archive(select_needed_entries(paths, set(), tmp_path), 10) is not None
        after = [load_ownership_index(paths, engine) for engine in ENGINES]
        for old, new in zip(before, after, strict=True):
            assert (new.nonces, new.images, new.image_intents) == (old.nonces, old.images, old.image_intents)
            assert new.ids.items() >= {key: old.ids[key] for key in old.ids.keys() & old.nonces.keys()}.items()
        assert count_claims([journal], set()) == counts
        assert journal.find_problems(archived=True) == []


@pytest.mark.parametrize("seed", keep(6, range(20)))
def test_archiving_changes_no_claim_of_a_renamed_project(tmp_path: Path, seed: int) -> None:
    former, chance = make_paths(tmp_path), random.Random(seed)
    paths = replace(former, state=former.state.parent / "shop-123456", project_id="shop-123456")
    work_for_a_while(Journal(former.journal), chance, 40)
    journal = Journal(paths.journal)
    work_for_a_while(journal, chance, 60)
    before = [load_ownership_index(paths, engine) for engine in ENGINES]
    assert journal.archive(select_needed_entries(paths, set(), tmp_path), 10) is not None
    after = [load_ownership_index(paths, engine) for engine in ENGINES]
    for old, new in zip(before, after, strict=True):
        assert (new.nonces, new.images, new.image_intents) == (old.nonces, old.images, old.image_intents)


def test_entries_of_evidence_and_bundles_stay(tmp_path: Path) -> None:
    paths = make_paths(tmp_path)
    journal = Journal(paths.journal)
    for number in range(4):
        journal.append(f"r{number}", "tested", set=f"s{number}")
        journal.append(f"r{number}", "promoted", version=f"1.{number}.0")
        journal.append(f"r{number}", "sandbox-started", by="lyra")
    (tmp_path / "bundles" / "1.2.0").mkdir(parents=True)
    for number in range(5):
        journal.append(f"r{number}", "task")
    journal.archive(select_needed_entries(paths, {"r1"}, tmp_path / "bundles"), 2)
    kept = [(entry.run, entry.event) for entry in journal.entries()][:-2]
    assert kept == [("r1", "tested"), ("r2", "promoted"), ("r3", "sandbox-started")]
