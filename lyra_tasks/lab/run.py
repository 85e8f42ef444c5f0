"""Running a lab: admission, build-up, checks, verdict, and the end that always comes."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.config.models import Test
from lyra_tasks.engine.guard import guarded
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.errors import VerdictError
from lyra_tasks.lab.admission import Share, admit, held_by_labs
from lyra_tasks.lab.host_check import addresses
from lyra_tasks.lab.plan import LabPlan
from lyra_tasks.lab.results import merge_logs, use_of, with_containers, write_results
from lyra_tasks.lab.rounds import Conduct, make_checks
from lyra_tasks.lab.running import Lab
from lyra_tasks.records.evidence import CheckResult, Evidence, RuleResult, SetKey

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine


@dataclass(frozen=True)
class Capacity:
    """What labs may have of the host together: CPUs and bytes."""

    cpus: float
    memory: int


@dataclass(frozen=True)
class Ran:
    """What came of a run; `fault` is why it ended early, if a service was not ready or died.

    `addresses` are those of a lab that was left running, as its checks were told them.
    """

    evidence: Evidence
    addresses: Mapping[str, str]
    fault: VerdictError | None


def run(
    plan: LabPlan,
    tests: Sequence[Test],
    key: SetKey,
    parts: Mapping[str, str],
    rules: Sequence[RuleResult],
    *,
    engine: Engine,
    owner: Owner,
    root: Path,
    folder: Path,
    state: Path,
    capacity: Capacity,
    conduct: Conduct,
) -> Ran:
    """Start the lab, make the checks, take everything away, and return the verdict with its files in `folder`.

    A service that is not ready or dies ends the run as failed; the lab is removed in every case, Ctrl-C included.
    """
    admit(
        tuple(Share(f"this run: {each.name}", each.cpus, each.memory) for each in plan.services.values()),
        held_by_labs(engine),
        capacity.cpus,
        capacity.memory,
    )
    place_files(plan)
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    lab = Lab(plan, engine, owner, folder)
    checks: list[CheckResult] = []
    fault: VerdictError | None = None
    with nullcontext() if conduct.keep_running else guarded(engine, owner, state):
        try:
            lab.build_up()
            make_checks(lab, tests, root, conduct, checks)
        except VerdictError as error:
            fault = error
            checks.append(_services_failed(error))
        finally:
            with _undisturbed():
                if conduct.keep_running:
                    lab.leave()
                else:
                    try:
                        lab.take_down()
                    finally:
                        _remove_files(folder)
                _finish_logs(lab)
    evidence = Evidence(
        set=key,
        parts=dict(parts),
        passed=bool(checks) and all(each.outcome == "passed" for each in checks),
        run=owner.run,
        started_at=started_at,
        seconds=round(time.monotonic() - began, 3),
        engine=_described(engine),
        checks=checks,
        rules=with_containers(rules, lab.looks),
        use={name: use_of(service) for name, service in lab.services.items()},
    )
    write_results(folder, evidence, lab.services, lab.events)
    return Ran(evidence, addresses(lab.services) if conduct.keep_running and not fault else {}, fault)


def refused(
    key: SetKey, parts: Mapping[str, str], rules: Sequence[RuleResult], *, engine: Engine, owner: Owner, folder: Path
) -> Evidence:
    """The verdict over a set that breaks rules, with its files in `folder`: nothing was started."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
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
    merge_logs(lab.folder / "logs", lab.plan.services)


def _services_failed(error: VerdictError) -> CheckResult:
    return CheckResult(name="the services run", kind="lab", service="", outcome="failed", message=error.message)


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
    """For engines that cannot mount single files of a volume: configs and secrets as files to bind from."""
    for service in plan.services.values():
        for mount in service.payload["HostConfig"]["Mounts"]:
            if mount["Type"] != "bind":
                continue
            kind, key = Path(mount["Source"]).parts[-2:]
            files = service.config_files if kind == "configs" else service.secret_files
            source = Path(mount["Source"])
            source.parent.mkdir(parents=True, exist_ok=True)
            placed = next(file for file in files if file.name == key)
            source.write_bytes(placed.content)
            source.chmod(placed.mode)
            if placed.uid:
                os.chown(source, placed.uid, placed.gid)


def _remove_files(folder: Path) -> None:
    shutil.rmtree(folder / "mounts", ignore_errors=True)
