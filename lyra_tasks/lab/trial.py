"""test: a lab for the set that was built, its checks, and the evidence that comes of them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.config.dockerfile import read
from lyra_tasks.config.inputs import dockerfile_path
from lyra_tasks.config.models import Test
from lyra_tasks.config.platforms import runs_on, variants
from lyra_tasks.config.targets import checked_stage
from lyra_tasks.engine.bases import ResolvedBase
from lyra_tasks.engine.buildx import require_buildx
from lyra_tasks.engine.emulation import runnable
from lyra_tasks.engine.inputs import arguments_of, current_inputs, stage_uses
from lyra_tasks.engine.materials import locked_bases, materials, provide_bases
from lyra_tasks.engine.workspace import Workspace, selected
from lyra_tasks.errors import UsageError, VerdictError
from lyra_tasks.lab import plan as planning
from lyra_tasks.lab import run as running
from lyra_tasks.lab import stages
from lyra_tasks.lab.admission import Capacity, capacity_of, held_by_labs
from lyra_tasks.lab.checks import Means, kept_folders
from lyra_tasks.lab.facts import gather as gather_facts
from lyra_tasks.lab.groups import PlannedGroup, grouped, together
from lyra_tasks.lab.platforms import Running, tried
from lyra_tasks.lab.platforms import plan as run_for
from lyra_tasks.lab.rounds import Conduct
from lyra_tasks.lab.structure import structure_command
from lyra_tasks.records.evidence import Evidence, SetKey
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.declared import blotted_out
from lyra_tasks.rules.deviations import Judgement, judge
from lyra_tasks.rules.freshness import effective_parts, image_states, require_current, set_key
from lyra_tasks.rules.looks import looks_of


@dataclass(frozen=True)
class Trial:
    """A planned test run; `partial` is one that leaves no evidence, because not every check is made.

    The groups of one of its `rounds` run at the same time. `bases` are those of stages that are checks.
    """

    work: Workspace
    rounds: tuple[tuple[PlannedGroup, ...], ...]
    means: Means
    bases: tuple[ResolvedBase, ...]
    key: SetKey
    capacity: Capacity
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


def gather(work: Workspace, only: Sequence[str], conduct: Conduct, *, dry: bool = False) -> Trial:
    """Plan a test run; StaleError where an image is not what its files say.

    A `dry` one starts nothing, not even to try what the engine runs: it is planned as if it ran every platform.
    """
    config = work.config
    tests = _chosen(config.tests, only)  # before an engine is asked, or even started
    records = require_current(image_states(work.images, work.engine, current_inputs(work)))
    rounds = _rounds(work, dry=dry)
    partial = bool(only)
    if conduct.keep_running and len(rounds) > 1:
        rounds, partial = rounds[:1], True
    found = [gather_facts(work, {name: records[b.key] for name, b in each.builds.items()}) for each in rounds]
    own = found[0].services
    groups: list[PlannedGroup] = []
    for each, facts in zip(rounds, found, strict=True):
        groups += _groups(work, each, records, facts, tests, taken=len(groups))
    externals = {name: own[name].image_id for name, service in config.services.items() if service.external is not None}
    capacity = capacity_of(work)
    if conduct.keep_running and len(groups) > 1:
        raise UsageError(
            "only one lab can be left running, and every group of checks has its own",
            hint=f"choose one: --only {' or --only '.join(each.name for each in groups if each.name)}",
        )
    held = held_by_labs(work.engine)
    free_cpus = capacity.cpus - sum(each.cpus for each in held)
    free_memory = capacity.memory - sum(each.memory for each in held)
    planned, bases = _stages(work, rounds[0], tests)
    return Trial(
        work=work,
        rounds=together(groups, free_cpus, free_memory),
        means=_means(work, tests, planned),
        bases=bases,
        key=set_key(work, records, externals),
        capacity=capacity,
        parts=effective_parts(work, records),
        judgement=judge(
            config,
            looks_of(work, records, {name: each.image_config for name, each in own.items()}, _tried(work, rounds)),
            datetime.date.today(),
        ),
        partial=partial,
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
    if not trial.rounds:
        raise VerdictError("there are no tests: nothing would be proved", hint="write at least one [[tests]] entry")
    provide_bases(work, trial.bases)
    ran = running.run(
        trial.rounds, trial.key, trial.parts, trial.judgement.results,
        means=trial.means, state=work.paths.state, capacity=trial.capacity, conduct=trial.conduct,
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
        checks={check.title: check.outcome for check in evidence.checks},
        deviations=[each.model_dump(mode="json") for each in trial.judgement.used],
        rules={f"{each.rule} {each.scope}": each.outcome for each in evidence.rules if each.outcome != "kept"},
    )  # fmt: skip


def _chosen(tests: Sequence[Test], only: Sequence[str]) -> list[Test]:
    """The checks that `only` names, by themselves or by their group; all if it names none."""
    names = selected(only, [*(test.name for test in tests), *(test.group for test in tests if test.group)], "test")
    return [test for test in tests if test.name in names or test.group in names]


def _rounds(work: Workspace, *, dry: bool) -> tuple[Running, ...]:
    """What is run for which platform; the engine is tried only where there are images for another than its own."""
    own = work.engine.facts.platform
    platforms = list(dict.fromkeys(each.platform for each in variants(work.config)))
    if not dry:
        return run_for(work.config, runnable(work.engine, work.owner, platforms), own)
    foreign = [each for each in platforms if not runs_on(each, own)]
    if foreign:
        console.note(f"whether the engine runs {' and '.join(foreign)} is tried before anything is started")
    return run_for(work.config, [*(each for each in platforms if each not in foreign), *foreign], own)


def _tried(work: Workspace, rounds: Sequence[Running]) -> frozenset[str]:
    """The builds that count as run; where no check needs a service, only the engine's own platform does."""
    needed = not all(test.of_image for test in work.config.tests)
    return tried(work.config, [each for each in rounds if needed or not each.label])


def _groups(
    work: Workspace,
    round: Running,
    records: Mapping[str, ImageRecord],
    facts: planning.LabFacts,
    tests: Sequence[Test],
    *,
    taken: int,
) -> list[PlannedGroup]:
    """A lab for each group; none for one whose checks are of images alone. `taken` is how many groups there are yet.

    Stages are built for the engine's own platform: they are checks of what they are built from.
    """
    groups = []
    images = {name: records[build.key].engine_id for name, build in round.builds.items()}
    made = [test for test in tests if not round.label or test.kind != "stage"]
    for number, (group, own) in enumerate(grouped(made).items(), start=taken + 1):
        needed = not all(test.of_image for test in own)
        name = f"{group}{round.label}"
        own_number = number if name else 0
        lab = planning.plan(work.config, facts, name, own_number) if needed else planning.empty(facts.run, own_number)
        groups.append(PlannedGroup(name, lab, own, round.platform, round.label, images))
    return groups


def _stages(
    work: Workspace, round: Running, tests: Sequence[Test]
) -> tuple[dict[str, stages.PlannedStage], tuple[ResolvedBase, ...]]:
    """The stages that are checks, planned by the check's name, and the bases that they are built from."""
    planned: dict[str, stages.PlannedStage] = {}
    every: list[ResolvedBase] = []
    for test in tests:
        if test.image is None or test.stage is None:
            continue
        build = round.builds[test.image]
        uses = {build.key: stage_uses(work, build, test.stage)}
        bases = locked_bases(work, uses)
        every += bases.values()
        image = work.config.images[test.image]
        shape = checked_stage(
            read(dockerfile_path(work.root, image)), test.stage, image.target, arguments_of(work, build)
        )
        planned[test.name] = stages.plan(
            work.config, build, test, shape, materials(work, uses, bases),
            scratch=work.folder / f".exported-{len(planned)}", epoch=work.git.time,
            masked=blotted_out(work.config, work.root),
        )  # fmt: skip
    if planned:
        require_buildx(work.engine)
    return planned, tuple(every)


def _means(work: Workspace, tests: Sequence[Test], planned: Mapping[str, stages.PlannedStage]) -> Means:
    if any(test.kind == "structure" for test in tests):
        structure_command()
    return Means(
        engine=work.engine,
        owner=work.owner,
        root=work.root,
        folder=work.folder,
        stages=planned,
        kept=kept_folders(tests),
    )
