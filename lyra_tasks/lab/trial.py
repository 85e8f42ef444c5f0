"""test: a lab for the set that was built, its checks, and the evidence that comes of them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.config.models import Test
from lyra_tasks.engine.inputs import current_inputs
from lyra_tasks.engine.workspace import Workspace, selected
from lyra_tasks.errors import VerdictError
from lyra_tasks.lab import plan as planning
from lyra_tasks.lab import run as running
from lyra_tasks.lab.facts import gather as gather_facts
from lyra_tasks.lab.rounds import Conduct
from lyra_tasks.records.evidence import Evidence, SetKey
from lyra_tasks.rules.deviations import Judgement, judge
from lyra_tasks.rules.freshness import effective_parts, image_states, require_current, set_key
from lyra_tasks.rules.looks import looks_of


@dataclass(frozen=True)
class Trial:
    """A planned test run; `partial` is one that leaves no evidence, because not every check is made."""

    work: Workspace
    plan: planning.LabPlan
    tests: tuple[Test, ...]
    key: SetKey
    capacity: running.Capacity
    parts: Mapping[str, str]
    judgement: Judgement
    partial: bool
    conduct: Conduct


@dataclass(frozen=True)
class Verdict:
    """What came of a trial, and where its files are."""

    evidence: Evidence
    folder: Path
    judgement: Judgement
    partial: bool
    kept_running: Mapping[str, str]


def gather(work: Workspace, only: Sequence[str], conduct: Conduct) -> Trial:
    """Plan a test run; StaleError where an image is not what its files say."""
    config = work.config
    names = selected(only, [test.name for test in config.tests], "test")
    states = image_states(work.images, work.engine, current_inputs(work), work.platform)
    records = require_current(states)
    facts = gather_facts(work, records)
    image_configs = {name: facts.services[name].image_config for name in config.services}
    externals = {
        name: facts.services[name].image_id for name, service in config.services.items() if service.external is not None
    }
    share = config.resources.host_share
    engine = work.engine.facts
    return Trial(
        work=work,
        plan=planning.plan(config, facts),
        tests=tuple(test for test in config.tests if test.name in names),
        key=set_key(config, work.root, records, externals),
        capacity=running.Capacity(engine.cpus * share, int(engine.memory * share)),
        parts=effective_parts(config, work.root),
        judgement=judge(config, looks_of(work, records, image_configs), datetime.date.today()),
        partial=bool(only),
        conduct=conduct,
    )


def run(trial: Trial) -> Verdict:
    """Make the test run; its evidence is kept for `promote` whether it passed or not.

    Raises VerdictError if a rule is broken (then nothing is started), or if a service was not ready or died; checks
    that failed are for the caller to see.
    """
    work = trial.work
    if trial.judgement.broken:
        _keep(trial, running.refused(
            trial.key, trial.parts, trial.judgement.results, engine=work.engine, owner=work.owner, folder=work.folder
        ))  # fmt: skip
        trial.judgement.require()
    if not trial.tests:
        raise VerdictError("there are no tests: nothing would be proved", hint="write at least one [[tests]] entry")
    ran = running.run(
        trial.plan, trial.tests, trial.key, trial.parts, trial.judgement.results,
        engine=work.engine, owner=work.owner, root=work.root, folder=work.folder,
        state=work.paths.state, capacity=trial.capacity, conduct=trial.conduct,
    )  # fmt: skip
    _keep(trial, ran.evidence)
    if ran.fault is not None:
        raise ran.fault
    return Verdict(ran.evidence, work.folder, trial.judgement, trial.partial, ran.addresses)


def _keep(trial: Trial, evidence: Evidence) -> None:
    work = trial.work
    if not trial.partial:
        work.evidence.write(evidence, work.folder)
    work.journal.append(
        work.run, "tested", set=trial.key.digest, passed=evidence.passed, partial=trial.partial,
        checks={check.name: check.outcome for check in evidence.checks},
        deviations=[each.model_dump(mode="json") for each in trial.judgement.used],
        rules={f"{each.rule} {each.scope}": each.outcome for each in evidence.rules if each.outcome != "kept"},
    )  # fmt: skip
