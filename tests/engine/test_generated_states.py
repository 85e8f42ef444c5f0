"""Whatever is in an engine: `clean` takes nothing that is not ours, and leaves nothing that is.

LYRA_TEST_STATES says how many states are generated (1,000 take about a quarter of an hour), LYRA_TEST_SEED which ones.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.cleanup import facts, plan, run
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.inventory import IMAGE, list_objects
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LeftoverError, LockedError
from tests.engine.states import STRANGER_IMAGE, State, end_live_run, generated, import_image

STATES = int(os.environ.get("LYRA_TEST_STATES", "12"))
SEED = int(os.environ.get("LYRA_TEST_SEED", str(random.randrange(10**6))))
AT_ONCE = 12


@pytest.fixture
def stranger(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", engine.cli_environment["DOCKER_HOST"])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    import_image(engine, STRANGER_IMAGE, b"base")
    yield
    engine.api.remove_image(STRANGER_IMAGE)


def cleaned(work: Workspace, *, residue: bool = False, locked: bool = False) -> None:
    """Clean a checkout as the word does; it must end as said."""
    found, engine = facts.collect_cleanup_facts(work)
    planned = plan.plan_cleanup(found, "objects")
    proof = run.run_cleanup(planned, work, engine)
    if residue:
        with pytest.raises(LeftoverError):
            run.require_clean(proof)
    else:
        run.require_clean(proof)
    if locked:
        with pytest.raises(LockedError):
            plan.require_no_active_runs(planned)
    else:
        plan.require_no_active_runs(planned)
    work.mark_finished()


def held(engine: Engine) -> dict[tuple[str, str], str]:
    return {(each.kind, each.name): each.id for each in list_objects(engine)}


def check(state: State, there: dict[tuple[str, str], str], *, live: bool) -> None:
    """The state after A was cleaned is the one that was expected."""
    who = f"state {state.number} of seed {SEED}: {state.moves}"
    left = {key for key in state.mine if key in there}
    if live:
        left = {key for key in left if key[0] != IMAGE}
        assert state.live <= there.keys(), f"{who}: of a live run went {state.live - there.keys()}"
    else:
        left |= state.live & there.keys()
    assert left == set(), f"{who}: ours are left"
    changed = {key for key, identity in state.stays.items() if there.get(key) != identity}
    assert changed == set(), f"{who}: not ours, and gone or changed"
    assert state.held <= there.keys(), f"{who}: a stranger's container has lost {state.held - there.keys()}"


def test_clean_takes_what_is_ours_and_nothing_else(engine: Engine, stranger: None, tmp_path: Path) -> None:
    moves: set[str] = set()
    for first in range(0, STATES, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, STATES))
        states = [generated(number, engine, tmp_path / str(number), SEED) for number in numbers]
        moves |= {move for state in states for move in state.moves}
        for state in states:
            live = state.lock is not None
            residue = any(kind != IMAGE or not live for kind, _ in state.held)
            cleaned(state.open("a"), residue=residue, locked=live)
        there = held(engine)
        for state in states:
            check(state, there, live=state.lock is not None)
            if state.lock is not None:
                end_live_run(state)
                cleaned(state.open("a"), residue=bool(state.held))
        there = held(engine)
        for state in states:
            check(state, there, live=False)
        for state in states:
            leave(state)
        left = [key for key in held(engine) if key[1] != STRANGER_IMAGE and key[0:2] != (IMAGE, STRANGER_IMAGE)]
        assert [key for key in left if "s" in key[1] and "-" in key[1]] == [], f"seed {SEED}, from state {first}"
        shutil.rmtree(tmp_path / "state")
    assert len(moves - {""}) > min(STATES, 10)


def leave(state: State) -> None:
    """The strangers go, the other checkouts are cleaned, one of them checked out again, and then A."""
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
            cleaned(state.open(work.root.name))
    if state.held:
        cleaned(state.open("a"))
