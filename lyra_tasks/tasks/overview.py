"""Tasks that show the state of a project: `status`, `history`, `explain`, `doctor`, `logs` and `stats`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from invoke.context import Context

from lyra_tasks import console
from lyra_tasks.tasks.session import read_only_workspace, workspace
from lyra_tasks.tasks.task import task

if TYPE_CHECKING:
    from lyra_tasks.results import Diagnosis, Explanation, JournalCheck, JournalEntry, RunSummary, RunUsage, Status

_REFRESH_INTERVAL_S = 2.0
_STATS_PAUSE_S = 0.5  # a measurement itself takes one to two seconds
_RUN_HELP = "The run; default: the development environment, else the last run"


@task("status", watch="Refresh every two seconds until Ctrl-C")
def status(c: Context, watch: bool = False, json: bool = False, quiet: bool = False) -> Status | None:
    """Show images, tests, bundles and the next command."""
    if watch:
        console.refresh(_show_current_status, _REFRESH_INTERVAL_S)
        return None
    return _show_current_status()


def _show_current_status() -> Status:
    from lyra_tasks.bundle.format.index import read_index
    from lyra_tasks.overview.status import BundleRow, show_status
    from lyra_tasks.overview.status_facts import collect_status

    work = read_only_workspace()
    index = read_index(work.bundles, work.config.project.name)
    return show_status(collect_status(work, [BundleRow(entry.version, entry.set_digest) for entry in index.versions]))


@task(
    "history",
    all="Show all runs, also those that only show something; default: the last 20",
    run="Show all entries of a run, by its id or the beginning of it",
    object="Show all entries about a Docker object, version or digest",
    check="Verify the hash chain of the journal. Exits with 5 if it was edited",
)
def history(
    c: Context,
    all: bool = False,
    run: str = "",
    object: str = "",
    check: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> tuple[RunSummary, ...] | tuple[JournalEntry, ...] | JournalCheck:
    """Show who ran what with which result, newest first."""
    from lyra_tasks.overview import history as past

    work = workspace()
    if check:
        from lyra_tasks.overview.journal_check import show_journal_check

        return show_journal_check(work.journal, work.bundles, work.paths.project_id)
    read_entries = work.journal.all_entries if all or run or object else work.journal.recent_entries
    earlier_entries = [entry for entry in read_entries() if entry.run != work.run]
    if run:
        return past.show_entries(past.entries_of_run(earlier_entries, run))
    if object:
        return past.show_entries(past.entries_about(earlier_entries, object))
    runs = past.summarize_runs(earlier_entries)
    return past.show_runs(
        past.select_runs(runs, show_all=all), len(runs), has_older=not all and bool(work.journal.archives)
    )


@task("explain")
def explain(c: Context, json: bool = False, quiet: bool = False) -> Explanation:
    """Explain what is stale, why, and what to run."""
    from lyra_tasks.overview.explain import collect_explain_facts, explain_checkout, show_explanation

    return show_explanation(explain_checkout(collect_explain_facts(workspace())))


@task("doctor")
def doctor(c: Context, json: bool = False, quiet: bool = False) -> tuple[Diagnosis, ...]:
    """Check this machine and the configuration; suggest fixes."""
    from lyra_tasks.overview.doctor import diagnose, require_no_errors, show_diagnoses
    from lyra_tasks.overview.doctor_facts import collect_doctor_facts

    diagnoses = show_diagnoses(diagnose(collect_doctor_facts()))
    require_no_errors(diagnoses)
    return diagnoses


@task(
    "logs",
    iterable=("service",),
    service="Show only this service (repeatable)",
    follow="Follow the output",
    since="Show only the output of the last DURATION, for example 10m",
    run=_RUN_HELP,
)
def logs(
    c: Context,
    service: str | Sequence[str] | None = None,
    follow: bool = False,
    since: str = "",
    run: str = "",
    quiet: bool = False,
) -> None:
    """Show container logs in time order, with secrets redacted."""
    from lyra_tasks.runs.logs import find_log_source, follow_logs, print_log_lines, read_logs

    work = workspace(allow_invalid=True)
    source = find_log_source(work, run, tuple(service or ()))
    lines = follow_logs(work, source, since) if follow else read_logs(work, source, since)
    print_log_lines(lines, source)


@task("stats", run=_RUN_HELP, follow="Measure again and again until Ctrl-C")
def stats(c: Context, run: str = "", follow: bool = False, json: bool = False, quiet: bool = False) -> RunUsage | None:
    """Show memory, CPUs and processes with their limits."""
    from lyra_tasks.runs.stats import measure_usage, show_usage

    work = workspace(allow_invalid=True)
    if follow:
        console.refresh(lambda: show_usage(measure_usage(work, run)), _STATS_PAUSE_S)
        return None
    return show_usage(measure_usage(work, run))
