"""Running the labs of a test: admission, build-up, checks, verdict, and the end that always comes."""

from __future__ import annotations

import os
import shutil
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
from lyra_tasks.checks.results import merge_container_results, merge_logs, summarize_usage, write_results
from lyra_tasks.config.models import Test
from lyra_tasks.engine.objects.containers import ContainerFile
from lyra_tasks.engine.objects.lifeline import hold_lifeline
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.lab.admission import Capacity, Reservation, reserve_capacity
from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.lab.lab import Lab
from lyra_tasks.lab.plan import LabPlan
from lyra_tasks.records.evidence import LOGS_DIRECTORY, CheckResult, Evidence, RuleResult, SetKey, create_service_event

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine


@dataclass(frozen=True)
class RunResult:
    """What came of a run; `fault` is why it ended early, if a service was not ready or died.

    `addresses` are those of a lab that was left running, as its checks were told them.
    """

    evidence: Evidence
    addresses: Mapping[str, str]
    error: CheckFailedError | None


@dataclass
class _GroupRun:
    """A group while its checks are made, and what came of them."""

    group: PlannedGroup
    lab: Lab
    checks: list[CheckResult] = field(default_factory=list)
    error: CheckFailedError | None = None


def run_groups(
    batches: Sequence[Sequence[PlannedGroup]],
    set_key: SetKey,
    parts: Mapping[str, str],
    rules: Sequence[RuleResult],
    *,
    context: CheckContext,
    state_directory: Path,
    capacity: Capacity,
    options: TestOptions,
) -> RunResult:
    """Start the labs of each round together, make the checks, take everything away, and return the verdict.

    A service that is not ready or dies ends its group as failed; every lab is removed in every case, Ctrl-C included.
    """
    engine, owner, run_directory = context.engine, context.owner, context.run_directory
    (run_directory / LOGS_DIRECTORY).mkdir(exist_ok=True)
    started, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
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
                _remove_mounted_files(run_directory)
    checks = [check for group_run in group_runs for check in group_run.checks]
    services = {
        qualified_name(group_run.group.name, name): service
        for group_run in group_runs
        for name, service in group_run.lab.services.items()
    }
    evidence = Evidence(
        set=set_key,
        part_hashes=dict(parts),
        passed=bool(checks) and all(check.outcome == "passed" for check in checks),
        run=owner.run,
        started_at=started_at,
        seconds=round(time.monotonic() - started, 3),
        engine=_describe_engine(engine),
        checks=checks,
        rules=merge_container_results(
            rules, [rule_check for group_run in group_runs for rule_check in group_run.lab.rule_checks]
        ),
        usage={name: summarize_usage(service) for name, service in services.items()},
    )
    events = [
        entry.model_copy(
            update={"service": qualified_name(group_run.group.name, entry.service) if entry.service else ""}
        )
        for group_run in group_runs
        for entry in group_run.lab.events
    ]
    write_results(run_directory, evidence, services, events)
    error = next((group_run.error for group_run in group_runs if group_run.error is not None), None)
    running_services = group_runs[0].lab.services if options.keep_running and not error else {}
    return RunResult(evidence, build_address_variables(running_services), error)


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
    """Run groups at the same time, each in a thread of its own, and wait for all of them; `made` is told their names.

    This thread alone is reached by Ctrl-C; then, or when one of them ends by a fault, the others end too.
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
        # what is killed because an end was asked for did not die of itself
        cancellation.raise_if_cancelled()
        group_run.error = error
        group_run.checks.append(_service_failure_result(error, group.name))
        if options.fail_fast:
            cancellation.stop_starting.set()
    finally:
        mark_created(group.name)  # also where it did not come so far
        if options.keep_running and not cancellation.is_cancelled:
            lab.detach()
        else:
            lab.tear_down()
        _finish_logs(lab)
    return group_run


def record_refused_run(
    set_key: SetKey,
    parts: Mapping[str, str],
    rules: Sequence[RuleResult],
    *,
    engine: Engine,
    owner: Owner,
    run_directory: Path,
) -> Evidence:
    """The verdict over a set that breaks rules, with its files in `folder`: nothing was started."""
    (run_directory / LOGS_DIRECTORY).mkdir(parents=True, exist_ok=True)
    evidence = Evidence(
        set=set_key,
        part_hashes=dict(parts),
        passed=False,
        run=owner.run,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        engine=_describe_engine(engine),
        checks=[],
        rules=list(rules),
        usage={},
    )
    write_results(run_directory, evidence, {}, [])
    return evidence


def _describe_engine(engine: Engine) -> dict[str, str]:
    return {"version": engine.facts.version, "store": engine.facts.store, "platform": engine.facts.platform}


def _finish_logs(lab: Lab) -> None:
    for service in lab.services.values():
        if service.log.error is not None:
            raise service.log.error
    merge_logs(lab.run_directory / lab.plan.logs_path, lab.plan.services)


def _service_failure_result(error: CheckFailedError, group: str) -> CheckResult:
    return CheckResult(
        name="the services run", kind="lab", service="", outcome="failed", message=error.message, group=group
    )


@contextmanager
def _ignore_signals() -> Iterator[None]:
    """Ctrl-C while taking down would leave things behind; taking down is short and bounded."""
    previous_handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def write_mounted_files(plan: LabPlan) -> None:
    """For engines that cannot mount single files of a volume: configs and secrets as files to bind from.

    Their folder is closed to every other user of this machine.
    """
    for service in plan.services.values():
        for mount in service.payload["HostConfig"]["Mounts"]:
            if mount["Type"] != "bind":
                continue
            kind, key = Path(mount["Source"]).parts[-2:]
            files = service.config_files if kind == "configs" else service.secret_files
            source = Path(mount["Source"])
            source.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_mounted_file(source, next(file for file in files if file.name == key))


def _write_mounted_file(path: Path, file: ContainerFile) -> None:
    path.unlink(missing_ok=True)  # one of an earlier `create` cannot be written to
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(file.content)
    mode = file.mode
    if file.uid:
        try:
            os.chown(path, file.uid, file.gid)
        except PermissionError:
            mode = 0o444  # root alone gives files away; the container's user must read it all the same
    path.chmod(mode)


def _remove_mounted_files(run_directory: Path) -> None:
    shutil.rmtree(run_directory / "mounts", ignore_errors=True)


_RETRY_INTERVAL_S = 0.5
_EXIT_REPORT_DELAY_S = 0.3


@dataclass(frozen=True)
class TestOptions:
    """How the checks are made: stop at the first that fails, how many rounds, whether the lab stays afterwards."""

    fail_fast: bool = False
    repeat: int = 1
    keep_running: bool = False


def run_checks(
    lab: Lab, group: PlannedGroup, context: CheckContext, options: TestOptions, results: list[CheckResult]
) -> None:
    """Make the checks of a group in their order and add what came of each to `results`.

    A service that dies meanwhile raises what it died of; the results so far are there.
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
            passed = sum(earlier.outcome == "passed" for earlier in results)
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
    """What a service died of; one that takes a check down with it is gone a moment before the engine says so."""
    error = lab.find_failure()
    if error is None and result.outcome != "passed":
        time.sleep(_EXIT_REPORT_DELAY_S)
        error = lab.find_failure()
    return error


def _run_with_retries(lab: Lab, group: PlannedGroup, test: Test, context: CheckContext) -> CheckResult:
    """A check that fails is made again up to `retry` times; that it needed it is said with its result."""
    result = run_check(lab, group, test, context)
    for number in range(1, test.retry + 1):
        if result.outcome == "passed" or lab.cancellation.stop_starting.is_set():
            break
        time.sleep(_RETRY_INTERVAL_S)
        result = run_check(lab, group, test, context)
        if result.outcome == "passed":
            result = result.model_copy(update={"message": f"passed at try {number + 1}"})
    return result


def print_check_result(result: CheckResult) -> None:
    """What came of a check, as soon as it was made."""
    mark = console.style("ok  ", "green") if result.outcome == "passed" else console.style("FAIL", "red", "bold")
    lines = [f"{mark} {result.title} ({result.seconds:.2f} s)"]
    # one word at a time, whatever other groups have to say
    console.print("\n".join([*lines, *(f"     {line}" for line in result.message.splitlines())]))
