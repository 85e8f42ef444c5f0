"""What there is to clean, found out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from lyra_tasks.cleanup.plan import CleanFacts
from lyra_tasks.cleanup.temporary import temporary_files
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.claims import Claims, Owned, claims_of
from lyra_tasks.engine.connect import Engine, connect_existing
from lyra_tasks.engine.guard import crashed_runs
from lyra_tasks.engine.ownership import claimed_by
from lyra_tasks.engine.space import figures_aside, owns_builder
from lyra_tasks.engine.things import IMAGE, Thing, everything
from lyra_tasks.engine.workspace import Workspace, started_by_itself
from lyra_tasks.records.checkouts import former, history, others
from lyra_tasks.records.journal import Journal
from lyra_tasks.run import began_within

_LATELY = 3600  # seconds; an engine that goes on for longer with what nobody waits for is not known


def gather(work: Workspace) -> tuple[CleanFacts, Engine | None]:
    """What there is to clean, and the engine that holds it: None if there is none that could hold anything of ours."""
    journals = _journals(work)
    states = list(journals)
    before = {state for state in states if sandbox.find(state) is not None}
    engine = connect_existing(work.config, work.paths)
    running = [state for state in states if sandbox.find(state) is not None]
    figures = figures_aside(engine) if engine is not None else None
    things = everything(engine) if engine is not None else ()
    mine = claimed_by(work.paths, engine.facts.id) if engine is not None else Claims()
    owned = tuple(each for thing in things if (each := mine.of(thing)) is not None)
    return CleanFacts(
        things=things,
        owned=owned,
        claims=mine,
        live=work.live_elsewhere(),
        crashed=frozenset(chain.from_iterable(crashed_runs(state) for state in states)),
        unfinished=bool(mine.begun),
        lately=any(began_within(each.run, _LATELY) for each in mine.begun.values()),
        shared=_shared(work, engine, things, mine) if engine is not None else {},
        temporary=tuple(temporary_files(work.paths, work.bundles)),
        # counted by now: beside a removal they would be of what is left, and an engine may stumble over what is not
        figures=figures() if figures is not None else None,
        owns_builder=engine is not None and owns_builder(engine),
        sandboxes=tuple(running),
        # one that ran before this word needed it was started by whoever wrote so into the journal
        by_itself=tuple(each for each in running if each not in before or started_by_itself(journals[each].entries())),
        states=tuple(states),
        with_data=tuple(each for each in states if sandbox.has_data(each)),
    ), engine


@contextmanager
def as_before(work: Workspace) -> Iterator[None]:
    """A private engine that does not run, and is started to be looked through in the block, is ended with it.

    What is cleaned ends it anyway; not so a dry run, an answer that is no, or a fault.
    """
    states = list(_journals(work))
    before = {state for state in states if sandbox.find(state) is not None}
    try:
        yield
    finally:
        for state in states:
            if state not in before and sandbox.find(state) is not None and not work.live_elsewhere():
                sandbox.require_nothing_left(sandbox.down(state))


def _journals(work: Workspace) -> dict[Path, Journal]:
    """The journals of this checkout by state folder: those from under former names first, the present one last."""
    return {**{each.state: each.journal for each in former(work.paths)}, work.paths.state: work.journal}


def _shared(work: Workspace, engine: Engine, things: Iterable[Thing], mine: Claims) -> dict[Owned, str]:
    """The images that other checkouts made as well, with the id of one of them; those that are deleted do not count."""
    there = ((each[-1].project_id, [one.journal for one in each]) for each in others(work.paths) if not each[0].is_gone)
    return shared_with(there, engine, things, mine)


def shared_with(
    checkouts: Iterable[tuple[str, list[Journal]]], engine: Engine, things: Iterable[Thing], mine: Claims
) -> dict[Owned, str]:
    """What of the images that `mine` claims one of these checkouts made as well: the id of one, by image."""
    images = {each: own for each in things if each.kind == IMAGE and (own := mine.of(each)) is not None}
    found: dict[Owned, str] = {}
    for project_id, journals in checkouts if images else ():
        # a journal may be long, and most have nothing to do with these images
        texts = [each.path.read_bytes() for each in journals if each.path.is_file()]
        named = [each for each in images if any(each.name.encode() in text for text in texts)]
        if named:
            theirs = claims_of(history(journals), engine.facts.id)
            found |= {images[each]: project_id for each in named if theirs.of(each) is not None}
    return found
