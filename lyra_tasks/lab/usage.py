"""What containers use: the peaks of a run that has ended, or one sample of those that run now."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.ownership import LABEL_RUN, LABEL_SERVICE
from lyra_tasks.engine.streams import read_sample
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.logs import last_run
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.evidence import Evidence, ServiceUse
from lyra_tasks.records.store import read_record


@dataclass(frozen=True)
class Usage:
    """What the services of a run used at most, or, if it is `live`, use now."""

    run: str
    live: bool
    services: Mapping[str, ServiceUse]


def usage(work: Workspace, run: str) -> Usage:
    """The use of `run`; without one, of the development lab, else of the last run; PreconditionError if nothing is."""
    lab = DevStore(work.paths.state).read()
    run = run or (lab.run if lab else "") or last_run(work.paths.runs)
    evidence = read_record(work.paths.runs / run / "tests.json", Evidence) if run else None
    if evidence is not None:
        return Usage(run, live=False, services=evidence.use)
    services = _live(work, run) if run else {}
    if not services:
        raise PreconditionError(
            f"there are no measurements of {run or 'any run'}",
            hint="`test` measures; `create` is measured while it runs",
        )
    return Usage(run, live=True, services=services)


def _live(work: Workspace, run: str) -> dict[str, ServiceUse]:
    with engine_faults("measuring containers"):
        found = work.engine.api.containers(filters={"label": [f"{LABEL_RUN}={run}", LABEL_SERVICE]})
    ids = {each["Labels"][LABEL_SERVICE]: each["Id"] for each in found}
    with ThreadPoolExecutor(max(len(ids), 1)) as pool:
        measured = pool.map(lambda identity: _measure(work, identity), ids.values())
        return {name: use for name, use in sorted(zip(ids, measured, strict=True)) if use is not None}


def _measure(work: Workspace, identity: str) -> ServiceUse | None:
    """One sample, which takes the engine a second or two: use of a processor is a difference."""
    with engine_faults("measuring a container"):
        sample = read_sample(work.engine.api.stats(identity, stream=False))
        host = work.engine.api.inspect_container(identity)["HostConfig"]
    if sample is None:
        return None
    return ServiceUse(
        memory_peak=sample.memory,
        memory_limit=sample.memory_limit,
        cpu_peak=sample.cpu,
        cpu_limit=host["NanoCpus"] / 1e9,
        pids_peak=sample.pids,
        pids_limit=sample.pids_limit,
        oom_killed=False,
        exit_code=None,
        samples=1,
    )
