"""Run groups of checks: start their labs, run the checks in order, and always remove the labs."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.checks.commands import build_address_variables
from lyra_tasks.checks.context import TestOutcome, TestRun
from lyra_tasks.checks.groups import PlannedGroup, qualified_name
from lyra_tasks.checks.kinds import run_check, run_stage_checks
from lyra_tasks.checks.results import merge_container_results, print_check_result, summarize_usage, write_results
from lyra_tasks.config.models import Test
from lyra_tasks.engine.objects.lifeline import hold_lifeline
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.lab.admission import Capacity, Reservation, reserve_capacity
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.lab import Lab
from lyra_tasks.lab.mounted_files import remove_mounted_files, write_mounted_files
from lyra_tasks.lab.service import RunningService
from lyra_tasks.records.evidence import (
    CheckDetail,
    CheckResult,
    Evidence,
    ServiceEvent,
    create_check_detail,
    create_service_event,
)
from lyra_tasks.records.service_logs import merge_logs, read_last_lines
from lyra_tasks.rules.finding import RuleCheck

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_RETRY_INTERVAL_S = 0.5
_FAILURE_REPORT_DELAY_S = 0.3  # the engine reports an exit, and log lines, a moment after a check has failed
_MAX_LOG_LINES = 15


@dataclass
class _GroupRun:
    """A group whose checks are run, and their results."""

    group: PlannedGroup
    lab: Lab
    test_run: TestRun
    checks: list[CheckResult] = field(default_factory=list)
    stage_results: dict[str, CheckResult | None] = field(default_factory=dict)
    error: CheckFailedError | None = None

    def run(self, mark_created: Callable[[str], None]) -> None:
        """Start the lab, run the checks and remove the lab; call `mark_created` as soon as the containers exist."""
        cancellation = self.lab.cancellation
        write_mounted_files(self.group.lab)
        try:
            with cancellation.on_cancel(self.lab.kill):
                self.lab.create_and_start(partial(mark_created, self.group.name))
                self._run_checks()
                if not cancellation.stop_starting.is_set() and (error := self.lab.find_final_failure()):
                    raise error
        except CheckFailedError as error:
            # a service that was killed by a cancellation did not fail by itself
            cancellation.raise_if_cancelled()
            self._record_service_failure(error)
        finally:
            mark_created(self.group.name)  # also if creating the lab failed
            if self.test_run.options.keep_running and not cancellation.is_cancelled:
                self.lab.detach()
            else:
                self.lab.tear_down()
            self._finish_logs()

    def _record_service_failure(self, error: CheckFailedError) -> None:
        self.error = error
        name, group = "the services run", self.group.name
        self.checks.append(
            CheckResult(name=name, kind="lab", service="", outcome="failed", message=error.message, group=group)
        )
        if self.test_run.options.fail_fast:
            self.lab.cancellation.stop_starting.set()

    def _finish_logs(self) -> None:
        for service in self.lab.services.values():
            if service.log.error is not None:
                raise service.log.error
        merge_logs(self.lab.run_directory / self.lab.plan.logs_path, self.lab.plan.services)

    def _run_checks(self) -> None:
        """Run the checks in their order; CheckFailedError if a service exits in the meantime."""
        cancellation, tests = self.lab.cancellation, self.group.tests
        rounds = self.test_run.options.repeat
        for number, test in itertools.product(range(1, rounds + 1), tests):
            if cancellation.stop_starting.is_set():
                return
            passed = sum(check.outcome == "passed" for check in self.checks)
            position = f"{len(self.checks) + 1} of {len(tests) * rounds}"
            log_positions = {name: service.log.path.stat().st_size for name, service in self.lab.services.items()}
            with console.progress(f"{self.group.name or 'check'} {position}: {test.name}", f"{passed} passed"):
                result = self._run_with_retries(test)
            cancellation.raise_if_cancelled()
            if result is None:
                continue
            if result.outcome != "passed" and not test.is_image_check:
                time.sleep(_FAILURE_REPORT_DELAY_S)
                result = result.model_copy(update={"details": [*result.details, *self._read_logs(test, log_positions)]})
            name = f"{result.name} (round {number})" if rounds > 1 else result.name
            result = result.model_copy(update={"name": name, "group": self.group.name})
            self.lab.events.append(
                create_service_event("check", result.service, name=name, outcome=result.outcome, seconds=result.seconds)
            )
            print_check_result(result, self.lab.run_directory)
            self.checks.append(result)
            if error := self.lab.find_failure():
                raise error
            if self.test_run.options.fail_fast and result.outcome != "passed":
                cancellation.stop_starting.set()

    def _run_with_retries(self, test: Test) -> CheckResult | None:
        """Run a check, up to `retry` more times while it fails; the result says how many attempts it took.

        Return None for a stage that was cancelled since another one failed.
        """
        result = self._take_stage_result(test) if test.kind == "stage" else self._run_once(test)
        for number in range(1, test.retry + 1):
            if result is None or result.outcome == "passed" or self.lab.cancellation.stop_starting.is_set():
                break
            time.sleep(_RETRY_INTERVAL_S)
            result = self._run_once(test)
            if result.outcome == "passed":
                result = result.model_copy(update={"message": f"passed at attempt {number + 1}"})
        return result

    def _run_once(self, test: Test) -> CheckResult:
        if test.kind == "stage":
            return run_stage_checks(self.lab, self.group, [test], self.test_run)[test.name]
        return run_check(self.lab, self.group, test, self.test_run)

    def _take_stage_result(self, test: Test) -> CheckResult | None:
        """Return the result of a stage; the first one of a round builds all of them."""
        if test.name not in self.stage_results:
            tests = [test for test in self.group.tests if test.kind == "stage"]
            results = run_stage_checks(self.lab, self.group, tests, self.test_run)
            self.stage_results = {test.name: results.get(test.name) for test in tests}
        return self.stage_results.pop(test.name)

    def _read_logs(self, test: Test, positions: Mapping[str, int]) -> list[CheckDetail]:
        """Return what the service of a check, or each service, has logged since the check began."""
        details = []
        for name in [test.service] if test.service else self.lab.services:
            path = self.lab.services[name].log.path
            lines = read_last_lines(path, _MAX_LOG_LINES, since=positions[name])
            if lines:
                file = path.relative_to(self.lab.run_directory).as_posix()
                texts = (line.split(" ", 2)[-1] for line in lines)
                details.append(create_check_detail(f"{name} logged since the check began", texts, file))
        return details


def run_groups(test_run: TestRun) -> TestOutcome:
    """Run the groups of each batch in parallel, remove their labs in any case, and return the result.

    A service that is not ready or exits fails its group.
    """
    work, keep_running = test_run.work, test_run.options.keep_running
    engine, owner, run_directory = work.engine, work.owner, work.run_directory
    started, started_at = time.monotonic(), datetime.now(UTC)
    cancellation = Cancellation()
    group_runs: list[_GroupRun] = []
    with nullcontext() if keep_running else hold_lifeline(engine, owner, work.paths.state):
        try:
            for groups in test_run.batches:
                if cancellation.stop_starting.is_set():
                    break
                batch = [
                    _GroupRun(group, Lab(group.lab, engine, owner, run_directory, cancellation=cancellation), test_run)
                    for group in groups
                ]
                with _reserve_capacity(groups, engine, test_run.capacity) as mark_created:
                    _run_concurrently(batch, mark_created)
                group_runs += batch
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
    test_run: TestRun, group_runs: Sequence[_GroupRun], started_at: datetime, seconds: float
) -> Evidence:
    services: dict[str, RunningService] = {}
    events: list[ServiceEvent] = []
    checks: list[CheckResult] = []
    rule_checks: list[RuleCheck] = []
    for group_run in group_runs:
        lab, group = group_run.lab, group_run.group.name
        services |= {qualified_name(group, name): service for name, service in lab.services.items()}
        for event in lab.events:
            service_name = qualified_name(group, event.service) if event.service else ""
            events.append(event.model_copy(update={"service": service_name}))
        checks += group_run.checks
        rule_checks += lab.rule_checks
    work, facts = test_run.work, test_run.work.engine.facts
    evidence = Evidence(
        set=test_run.set_key,
        part_hashes=dict(test_run.part_hashes),
        passed=bool(checks) and all(check.outcome == "passed" for check in checks),
        run=work.run,
        started_at=started_at.isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        engine={"version": facts.version, "store": facts.store, "platform": facts.platform},
        checks=checks,
        rules=merge_container_results(test_run.rule_report.results, rule_checks),
        usage={name: summarize_usage(service) for name, service in services.items()},
    )
    write_results(work.run_directory, evidence, services, events)
    return evidence


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


def _run_concurrently(group_runs: Sequence[_GroupRun], mark_created: Callable[[str], None]) -> None:
    """Run groups in parallel, each in its own thread, and wait for all of them.

    Ctrl-C reaches only this thread. It, or an unexpected error in one group, cancels the other groups.
    """
    with ThreadPoolExecutor(len(group_runs)) as pool:
        futures = [pool.submit(group_run.run, mark_created) for group_run in group_runs]
        try:
            for future in futures:
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
