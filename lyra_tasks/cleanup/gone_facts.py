"""What checkouts left whose folder is not there any more, found out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from lyra_tasks.cleanup.facts import shared_with
from lyra_tasks.cleanup.gone_plan import GoneCheckout, GoneFacts
from lyra_tasks.cleanup.plan import CleanFacts
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.claims import Claims, claims_of
from lyra_tasks.engine.connect import Engine, connect_existing
from lyra_tasks.engine.guard import crashed_runs
from lyra_tasks.engine.space import figures
from lyra_tasks.engine.things import IMAGE, Thing, everything
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.records.checkouts import Checkout, former, history, others
from lyra_tasks.records.journal import Journal
from lyra_tasks.run import live_folder, live_runs


def gather(work: Workspace) -> tuple[GoneFacts, Engine | None]:
    """What the checkouts left that are gone, in the engine of `work` and in those of their own; and that engine."""
    engine = connect_existing(work.config, work.paths)
    things = everything(engine) if engine is not None else ()
    gone, there = [], [("", [*(each.journal for each in former(work.paths)), work.journal])]
    for each in others(work.paths):
        if each[0].is_gone:
            gone.append(each)
        else:
            there.append((each[-1].project_id, [one.journal for one in each]))
    there[0] = (work.paths.project_id, there[0][1])
    return GoneFacts(
        checkouts=tuple(_checkout(each, engine, things, there) for each in gone),
        things=things,
        figures=figures(engine) if engine is not None else None,
    ), engine


def _checkout(
    checkout: tuple[Checkout, ...],
    engine: Engine | None,
    things: tuple[Thing, ...],
    there: Iterable[tuple[str, list[Journal]]],
) -> GoneCheckout:
    states = [each.state for each in checkout]
    mine = claims_of(history(each.journal for each in checkout), engine.facts.id) if engine else Claims()
    running = [state for state in states if sandbox.find(state) is not None]
    facts = CleanFacts(
        things=things,
        owned=tuple(own for each in things if (own := mine.of(each)) is not None),
        claims=mine,
        live=dict(chain.from_iterable(live_runs(live_folder(state)).items() for state in states)),
        crashed=frozenset(chain.from_iterable(crashed_runs(state) for state in states)),
        unfinished=bool(mine.begun),
        shared=shared_with(there, engine, things, mine) if engine is not None else {},
        sandboxes=tuple(running),
        states=tuple(states),
        with_data=tuple(state for state in states if sandbox.has_data(state)),
    )
    return GoneCheckout(
        root=checkout[-1].root or Path(),
        project_id=checkout[-1].project_id,
        doubt=checkout[-1].doubt,
        facts=facts,
        in_use=engine is not None and any(_is_of(engine, state) for state in running),
        elsewhere=tuple(sorted(_elsewhere(checkout, engine, things))),
    )


def _is_of(engine: Engine, state: Path) -> bool:
    box = sandbox.find(state)
    return box is not None and engine.cli_environment.get("DOCKER_HOST") == f"unix://{box.socket}"


def _elsewhere(checkout: Iterable[Checkout], engine: Engine | None, things: Iterable[Thing]) -> Iterator[str]:
    """The engines that the journals name, that are neither this one nor their own, and may hold something of theirs.

    What was made in an engine of their own goes with its data.
    """
    own = [sandbox.engine_ids(each.state) for each in checkout if sandbox.has_data(each.state)]
    if not all(own):
        return  # an old engine does not write down who it is, and may be any that is named
    entries = list(history(each.journal for each in checkout))
    known = {engine.facts.id, *chain.from_iterable(own)} if engine is not None else set(chain.from_iterable(own))
    # only images are made in an engine by name; what else was made may be in any, and is gone wherever it was removed
    anywhere = (replace(each, data={**each.data, "engine": ""}) for each in entries if each.data.get("kind") != IMAGE)
    lost = claims_of(anywhere, "").labels.keys() - {(each.kind, each.name) for each in things}
    for identity in {str(entry.data["engine"]) for entry in entries if entry.data.get("engine")} - known:
        claims = claims_of(entries, identity)
        if claims.images or claims.begun or lost:
            yield identity
