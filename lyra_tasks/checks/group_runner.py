"""Run groups of checks: start their labs, run the checks in order, and always remove the labs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.checks.commands import build_address_variables
from lyra_tasks.checks.groups import PlannedGroup, qualified_name
from lyra_tasks.checks.kinds import CheckContext, run_check
from lyra_tasks.checks.results import merge_container_results, print_check_result, summarize_usage, write_results
from lyra_tasks.config.models import Test
from lyra_tasks.engine.objects.lifeline import hold_lifeline
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.lab.admission import Capacity, Reservation, reserve_capacity
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.lab import Lab
from lyra_tasks.lab.run_files import merge_logs, remove_mounted_files, write_mounted_files
from lyra_tasks.records.evidence import LOGS_DIRECTORY, CheckResult, Evidence, RuleResult, SetKey, create_service_event

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_RETRY_INTERVAL_S = 0.5
_EXIT_REPORT_DELAY_S = 0.3


@dataclass(frozen=True)
class TestOptions:
    """How checks are run: whether the first failure stops them, how often, whether the services keep running."""

    fail_fast: bool = False
    repeat: int = 1
    keep_running: bool = False


@dataclass(frozen=True)
class RunResult:
    """The result of a run; `error` is why it ended early, if a service failed.

    `addresses` are the address variables of the services that keep running.
    """

    evidence: Evidence
    addresses: Mapping[str, str]
    error: CheckFailedError | None


@dataclass
class _GroupRun:
    """A group while its checks run, and their results."""

    group: PlannedGroup
    lab: Lab
    checks: list[CheckResult] = field(default_factory=list)
    error: CheckFailedError | None = None


def run_groups(
    batches: Sequence[Sequence[PlannedGroup]],
    set_key: SetKey,
    part_hashes: Mapping[str, str],
    rules: Sequence[RuleResult],
    *,
    context: CheckContext,
    state_directory: Path,
    capacity: Capacity,
    options: TestOptions,
) -> RunResult:
    """Run the groups of each batch in parallel, remove their labs in any case, and return the result.

    A service that is not ready or exits fails its group.
    """
    engine, owner, run_directory = context.engine, context.owner, context.run_directory
    (run_directory / LOGS_DIRECTORY).mkdir(exist_ok=True)
    started, started_at = time.monotonic(), datetime.now(UTC)
    cancellation = Cancellation()
    group_runs: list[_GroupRun] = []
    with nullcontext() if options.keep_running else hold_lifeline(engine, owner, state_directory):
        try:
            for groups in batches:
                if cancellation.stop_starting.is_set():
                    break
                with _reserve_capacity(groups, engine, capacity) as mark_created:
                    group_runs += _run_concurrently(groups, context, options, cancellation, mark_created)
        finally:
            if not options.keep_running:
                remove_mounted_files(run_directory)
    services = {
        qualified_name(group_run.group.name, name): service
        for group_run in group_runs
        for name, service in group_run.lab.services.items()
    }
    rule_checks = [rule_check for group_run in group_runs for rule_check in group_run.lab.rule_checks]
    evidence = Evidence(
        set=set_key,
        part_hashes=dict(part_hashes),
        passed=bool(group_runs) and all(check.outcome == "passed" for run in group_runs for check in run.checks),
        run=owner.run,
        started_at=started_at.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
        engine=_describe_engine(engine),
        checks=[check for group_run in group_runs for check in group_run.checks],
        rules=merge_container_results(rules, rule_checks),
        usage={name: summarize_usage(service) for name, service in services.items()},
    )
    events = [
        event.model_copy(
            update={"service": qualified_name(group_run.group.name, event.service) if event.service else ""}
        )
        for group_run in group_runs
        for event in group_run.lab.events
    ]
    write_results(run_directory, evidence, services, events)
    error = next((group_run.error for group_run in group_runs if group_run.error is not None), None)
    running_services = group_runs[0].lab.services if options.keep_running and not error else {}
    return RunResult(evidence, build_address_variables(running_services), error)


def record_refused_run(
    set_key: SetKey, part_hashes: Mapping[str, str], rules: Sequence[RuleResult], *, context: CheckContext
) -> Evidence:
    """Write the results of a run that is refused because of rule violations: nothing is started."""
    (context.run_directory / LOGS_DIRECTORY).mkdir(parents=True, exist_ok=True)
    evidence = Evidence(
        set=set_key,
        part_hashes=dict(part_hashes),
        passed=False,
        run=context.owner.run,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        engine=_describe_engine(context.engine),
        checks=[],
        rules=list(rules),
        usage={},
    )
    write_results(context.run_directory, evidence, {}, [])
    return evidence


def _describe_engine(engine: Engine) -> dict[str, str]:
    return {"version": engine.facts.version, "store": engine.facts.store, "platform": engine.facts.platform}


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


def _run_concurrently(
    groups: Sequence[PlannedGroup],
    context: CheckContext,
    options: TestOptions,
    cancellation: Cancellation,
    mark_created: Callable[[str], None],
) -> list[_GroupRun]:
    """Run groups in parallel, each in its own thread, and wait for all of them.

    Ctrl-C reaches only this thread. It, or an unexpected error in one group, cancels the other groups.
    """
    with ThreadPoolExecutor(len(groups)) as pool:
        futures = [pool.submit(_run_group, group, context, options, cancellation, mark_created) for group in groups]
        try:
            return [future.result() for future in futures]
        except BaseException:
            with _ignore_signals():
                cancellation.cancel()
                wait(futures)
            raise


def _run_group(
    group: PlannedGroup,
    context: CheckContext,
    options: TestOptions,
    cancellation: Cancellation,
    mark_created: Callable[[str], None],
) -> _GroupRun:
    lab = Lab(group.lab, context.engine, context.owner, context.run_directory, cancellation=cancellation)
    group_run = _GroupRun(group, lab)
    write_mounted_files(group.lab)
    try:
        with cancellation.on_cancel(lab.kill):
            lab.create_and_start(partial(mark_created, group.name))
            run_checks(lab, group, context, options, group_run.checks)
    except CheckFailedError as error:
        # a service that was killed by a cancellation did not fail by itself
        cancellation.raise_if_cancelled()
        group_run.error = error
        group_run.checks.append(
            CheckResult(
                name="the services run",
                kind="lab",
                service="",
                outcome="failed",
                message=error.message,
                group=group.name,
            )
        )
        if options.fail_fast:
            cancellation.stop_starting.set()
    finally:
        mark_created(group.name)  # also if creating the lab failed
        if options.keep_running and not cancellation.is_cancelled:
            lab.detach()
        else:
            lab.tear_down()
        _finish_logs(lab)
    return group_run


def _finish_logs(lab: Lab) -> None:
    for service in lab.services.values():
        if service.log.error is not None:
            raise service.log.error
    merge_logs(lab.run_directory / lab.plan.logs_path, lab.plan.services)


@contextmanager
def _ignore_signals() -> Iterator[None]:
    """Ignore Ctrl-C during the removal of labs, which is short and bounded, so that nothing is left behind."""
    previous_handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def run_checks(
    lab: Lab, group: PlannedGroup, context: CheckContext, options: TestOptions, results: list[CheckResult]
) -> None:
    """Run the checks of a group in their order and append their results to `results`.

    Raises:
        CheckFailedError: A service exited in the meantime.
    """
    _run_repeatedly(lab, group, context, options, results)
    if not lab.cancellation.stop_starting.is_set() and (error := lab.find_final_failure()):
        raise error


def _run_repeatedly(
    lab: Lab, group: PlannedGroup, context: CheckContext, options: TestOptions, results: list[CheckResult]
) -> None:
    for number in range(1, options.repeat + 1):
        for test in group.tests:
            if lab.cancellation.stop_starting.is_set():
                return
            passed = sum(previous.outcome == "passed" for previous in results)
            position = f"{len(results) + 1} of {len(group.tests) * options.repeat}"
            with console.progress(f"{group.name or 'check'} {position}: {test.name}", f"{passed} passed"):
                result = _run_with_retries(lab, group, test, context)
            lab.cancellation.raise_if_cancelled()
            name = f"{result.name} (round {number})" if options.repeat > 1 else result.name
            result = result.model_copy(update={"name": name, "group": group.name})
            lab.events.append(
                create_service_event(
                    "check", result.service, name=result.name, outcome=result.outcome, seconds=result.seconds
                )
            )
            print_check_result(result)
            results.append(result)
            if error := _find_service_failure(lab, result):
                raise error
            if options.fail_fast and result.outcome != "passed":
                lab.cancellation.stop_starting.set()


def _find_service_failure(lab: Lab, result: CheckResult) -> CheckFailedError | None:
    """Return the error of a service that exited; the engine reports an exit a moment after the check has failed."""
    error = lab.find_failure()
    if error is None and result.outcome != "passed":
        time.sleep(_EXIT_REPORT_DELAY_S)
        error = lab.find_failure()
    return error


def _run_with_retries(lab: Lab, group: PlannedGroup, test: Test, context: CheckContext) -> CheckResult:
    """Run a check, up to `retry` more times while it fails; the result says how many attempts it took."""
    result = run_check(lab, group, test, context)
    for number in range(1, test.retry + 1):
        if result.outcome == "passed" or lab.cancellation.stop_starting.is_set():
            break
        time.sleep(_RETRY_INTERVAL_S)
        result = run_check(lab, group, test, context)
        if result.outcome == "passed":
            result = result.model_copy(update={"message": f"passed at attempt {number + 1}"})
    return result
