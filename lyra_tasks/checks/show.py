"""Show the plan and the results of a test run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from lyra_tasks import console
from lyra_tasks.checks.context import TestOutcome, TestRun
from lyra_tasks.checks.groups import PlannedGroup
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.files import display_path
from lyra_tasks.records.evidence import ServiceUsage, TestsDocument
from lyra_tasks.results.lifecycle import ServiceReservation, TestGroup, TestPreview


class TestResults(TestsDocument):
    """The results of `test`, and the directory of its run with the report, logs and metrics."""

    __test__ = False

    directory: str


def show_test_plan(test_run: TestRun) -> TestPreview:
    """Show what a test run would start and check; raise CheckFailedError if a rule violation would refuse it."""
    test_run.rule_report.raise_if_failed()
    batches = tuple(tuple(map(_preview_group, batch)) for batch in test_run.batches)
    checks = tuple(name for batch in batches for group in batch for name in group.checks)
    preview = TestPreview(batches, checks, test_run.set_key.digest)
    if console.print_result(preview):
        return preview
    for number, batch in enumerate(test_run.batches, start=1):
        if len(test_run.batches) > 1:
            console.print(f"batch {number}:")
        for group in batch:
            _print_group(group)
    return preview


def _preview_group(group: PlannedGroup) -> TestGroup:
    plan = group.lab
    return TestGroup(
        group=group.name,
        services={name: ServiceReservation(service.cpus, service.memory) for name, service in plan.services.items()},
        waves=tuple(tuple(wave) for wave in plan.waves),
        networks=tuple(sorted(plan.networks)),
        volumes=tuple(sorted(plan.volumes)),
        checks=tuple(test.name for test in group.tests),
    )


def _print_group(group: PlannedGroup) -> None:
    plan, name = group.lab, f"{group.name}: " if group.name else ""
    resources = f"{console.format_count(plan.cpus, 'CPU')} and {console.format_bytes(plan.memory)}"
    console.print(f"{name}would start {len(plan.services)} service(s) with {resources}:")
    for number, wave in enumerate(plan.waves, start=1):
        console.print(f"  {number}. {', '.join(wave)}")
    checks = [f"{test.name} (cached)" if group.is_cached_check(test) else test.name for test in group.tests]
    console.print(f"and run {len(group.tests)} check(s): {', '.join(checks)}")


def show_test_results(test_outcome: TestOutcome) -> TestResults:
    """Show the summary of a test run; raise CheckFailedError if a check failed."""
    evidence, test_run = test_outcome.evidence, test_outcome.test_run
    run_directory = test_run.work.run_directory
    failed = [check for check in evidence.checks if check.outcome != "passed"]
    document = {name: value for name, value in evidence if name in TestsDocument.model_fields}
    results = TestResults(**document, directory=str(run_directory))
    if not console.print_result(results):
        if evidence.usage:
            _print_usage(evidence.usage)
        _print_rules(test_outcome)
        summary = f"{len(evidence.checks) - len(failed)} of {len(evidence.checks)} checks passed"
        console.print(f"{summary} in {evidence.seconds:.1f} s")
        if cached := evidence.cached_runs:
            runs = ", ".join(sorted(set(cached.values())))
            console.print(f"{len(cached)} cached, from {runs}; `test --fresh` runs all of them")
        console.print(f"logs and metrics: {display_path(run_directory)}")
        console.print(f"everything on one page: {(run_directory / 'report.html').absolute().as_uri()}")
        if test_outcome.addresses:
            console.print("The services keep running until `clean`:")
            for name, address in test_outcome.addresses.items():
                console.print(f"  {name}: {address}")
        if test_run.is_partial:
            console.info("Not all checks were run; this result cannot be promoted")
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(evidence.checks)} check(s) failed: {', '.join(check.title for check in failed)}",
            hint=f"See the logs and metrics in {display_path(run_directory)}",
        )
    return results


def _print_usage(usage_by_service: Mapping[str, ServiceUsage]) -> None:
    console.print_table(
        ("service", "peak memory + files", "peak CPU", "peak processes"),
        [
            (name, f"{console.format_bytes(usage.memory_peak)} of {console.format_bytes(usage.memory_limit)}",
             f"{usage.cpu_peak:.2f} of {usage.cpu_limit:g}", f"{usage.pids_peak} of {usage.pids_limit}")
            for name, usage in usage_by_service.items()
        ],
    )  # fmt: skip


def _print_rules(test_outcome: TestOutcome) -> None:
    """Print the rule results: a line for each warning and deviation, then the counts."""
    rule_report, results = test_outcome.test_run.rule_report, test_outcome.evidence.rules
    for result in results:
        if result.outcome == "warning":
            console.warn(f"{result.scope}: {result.message} (rule {result.rule})")
    for deviation in rule_report.used_deviations:
        console.warn(f"Deviation from {deviation.rule} for {deviation.scope} until {deviation.expires}")
    for deviation in rule_report.unused_deviations:
        console.warn(f"The deviation from {deviation.rule} for {deviation.scope} is not needed; remove it")
    counts = Counter[str](result.outcome for result in results)
    parts = [f"{counts[outcome]} {outcome}" for outcome in ("deviation", "warning", "skipped") if counts[outcome]]
    console.print(", ".join([f"{console.format_count(counts['passed'], 'rule')} passed", *parts]))
