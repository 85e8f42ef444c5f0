"""`status`: where things stand."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import read_only_workspace, workspace
from lyra_tasks.tasks.task import task

_REFRESH_INTERVAL_S = 2.0


@task(watch="show it again every two seconds, until Ctrl-C")
def status(c: Any, watch: bool = False, json: bool = False) -> None:
    """What is built, tested, promoted or stale and why, what runs and what is left, and the next sensible word."""
    if watch:
        return console.refresh(_print_current_status, _REFRESH_INTERVAL_S)
    return _print_current_status()


def _print_current_status() -> None:
    from lyra_tasks.bundle.format.index import read_index
    from lyra_tasks.overview.status import BundleRow, print_status
    from lyra_tasks.overview.status_facts import collect_status

    work = read_only_workspace()
    index = read_index(work.bundles, work.config.project.name)
    print_status(collect_status(work, [BundleRow(version.version, version.set_digest) for version in index.versions]))


@task(
    run="everything that one run did; the beginning of its id is enough",
    object="everything about a container, network, volume, image, version or digest, by name or id",
    check="whether every line of the journal is as it was written; if not, the exit code is 5",
)
def history(c: Any, run: str = "", object: str = "", check: bool = False, json: bool = False) -> None:
    """What was done here, by whom and with what result, out of the journal."""
    from lyra_tasks.overview.history import (
        entries_about,
        entries_of_run,
        print_entries,
        print_journal_check,
        print_runs,
        summarize_runs,
    )

    work = workspace()
    journal = work.journal
    # that somebody looks is written down too, and is not what they look for
    earlier_entries = [] if check else [entry for entry in journal.entries() if entry.run != work.run]
    if check:
        return print_journal_check(journal)
    if run:
        return print_entries(entries_of_run(earlier_entries, run))
    if object:
        return print_entries(entries_about(earlier_entries, object))
    return print_runs(summarize_runs(earlier_entries))


@task()
def explain(c: Any, json: bool = False) -> None:
    """What stands between this checkout and a promotion, which change did it, and the words to run; changes nothing."""
    from lyra_tasks.overview.explain import collect_explain_facts, print_explanation
    from lyra_tasks.overview.explain import explain_checkout as explained

    print_explanation(explained(collect_explain_facts(workspace())))


@task("doctor")
def doctor(c: Any, json: bool = False) -> None:
    """Look at engine, buildx, disk, git, clock, sandbox, leftovers, config and locks; each fault with its fix."""
    from lyra_tasks.overview.doctor import diagnose, print_diagnoses, require_no_errors
    from lyra_tasks.overview.doctor_facts import collect_doctor_facts

    diagnoses = diagnose(collect_doctor_facts())
    print_diagnoses(diagnoses)
    require_no_errors(diagnoses)


_RUN_HELP = "of this run; default: the development lab, else the last run"


@task(
    iterable=("service",),
    service="only of this service (repeatable)",
    follow="go on with what comes, until it ends or Ctrl-C",
    since='only the last so much, for example "10m"',
    run=_RUN_HELP,
)
def logs(c: Any, service: Any = None, follow: bool = False, since: str = "", run: str = "") -> None:
    """What the containers printed, in the order of time, secrets blotted out."""
    from lyra_tasks.runs.logs import find_log_source, follow_logs, read_logs
    from lyra_tasks.runs.stats import print_log_lines

    work = workspace(allow_invalid=True)
    source = find_log_source(work, run, tuple(service or ()))
    lines = follow_logs(work, source, since) if follow else read_logs(work, source, since)
    print_log_lines(lines, source)


@task(run=_RUN_HELP)
def stats(c: Any, run: str = "", json: bool = False) -> None:
    """Memory, CPUs and processes against their limits: the peaks of a run, or of a running lab what is used now."""
    from lyra_tasks.runs.stats import measure_usage, print_usage

    print_usage(measure_usage(workspace(allow_invalid=True), run))
