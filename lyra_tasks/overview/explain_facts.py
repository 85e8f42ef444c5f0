"""What `explain` rests on, found out without starting or changing anything."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from lyra_tasks.engine.connect import connect_running
from lyra_tasks.engine.inputs import current_inputs
from lyra_tasks.engine.objects import inspect_image
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import EngineUnavailableError, PreconditionError
from lyra_tasks.overview.explain import ExplainFacts
from lyra_tasks.records.evidence import Evidence, SetKey
from lyra_tasks.rules.deviations import Judgement, rejudge
from lyra_tasks.rules.freshness import effective_parts, image_states, set_key
from lyra_tasks.rules.standing import standings

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine


def gather(work: Workspace) -> ExplainFacts:
    """How the checkout stands: files against records, the set against what was tested, reasons against today."""
    engine = _running(work)
    states = image_states(work.images, engine, current_inputs(work))
    records = {state.name: state.record for state in states if state.record is not None}
    key = set_key(work, records, _externals(work, engine))
    evidence, before = _read(work, key), work.evidence.latest()
    if engine is None and evidence is None and before is not None and _same_but_externals(before.set, key):
        # which images the doubles are now, only an engine could say
        evidence = before
    today = datetime.date.today()
    last = evidence or before
    return ExplainFacts(
        images=states,
        key=key,
        parts=effective_parts(work, records),
        evidence=evidence,
        before=before,
        judgement=rejudge(work.config, evidence.rules, today) if evidence else Judgement(()),
        standings=standings(work.config, last.rules if last else (), today),
        version=work.version.semver,
        promoted=_promoted(work, (evidence.set if evidence else key).digest),
        engine_runs=engine is not None,
    )


def _running(work: Workspace) -> Engine | None:
    try:
        return connect_running(work.config, work.paths)
    except EngineUnavailableError:
        return None


def _externals(work: Workspace, engine: Engine | None) -> dict[str, str]:
    found = {}
    for name, service in work.config.services.items():
        if service.external is not None:
            seen = inspect_image(engine, service.external) if engine else None
            found[name] = str(seen["Id"]) if seen else "not in the engine"
    return found


def _read(work: Workspace, key: SetKey) -> Evidence | None:
    try:
        return work.evidence.read(key)
    except PreconditionError:
        return None


def _same_but_externals(one: SetKey, other: SetKey) -> bool:
    return (one.images, one.effective) == (other.images, other.effective)


def _promoted(work: Workspace, digest: str) -> bool:
    version = work.version.semver
    made = any(
        entry.event == "promoted" and (entry.data.get("version"), entry.data.get("set")) == (version, digest)
        for entry in work.journal.entries()
    )
    return made and (work.bundles / version).is_dir()
