"""Property test: `clean` removes all objects of a checkout and nothing else, in any state of the engine.

LYRA_TEST_STATES is the number of generated states (1,000 take about 15 minutes), LYRA_TEST_SEED selects them.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.cleanup import facts, plan, report, run
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.inventory import IMAGE, list_objects
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LeftoverError, LockedError
from tests.engine.states import STRANGER_IMAGE, State, end_live_run, generate_state, import_image

STATES = int(os.environ.get("LYRA_TEST_STATES", "12"))
SEED = int(os.environ.get("LYRA_TEST_SEED", str(random.randrange(10**6))))
BATCH_SIZE = 12


@pytest.fixture
def stranger(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", engine.cli_environment["DOCKER_HOST"])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    import_image(engine, STRANGER_IMAGE, b"base")
    yield
    engine.api.remove_image(STRANGER_IMAGE)


def clean(work: Workspace, *, has_leftovers: bool = False, locked: bool = False) -> None:
    """Clean a checkout and check the outcome."""
    cleanup_facts, engine = facts.collect_cleanup_facts(work)
    cleanup_plan = plan.plan_cleanup(cleanup_facts, "objects")
    cleanup_report = run.run_cleanup([cleanup_plan], work, engine)
    if has_leftovers:
        with pytest.raises(LeftoverError):
            report.require_clean(cleanup_report)
    else:
        report.require_clean(cleanup_report)
    if locked:
        with pytest.raises(LockedError):
            plan.require_no_active_runs(cleanup_plan)
    else:
        plan.require_no_active_runs(cleanup_plan)
    work.mark_finished()


def object_ids(engine: Engine) -> dict[tuple[str, str], str]:
    return {(item.kind, item.name): item.id for item in list_objects(engine)}


def check(state: State, ids: dict[tuple[str, str], str], *, live: bool) -> None:
    """Check the state after checkout A was cleaned."""
    context = f"state {state.number} of seed {SEED}: {state.moves}"
    remaining = {key for key in state.mine if key in ids}
    if live:
        remaining = {key for key in remaining if key[0] != IMAGE}
        assert state.live <= ids.keys(), f"{context}: removed from an active run: {state.live - ids.keys()}"
    else:
        remaining |= state.live & ids.keys()
    assert remaining == set(), f"{context}: own objects are left"
    changed = {key for key, identity in state.stays.items() if ids.get(key) != identity}
    assert changed == set(), f"{context}: foreign objects were removed or changed"
    assert state.in_use <= ids.keys(), f"{context}: removed although in use: {state.in_use - ids.keys()}"


@pytest.mark.thorough
def test_clean_removes_own_objects_only(engine: Engine, stranger: None, tmp_path: Path) -> None:
    moves: set[str] = set()
    for first in range(0, STATES, BATCH_SIZE):
        numbers = range(first, min(first + BATCH_SIZE, STATES))
        states = [generate_state(number, engine, tmp_path / str(number), SEED) for number in numbers]
        moves |= {move for state in states for move in state.moves}
        for state in states:
            live = state.lock is not None
            has_leftovers = any(kind != IMAGE or not live for kind, _ in state.in_use)
            clean(state.open("a"), has_leftovers=has_leftovers, locked=live)
        ids = object_ids(engine)
        for state in states:
            check(state, ids, live=state.lock is not None)
            if state.lock is not None:
                end_live_run(state)
                clean(state.open("a"), has_leftovers=bool(state.in_use))
        ids = object_ids(engine)
        for state in states:
            check(state, ids, live=False)
        for state in states:
            remove_strangers(state)
        remaining = [
            key for key in object_ids(engine) if key[1] != STRANGER_IMAGE and key[0:2] != (IMAGE, STRANGER_IMAGE)
        ]
        assert [key for key in remaining if "s" in key[1] and "-" in key[1]] == [], f"seed {SEED}, from state {first}"
        shutil.rmtree(tmp_path / "state")
    assert len(moves - {""}) > min(STATES, 10)


def remove_strangers(state: State) -> None:
    """Remove the strangers' objects and clean the other checkouts, then A."""
    for kind, name in sorted(state.strangers):
        api = state.engine.api
        if kind == "container":
            api.remove_container(name, force=True)
    for kind, name in sorted(state.strangers):
        if kind == "network":
            api.remove_network(state.stays[kind, name])
        elif kind == "volume":
            api.remove_volume(name)
        elif kind == "image":
            api.remove_image(name)
    state.rename("gone", "tiny")
    for work in (state.b, state.gone):
        if work.paths.journal.exists():
            clean(state.open(work.root.name))
    if state.in_use:
        clean(state.open("a"))
