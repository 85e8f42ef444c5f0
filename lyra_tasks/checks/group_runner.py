"""Run groups of checks in parallel, and record what they have found."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lyra_tasks.checks.cached_results import IMAGE_KINDS
from lyra_tasks.checks.commands import build_address_variables
from lyra_tasks.checks.context import TestOutcome, TestRun
from lyra_tasks.checks.group_run import GroupRun
from lyra_tasks.checks.groups import PlannedGroup, qualified_name
from lyra_tasks.checks.results import (
    add_container_results,
    list_measurements,
    merge_container_results,
    summarize_usage,
    write_results,
)
from lyra_tasks.engine.objects.lifeline import hold_lifeline
from lyra_tasks.lab.admission import Capacity, Reservation, reserve_capacity
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.lab import Lab
from lyra_tasks.lab.mounted_files import remove_mounted_files
from lyra_tasks.records.evidence import CheckResult, Evidence, Measurement, ServiceEvent, ServiceUsage

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine


def run_groups(test_run: TestRun) -> TestOutcome:
    """Run the groups of each batch in parallel, remove their labs in any case, and return the result.

    A service that is not ready or exits fails its group.
    Raises RefusedRunError, before any service is started, if the rules do not allow the run.
    """
    work, keep_running = test_run.work, test_run.options.keep_running
    engine, owner, run_directory = work.engine, work.owner, work.run_directory
    started, started_at = time.monotonic(), datetime.now(UTC)
    cancellation = Cancellation()
    group_runs: list[GroupRun] = []
    needs_engine = not all(group.is_cached for groups in test_run.batches for group in groups)
    with hold_lifeline(engine, owner, work.paths.state) if needs_engine and not keep_running else nullcontext():
        try:
            for groups in test_run.batches:
                if cancellation.stop_starting.is_set():
                    break
                batch = [
                    GroupRun(group, Lab(group.lab, engine, owner, run_directory, cancellation=cancellation), test_run)
                    for group in groups
                ]
                with _reserve_capacity(groups, engine, test_run.capacity) as mark_created:
                    _run_concurrently(batch, mark_created)
                group_runs += batch
            test_run.rules.require_passed()
        finally:
            if not keep_running:
                remove_mounted_files(run_directory)
    evidence = _record_results(test_run, group_runs, started_at, time.monotonic() - started)
    error = next((group_run.error for group_run in group_runs if group_run.error is not None), None)
    running_services = group_runs[0].lab.services if keep_running and not error else {}
    targets = [service.check_target() for service in running_services.values()]
    return TestOutcome(test_run, evidence, build_address_variables(targets), error)


def record_refused_run(test_run: TestRun) -> Evidence:
    """Write the results of a run that is refused because of rule violations: nothing is started."""
    return _record_results(test_run, [], datetime.now(UTC), seconds=0.0)


def _record_results(
    test_run: TestRun, group_runs: Sequence[GroupRun], started_at: datetime, seconds: float
) -> Evidence:
    checks = [check for group_run in group_runs for check in group_run.checks]
    usage: dict[str, ServiceUsage] = {}
    measurements: dict[str, list[Measurement]] = {}
    events: list[ServiceEvent] = []
    rules = list(test_run.rule_report.results)
    for group_run in group_runs:
        lab, group = group_run.lab, group_run.group.name
        for name, service in lab.services.items():
            usage[qualified_name(group, name)] = summarize_usage(service)
            measurements[qualified_name(group, name)] = list_measurements(service)
        for event in lab.events:
            service_name = qualified_name(group, event.service) if event.service else ""
            events.append(event.model_copy(update={"service": service_name}))
        if group_run.restored is not None:
            usage |= group_run.restored.usage
            measurements |= group_run.restored.measurements
            events += group_run.restored.events
            rules = add_container_results(rules, group_run.restored.rules)
    rule_checks = [rule_check for group_run in group_runs for rule_check in group_run.lab.rule_checks]
    work, facts = test_run.work, test_run.work.engine.facts
    evidence = Evidence(
        set=test_run.set_key,
        part_hashes=dict(test_run.part_hashes),
        check_keys=_select_passed_checks(test_run.part_keys.checks, checks),
        group_keys=_select_passed_groups(test_run.part_keys.groups, group_runs),
        passed=bool(checks) and all(check.outcome == "passed" for check in checks),
        run=work.run,
        started_at=started_at.isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        engine={"version": facts.version, "store": facts.store, "platform": facts.platform},
        checks=checks,
        rules=merge_container_results(rules, rule_checks),
        usage=usage,
    )
    write_results(work.run_directory, evidence, measurements, events)
    return evidence


def _select_passed_checks(keys: Mapping[str, str], checks: Sequence[CheckResult]) -> dict[str, str]:
    passed = {check.title for check in checks if check.outcome == "passed"}
    return {title: key for title, key in keys.items() if title in passed}


def _select_passed_groups(keys: Mapping[str, str], group_runs: Sequence[GroupRun]) -> dict[str, str]:
    """Return the keys of groups of which every check of a service was run and has passed."""
    passed = set()
    for group_run in group_runs:
        results = {check.name: check for check in group_run.checks if check.kind not in IMAGE_KINDS}
        names = {test.name for test in group_run.group.tests if not test.is_image_check}
        if names == results.keys() and all(check.outcome == "passed" for check in results.values()):
            passed.add(group_run.group.name)
    return {name: key for name, key in keys.items() if name in passed}


def _reserve_capacity(
    groups: Sequence[PlannedGroup], engine: Engine, capacity: Capacity
) -> AbstractContextManager[Callable[[str], None]]:
    requested = tuple(
        Reservation(f"this run: {qualified_name(group.name, service.name)}", service.cpus, service.memory)
        for group in groups
        for service in group.lab.services.values()
    )
    if not requested:
        return nullcontext(lambda _: None)
    return reserve_capacity(engine, requested, capacity, lab_names=[group.name for group in groups])


def _run_concurrently(group_runs: Sequence[GroupRun], mark_created: Callable[[str], None]) -> None:
    """Run groups in parallel, each in its own thread, and wait for all of them.

    Ctrl-C reaches only this thread. It, or an unexpected error in one group, cancels the other groups.
    """
    with ThreadPoolExecutor(len(group_runs)) as pool:
        futures = [pool.submit(group_run.run, mark_created) for group_run in group_runs]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            with _ignore_signals():
                group_runs[0].lab.cancellation.cancel()
                wait(futures)
            raise


@contextmanager
def _ignore_signals() -> Iterator[None]:
    """Ignore Ctrl-C during the removal of labs, which is short and bounded, so that nothing is left behind."""
    previous_handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
