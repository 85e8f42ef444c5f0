"""Measure and show the resource usage of containers: peaks of a finished run, or a sample of running containers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lyra_tasks import console
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.client.monitoring import parse_stats_sample
from lyra_tasks.engine.objects.ownership import LABEL_RUN, LABEL_SERVICE
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import PreconditionError
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.evidence import Evidence, ServiceUsage
from lyra_tasks.records.record import read_record
from lyra_tasks.results.overview import RunUsage
from lyra_tasks.runs.logs import find_last_logged_run


def measure_usage(work: Workspace, run: str) -> RunUsage:
    """Return the usage of `run` (default: of the development lab, else of the last run with logs)."""
    lab = DevStore(work.paths.state).read()
    run = run or (lab.run if lab else "") or find_last_logged_run(work.paths.runs)
    evidence = read_record(work.paths.runs / run / "tests.json", Evidence) if run else None
    if evidence is not None:
        return RunUsage(run, live=False, services=evidence.usage)
    services = _measure_containers(work, run) if run else {}
    if not services:
        raise PreconditionError(
            f"No measurements of run {run}" if run else "No measurements of any run",
            hint="Run `test`, or `create` and `stats` while it runs",
        )
    return RunUsage(run, live=True, services=services)


def _measure_containers(work: Workspace, run: str) -> dict[str, ServiceUsage]:
    with translate_errors("measuring containers"):
        containers = work.engine.api.containers(filters={"label": [f"{LABEL_RUN}={run}", LABEL_SERVICE]})
    ids = {container["Labels"][LABEL_SERVICE]: container["Id"] for container in containers}
    with ThreadPoolExecutor(max(len(ids), 1)) as pool:
        samples = pool.map(lambda container_id: _measure_container(work, container_id), ids.values())
        return {name: usage for name, usage in sorted(zip(ids, samples, strict=True)) if usage is not None}


def _measure_container(work: Workspace, container_id: str) -> ServiceUsage | None:
    """Take one sample; it takes the engine a second or two, since CPU usage is a difference."""
    with translate_errors("measuring a container"):
        sample = parse_stats_sample(work.engine.api.stats(container_id, stream=False))
        host = work.engine.api.inspect_container(container_id)["HostConfig"]
    if sample is None:
        return None
    return ServiceUsage(
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


def show_usage(usage: RunUsage) -> RunUsage:
    """Show a table of the usage and the limits."""
    if console.print_result(usage):
        return usage
    console.print(f"run {usage.run}, {'current' if usage.live else 'peak'} usage:")
    rows = [
        (
            name,
            f"{console.format_bytes(use.memory_peak)} of {console.format_bytes(use.memory_limit)}",
            f"{use.cpu_peak:.2f} of {use.cpu_limit:g}",
            f"{use.pids_peak} of {use.pids_limit}",
        )
        for name, use in usage.services.items()
    ]
    console.print_table(("service", "memory + files", "CPUs", "processes"), rows)
    return usage
