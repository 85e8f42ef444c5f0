"""`logs` and `stats`: of the development lab, of tests that run, of runs that have ended."""

from __future__ import annotations

from typing import Any

from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import word

_RUN = "of this run; default: the development lab, else the last run"


@word(
    iterable=("service",),
    service="only of this service (repeatable)",
    follow="go on with what comes, until it ends or Ctrl-C",
    since='only the last so much, for example "10m"',
    run=_RUN,
)
def logs(c: Any, service: Any = None, follow: bool = False, since: str = "", run: str = "") -> None:
    """What the containers printed, in the order of time, secrets blotted out."""
    from lyra_tasks.lab import logs as reading
    from lyra_tasks.lab import show_runs

    work = workspace(in_part=True)
    source = reading.find(work, run, tuple(service or ()))
    lines = reading.follow(work, source, since) if follow else reading.read(work, source, since)
    show_runs.lines(lines, source)


@word(run=_RUN)
def stats(c: Any, run: str = "", json: bool = False) -> None:
    """Memory, CPUs and processes against their limits: the peaks of a run, or of a running lab what is used now."""
    from lyra_tasks.lab import show_runs
    from lyra_tasks.lab.usage import usage

    show_runs.usage(usage(workspace(in_part=True), run))
