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

from lyra_tasks.engine.guard import guarded
from lyra_tasks.engine.objects import PlacedFile
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.errors import VerdictError
from lyra_tasks.lab.admission import Capacity, Share, admitted
from lyra_tasks.lab.checks import Means
from lyra_tasks.lab.groups import PlannedGroup, labelled
from lyra_tasks.lab.halt import Halt
from lyra_tasks.lab.host_check import addresses
from lyra_tasks.lab.plan import LabPlan
from lyra_tasks.lab.results import merge_logs, use_of, with_containers, write_results
from lyra_tasks.lab.rounds import Conduct, make_checks
from lyra_tasks.lab.running import Lab
from lyra_tasks.records.evidence import LOGS, CheckResult, Evidence, RuleResult, SetKey

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine


@dataclass(frozen=True)
class Ran:
    """What came of a run; `fault` is why it ended early, if a service was not ready or died.

    `addresses` are those of a lab that was left running, as its checks were told them.
    """

    evidence: Evidence
    addresses: Mapping[str, str]
    fault: VerdictError | None


@dataclass
class _GroupRun:
    """A group while its checks are made, and what came of them."""

    group: PlannedGroup
    lab: Lab
    checks: list[CheckResult] = field(default_factory=list)
    fault: VerdictError | None = None


def run(
    rounds: Sequence[Sequence[PlannedGroup]],
    key: SetKey,
    parts: Mapping[str, str],
    rules: Sequence[RuleResult],
    *,
    means: Means,
    state: Path,
    capacity: Capacity,
    conduct: Conduct,
) -> Ran:
    """Start the labs of each round together, make the checks, take everything away, and return the verdict.

    A service that is not ready or dies ends its group as failed; every lab is removed in every case, Ctrl-C included.
    """
    engine, owner, folder = means.engine, means.owner, means.folder
    (folder / LOGS).mkdir(exist_ok=True)
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    halt = Halt()
    ended: list[_GroupRun] = []
    with nullcontext() if conduct.keep_running else guarded(engine, owner, state):
        try:
            for groups in rounds:
                if halt.enough.is_set():
                    break
                with _admitted(groups, engine, capacity) as made:
                    ended += _together(groups, means, conduct, halt, made)
        finally:
            if not conduct.keep_running:
                _remove_files(folder)
    checks = [check for each in ended for check in each.checks]
    services = {labelled(each.group.name, name): run for each in ended for name, run in each.lab.services.items()}
    evidence = Evidence(
        set=key,
        parts=dict(parts),
        passed=bool(checks) and all(each.outcome == "passed" for each in checks),
        run=owner.run,
        started_at=started_at,
        seconds=round(time.monotonic() - began, 3),
        engine=_described(engine),
        checks=checks,
        rules=with_containers(rules, [look for each in ended for look in each.lab.looks]),
        use={name: use_of(service) for name, service in services.items()},
    )
    events = [
        each.model_copy(update={"service": labelled(run.group.name, each.service) if each.service else ""})
        for run in ended
        for each in run.lab.events
    ]
    write_results(folder, evidence, services, events)
    fault = next((each.fault for each in ended if each.fault is not None), None)
    kept = ended[0].lab.services if conduct.keep_running and not fault else {}
    return Ran(evidence, addresses(kept), fault)


def _admitted(
    groups: Sequence[PlannedGroup], engine: Engine, capacity: Capacity
) -> AbstractContextManager[Callable[[str], None]]:
    asked = tuple(
        Share(f"this run: {labelled(group.name, each.name)}", each.cpus, each.memory)
        for group in groups
        for each in group.lab.services.values()
    )
    if not asked:
        return nullcontext(lambda _: None)
    return admitted(engine, asked, capacity, parties=[each.name for each in groups])


def _together(
    groups: Sequence[PlannedGroup], means: Means, conduct: Conduct, halt: Halt, made: Callable[[str], None]
) -> list[_GroupRun]:
    """Run groups at the same time, each in a thread of its own, and wait for all of them; `made` is told their names.

    This thread alone is reached by Ctrl-C; then, or when one of them ends by a fault, the others end too.
    """
    with ThreadPoolExecutor(len(groups)) as pool:
        running = [pool.submit(_run_group, group, means, conduct, halt, made) for group in groups]
        try:
            return [each.result() for each in running]
        except BaseException:
            with _undisturbed():
                halt.ask()
                wait(running)
            raise


def _run_group(
    group: PlannedGroup, means: Means, conduct: Conduct, halt: Halt, made: Callable[[str], None]
) -> _GroupRun:
    lab = Lab(group.lab, means.engine, means.owner, means.folder, halt=halt)
    running = _GroupRun(group, lab)
    place_files(group.lab)
    try:
        with halt.ending(lab.kill):
            lab.build_up(partial(made, group.name))
            make_checks(lab, group, means, conduct, running.checks)
    except VerdictError as error:
        # what is killed because an end was asked for did not die of itself
        halt.pass_by()
        running.fault = error
        running.checks.append(_services_failed(error, group.name))
        if conduct.fail_fast:
            halt.enough.set()
    finally:
        made(group.name)  # also where it did not come so far
        if conduct.keep_running and not halt.asked:
            lab.leave()
        else:
            lab.take_down()
        _finish_logs(lab)
    return running


def refused(
    key: SetKey, parts: Mapping[str, str], rules: Sequence[RuleResult], *, engine: Engine, owner: Owner, folder: Path
) -> Evidence:
    """The verdict over a set that breaks rules, with its files in `folder`: nothing was started."""
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    evidence = Evidence(
        set=key,
        parts=dict(parts),
        passed=False,
        run=owner.run,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        engine=_described(engine),
        checks=[],
        rules=list(rules),
        use={},
    )
    write_results(folder, evidence, {}, [])
    return evidence


def _described(engine: Engine) -> dict[str, str]:
    return {"version": engine.facts.version, "store": engine.facts.store, "platform": engine.facts.platform}


def _finish_logs(lab: Lab) -> None:
    for service in lab.services.values():
        if service.log.fault is not None:
            raise service.log.fault
    merge_logs(lab.folder / lab.plan.logs, lab.plan.services)


def _services_failed(error: VerdictError, group: str) -> CheckResult:
    return CheckResult(
        name="the services run", kind="lab", service="", outcome="failed", message=error.message, group=group
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C while taking down would leave things behind; taking down is short and bounded."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def place_files(plan: LabPlan) -> None:
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
            _place(source, next(file for file in files if file.name == key))


def _place(path: Path, file: PlacedFile) -> None:
    path.unlink(missing_ok=True)  # one of an earlier `create` cannot be written to
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as placed:
        placed.write(file.content)
    mode = file.mode
    if file.uid:
        try:
            os.chown(path, file.uid, file.gid)
        except PermissionError:
            mode = 0o444  # root alone gives files away; the container's user must read it all the same
    path.chmod(mode)


def _remove_files(folder: Path) -> None:
    shutil.rmtree(folder / "mounts", ignore_errors=True)
