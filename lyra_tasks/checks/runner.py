"""Plan and run tests: labs for the images that were built, checks, and the evidence."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lyra_tasks import console
from lyra_tasks.checks.cached_results import CachedResults, find_cached_results
from lyra_tasks.checks.commands import find_structure_command
from lyra_tasks.checks.context import TestOptions, TestOutcome, TestRun, assign_result_directories
from lyra_tasks.checks.group_runner import record_refused_run, run_groups
from lyra_tasks.checks.groups import (
    PlannedGroup,
    PlatformRun,
    batch_parallel,
    collect_tested_builds,
    group_tests,
    plan_platform_runs,
)
from lyra_tasks.checks.part_keys import compute_part_keys
from lyra_tasks.checks.rule_run import RefusedRunError, RuleRun
from lyra_tasks.checks.stages.plan import PlannedStage, plan_stage
from lyra_tasks.checks.suites.pytest_suite import require_pytest
from lyra_tasks.config.deployment import config_path
from lyra_tasks.config.models import Test
from lyra_tasks.config.platforms import is_native_platform, list_variants
from lyra_tasks.digests import sha256_digest
from lyra_tasks.dockerfile.input_hashes import ImageInputs, dockerfile_path
from lyra_tasks.dockerfile.parse import read_dockerfile
from lyra_tasks.dockerfile.stages import resolve_check_stage
from lyra_tasks.engine.bases.inputs import collect_from_arguments, find_stage_uses, hash_current_inputs
from lyra_tasks.engine.bases.materials import collect_materials, load_missing_bases, resolve_locked_bases
from lyra_tasks.engine.bases.resolve import ResolvedBase
from lyra_tasks.engine.buildx.bake import require_buildx
from lyra_tasks.engine.objects.holder import list_runnable_platforms
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError, LyraError, UsageError
from lyra_tasks.images.third_party.prepare import prepare_third_party_images
from lyra_tasks.lab.admission import compute_lab_capacity, list_reservations
from lyra_tasks.lab.facts import LabFacts, collect_lab_facts
from lyra_tasks.lab.plan import plan_empty_lab, plan_lab
from lyra_tasks.records.evidence import LOGS_DIRECTORY, Evidence, check_title
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.records.recorded_test import TESTED_EVENT
from lyra_tasks.rules.deviations import RuleReport, assess_checks
from lyra_tasks.rules.freshness import (
    build_set_key,
    compare_fetched_images,
    compare_images,
    hash_effective_parts,
    read_input_files,
    require_current_images,
)
from lyra_tasks.rules.inspection import check_rules
from lyra_tasks.rules.secrets import redacted_values
from lyra_tasks.suggest import select_known


def plan_test_run(work: Workspace, only: Sequence[str], options: TestOptions, *, is_dry_run: bool = False) -> TestRun:
    """Plan a test run.

    A dry run does not probe which platforms the engine can run: it assumes all of them.
    """
    config = work.config
    tests = _select_tests(config.tests, only)  # before the engine is contacted or started
    current_inputs = hash_current_inputs(work, work.snapshots)
    records = require_current_images(compare_images(work.images, work.engine, current_inputs))
    if not is_dry_run:
        prepare_third_party_images(work)
    records |= require_current_images(compare_fetched_images(work, work.engine), fetching_command="build")
    platform_runs = _plan_platform_runs(work, is_dry_run=is_dry_run)
    is_partial = bool(only)
    if options.keep_running and len(platform_runs) > 1:
        platform_runs, is_partial = platform_runs[:1], True
    inputs = read_input_files(work)
    part_hashes = hash_effective_parts(work, records, inputs)
    lab_facts = [
        collect_lab_facts(work, {name: records[build.key] for name, build in platform_run.builds.items()}, files=inputs)
        for platform_run in platform_runs
    ]
    service_facts = lab_facts[0].services
    groups: list[PlannedGroup] = []
    for platform_run, facts in zip(platform_runs, lab_facts, strict=True):
        groups += _plan_groups(work, platform_run, records, facts, tests, existing_count=len(groups))
    planned_stages, bases = _plan_stages(work, platform_runs[0], tests, current_inputs)
    set_key = build_set_key(work, records, part_hashes)
    part_keys = compute_part_keys(work, groups, planned_stages, set_key, part_hashes, inputs)
    if options.uses_cached_results:
        cached = find_cached_results(work, part_keys)
        groups = [_use_cached_results(group, cached) for group in groups]
    if options.failed_first and (latest := work.evidence.latest()) is not None:
        failed_groups = {check.group for check in latest.checks if check.outcome != "passed"}
        groups.sort(key=lambda group: group.name not in failed_groups)
    capacity = compute_lab_capacity(work)
    if options.keep_running and len(groups) > 1:
        raise UsageError(
            "Only one group of checks can be left running",
            hint=f"Choose one: --only {' or --only '.join(group.name for group in groups if group.name)}",
        )
    reservations = list_reservations(work.engine)
    free_cpus = capacity.cpus - sum(reservation.cpus for reservation in reservations)
    free_memory = capacity.memory - sum(reservation.memory for reservation in reservations)
    if any(test.kind == "structure" for test in tests):
        find_structure_command()
    if any(test.kind == "pytest" for test in tests):
        require_pytest()

    def check_all_rules() -> RuleReport:
        configs = {name: service.image_config for name, service in service_facts.items()}
        user_ids = {name: service.user_ids for name, service in service_facts.items()}
        checks = check_rules(work, records, configs, user_ids, _tested_builds(work, platform_runs))
        return assess_checks(config, checks, datetime.date.today())

    return TestRun(
        work=work,
        batches=batch_parallel(groups, free_cpus, free_memory),
        stages=planned_stages,
        result_directories=assign_result_directories(tests),
        bases=bases,
        set_key=set_key,
        capacity=capacity,
        part_hashes=part_hashes,
        part_keys=part_keys,
        inputs=inputs,
        rules=RuleRun(check_all_rules),
        is_partial=is_partial,
        options=options,
    )


def run_tests(test_run: TestRun) -> TestOutcome:
    """Run the tests and record the evidence for `promote`; the caller looks at checks that failed.

    Raises CheckFailedError if a rule is violated (then no service is started), or a service was not ready or exited.
    """
    work = test_run.work
    (work.run_directory / LOGS_DIRECTORY).mkdir(exist_ok=True)
    try:
        outcome = _run_planned_groups(test_run)
    except (RefusedRunError, LyraError):
        # an environment that cannot be created may be what the rules warn of: they have the better message
        if test_run.rule_report.failed:
            _record_result(test_run, record_refused_run(test_run))
            test_run.rule_report.raise_if_failed()
        raise
    _record_result(test_run, outcome.evidence)
    if outcome.error is not None:
        raise outcome.error
    return outcome


def _run_planned_groups(test_run: TestRun) -> TestOutcome:
    """Run the groups; first wait for the rules if there is no environment whose creation could take that time."""
    creates_services = any(group.lab.services for batch in test_run.batches for group in batch)
    if test_run.options.keep_running or not creates_services:
        test_run.rules.require_passed()
    if not test_run.batches:
        raise CheckFailedError("No checks configured", hint="Add at least one [[tests]] entry")
    if not all(group.is_cached for batch in test_run.batches for group in batch):
        load_missing_bases(test_run.work, test_run.bases)
    return run_groups(test_run)


def _record_result(test_run: TestRun, evidence: Evidence) -> None:
    work = test_run.work
    entry: dict[str, Any] = {
        "set": test_run.set_key.digest,
        "passed": evidence.passed,
        "partial": test_run.is_partial,
        "checks": {check.title: check.outcome for check in evidence.checks},
        "cached": evidence.cached_runs,
        "deviations": [deviation.model_dump(mode="json") for deviation in test_run.rule_report.used_deviations],
        "rules": {f"{rule.rule} {rule.scope}": rule.outcome for rule in evidence.rules if rule.outcome != "passed"},
        "configs": {
            config_path(name, key, file): sha256_digest(file.read(test_run.inputs.__getitem__))
            for name, service in work.config.services.items()
            for key, file in service.configs.items()
        },
    }
    if test_run.is_partial:
        work.journal.append(work.run, TESTED_EVENT, **entry)
    else:
        work.evidence.record(evidence, work.run_directory, test_run.inputs.values(), **entry)


def _select_tests(tests: Sequence[Test], only: Sequence[str]) -> list[Test]:
    """Return the checks whose name or group is in `only`, or all if it is empty."""
    names = select_known(only, [*(test.name for test in tests), *(test.group for test in tests if test.group)], "test")
    return [test for test in tests if test.name in names or test.group in names]


def _plan_platform_runs(work: Workspace, *, is_dry_run: bool) -> tuple[PlatformRun, ...]:
    """Plan which platforms to run; the engine is probed only if there are images for other platforms."""
    engine_platform = work.engine.facts.platform
    platforms = list(dict.fromkeys(variant.platform for variant in list_variants(work.config)))
    if not is_dry_run:
        runnable = list_runnable_platforms(work.engine, work.owner, platforms)
        return plan_platform_runs(work.config, runnable, engine_platform)
    foreign = [platform for platform in platforms if not is_native_platform(platform, engine_platform)]
    if foreign:
        console.info(f"A real run first probes whether the engine can run {' and '.join(foreign)}")
    return plan_platform_runs(work.config, sorted(platforms, key=foreign.__contains__), engine_platform)


def _tested_builds(work: Workspace, platform_runs: Sequence[PlatformRun]) -> frozenset[str]:
    """Return the builds that count as tested; without checks of services, only the engine's own platform does."""
    needs_services = not all(test.is_image_check for test in work.config.tests)
    return collect_tested_builds(
        work.config, [platform_run for platform_run in platform_runs if needs_services or not platform_run.label]
    )


def _plan_groups(
    work: Workspace,
    platform_run: PlatformRun,
    records: Mapping[str, ImageRecord],
    facts: LabFacts,
    tests: Sequence[Test],
    *,
    existing_count: int,
) -> list[PlannedGroup]:
    """Plan the groups of a platform, each with a lab, which is empty if the group only checks images.

    Stages are built for the engine's own platform only, since they check their sources. `existing_count` is the number
    of groups that have been planned already.
    """
    groups = []
    images = {name: records[build.key].image_id for name, build in platform_run.builds.items()}
    platform_tests = [test for test in tests if not platform_run.label or test.kind != "stage"]
    for number, (group, tests_in_group) in enumerate(group_tests(platform_tests).items(), start=existing_count + 1):
        needs_services = not all(test.is_image_check for test in tests_in_group)
        name = f"{group}{platform_run.label}"
        lab_number = number if name else 0
        lab = (
            plan_lab(work.config, facts, name, lab_number) if needs_services else plan_empty_lab(facts.run, lab_number)
        )
        groups.append(PlannedGroup(name, lab, tests_in_group, platform_run.platform, platform_run.label, images))
    return groups


def _use_cached_results(group: PlannedGroup, cached: CachedResults) -> PlannedGroup:
    """Return a group that uses results of earlier runs again; it needs no lab if no service has to run."""
    titles = {test.name: check_title(test.name, group.name) for test in group.tests}
    cached_checks = {name: cached.checks[title] for name, title in titles.items() if title in cached.checks}
    cached_group = cached.groups.get(group.name)
    lab = group.lab if cached_group is None else group.lab.without_services()
    return replace(group, lab=lab, cached_checks=cached_checks, cached_group=cached_group)


def _plan_stages(
    work: Workspace, platform_run: PlatformRun, tests: Sequence[Test], inputs: Mapping[str, ImageInputs]
) -> tuple[dict[str, PlannedStage], tuple[ResolvedBase, ...]]:
    """Plan the stages that are checks, by the name of the check, and return them with their base images."""
    planned_stages: dict[str, PlannedStage] = {}
    all_bases: list[ResolvedBase] = []
    for test in tests:
        if test.image is None or test.stage is None:
            continue
        build = platform_run.builds[test.image]
        uses = {build.key: find_stage_uses(work, build, test.stage)}
        bases = resolve_locked_bases(work, uses)
        all_bases += bases.values()
        image = work.config.images[test.image]
        stage = resolve_check_stage(
            read_dockerfile(dockerfile_path(work.root, image)),
            test.stage,
            image.target,
            collect_from_arguments(work, build),
        )
        planned_stages[test.name] = plan_stage(
            work.config, build, test, stage, collect_materials(work, uses, bases, inputs=inputs),
            scratch_directory=work.run_directory / f".exported-{len(planned_stages)}", epoch=work.git.commit_time,
            secret_values=redacted_values(work.config, work.root),
        )  # fmt: skip
    if planned_stages:
        require_buildx(work.engine)
    return planned_stages, tuple(all_bases)
