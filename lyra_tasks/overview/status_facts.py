"""Collect what `status` shows, without changing anything, in a time that does not grow with the history."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lyra_tasks.cleanup.storage import measure_storage
from lyra_tasks.config.platforms import image_from_key
from lyra_tasks.engine.client.connect import connect_running_engine
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.client.monitoring import parse_stats_sample
from lyra_tasks.engine.objects.inventory import LABEL_PROJECT
from lyra_tasks.engine.objects.known_engines import find_missing_checkouts, find_unasked_engines
from lyra_tasks.engine.objects.lifeline import run_lock_path
from lyra_tasks.engine.objects.ownership import LABEL_RUN, LABEL_SERVICE
from lyra_tasks.errors import EngineUnavailableError, LyraError
from lyra_tasks.lab.disk import DISK_EXCEEDED_EVENT, describe_excess
from lyra_tasks.locks import is_locked
from lyra_tasks.overview.history import group_by_run, summarize_run
from lyra_tasks.overview.status import BundleRow, suggest_next_step
from lyra_tasks.ports import join_host_port, parse_port
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.evidence import Evidence, SetKey
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.records.journal_entry import JournalEntry
from lyra_tasks.results.overview import DeviationRow, ImageRow, LabRow, LabService, RunRow, Status, TestStatus
from lyra_tasks.rules.deviations import DeviationStatus, deviation_statuses, reassess_results
from lyra_tasks.rules.freshness import ImageState, build_set_key, compare_set, list_failures

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.workspace import Workspace

_MAX_RUNS = 5
_REMOVED_PROBLEM = "is no longer in the engine"  # what `clean` removed is tested and promoted all the same
_SAMPLE_INTERVAL_S = 0.2


def collect_status(work: Workspace, bundles: Sequence[BundleRow]) -> Status:
    """Collect the state of a checkout, whose `bundles` are sorted newest first; no engine is started."""
    engine, engine_text = _find_engine(work)
    try:
        return _status_of(work, bundles, engine, engine_text)
    finally:
        if engine is not None:  # `--watch` connects again every time
            engine.client.close()
            engine.stream_api.close()


def _status_of(work: Workspace, bundles: Sequence[BundleRow], engine: Engine | None, engine_text: str) -> Status:
    states = compare_set(work, engine)
    images = tuple(_image_row(state, work.config.third_party_images) for state in states)
    key, unknown_reason = _current_set_key(work, states)
    evidence = work.evidence.read(key) if key else None
    test = _test_status(work, evidence) if evidence else None
    digest = f"sha256:{key.digest}" if key else ""
    promoted_version = next((bundle.version for bundle in bundles if bundle.set_digest == digest), "")
    results = evidence.rules if evidence else ()
    statuses = deviation_statuses(work.config, results, datetime.date.today())
    deviations = [_deviation_row(status) for status in statuses]
    labs, leftovers = _labs_and_leftovers(work, engine) if engine else ((), ())
    next_command, next_reason = suggest_next_step(
        images, test, promoted_version, deviations, leftovers, dirty=work.git.is_dirty
    )
    return Status(
        project=work.config.project.name,
        version=work.version.semver,
        branch=work.git.branch,
        commit=work.git.short_commit,
        dirty=work.git.is_dirty,
        engine=engine_text,
        has_engine=engine is not None,
        images=images,
        test=test,
        unknown_reason=unknown_reason,
        promoted_version=promoted_version,
        newest_version=bundles[0].version if bundles else "",
        deviations=tuple(sorted(deviations, key=lambda row: row.days_left)),
        labs=labs,
        leftovers=leftovers,
        runs=_recent_runs(work.journal.read_recent()),
        next_command=next_command,
        next_reason=next_reason,
        not_asked=(
            *(f"{unasked}; {unasked.fix}" for unasked in find_unasked_engines(work.paths, engine)),
            *find_missing_checkouts(work.paths),
        ),
        storage=measure_storage(work, engine, with_caches=False),
    )


def _find_engine(work: Workspace) -> tuple[Engine | None, str]:
    try:
        engine = connect_running_engine(work.config, work.paths)
    except EngineUnavailableError as error:
        return None, f"{error.message}; the following is based on files alone"
    if engine is None:
        return None, "none runs (started when needed); the following is based on files alone"
    kind = "private engine" if engine.facts.sandboxed else "Docker Engine"
    return engine, f"{kind} {engine.facts.version}, {engine.facts.store} image store"


def _deviation_row(status: DeviationStatus) -> DeviationRow:
    deviation = status.deviation
    return DeviationRow(
        rule=deviation.rule,
        scope=deviation.scope,
        owner=deviation.owner,
        expires=deviation.expires.isoformat(),
        state=status.state,
        days_left=status.days_left,
        expires_soon=status.expires_soon,
    )


def _image_row(state: ImageState, references: Mapping[str, str]) -> ImageRow:
    record, origin = state.record, references.get(image_from_key(state.name), "")
    if record is None:
        return ImageRow(state.name, "", "", False, "", 0, "", state.problem, origin)
    commit, digest = record.commit[:7], record.config_digest
    return ImageRow(
        state.name, record.version, commit, record.dirty, record.built_at, record.size, digest, state.problem, origin
    )


def _current_set_key(work: Workspace, states: Sequence[ImageState]) -> tuple[SetKey | None, str]:
    """Return the key of the current set of images, or None and the reason why it is unknown."""
    records: dict[str, ImageRecord] = {state.name: state.record for state in states if state.record}
    if any(state.problem and state.problem != _REMOVED_PROBLEM for state in states):
        return None, "not all images are current"
    with suppress(OSError, LyraError):
        return build_set_key(work, records), ""
    return None, "cannot read a configuration file of a service"


def _test_status(work: Workspace, evidence: Evidence) -> TestStatus:
    refusals = reassess_results(work.config, evidence.rules, datetime.date.today()).failed if evidence.passed else ()
    return TestStatus(
        passed=evidence.passed,
        run=evidence.run,
        started_at=evidence.started_at,
        check_count=len(evidence.checks),
        failed=list_failures(evidence),
        rule_outcomes=dict(Counter(result.outcome for result in evidence.rules)),
        promotion_refusal="; ".join(f"{refusal.scope} (rule {refusal.rule})" for refusal in refusals),
    )


def _labs_and_leftovers(work: Workspace, engine: Engine) -> tuple[tuple[LabRow, ...], tuple[str, ...]]:
    """Return running labs and the names of leftovers, by label alone, since nothing is removed here."""
    filters = {"label": [f"{LABEL_PROJECT}={work.paths.project_id}", LABEL_RUN]}
    with translate_errors("listing labs"):
        containers = engine.api.containers(all=True, filters=filters)
        volumes = engine.api.volumes(filters=filters)["Volumes"] or []
        other_objects = [*engine.api.networks(filters=filters), *volumes]
    dev = DevStore(work.paths.state).read()
    kind_by_run: dict[str, str] = {}
    for container in containers:
        run = container["Labels"][LABEL_RUN]
        if dev is not None and run == dev.run:
            kind_by_run[run] = "development"
        elif is_locked(run_lock_path(work.paths.state, run)):
            kind_by_run[run] = "test"
        elif container["State"] == "running" and not run_lock_path(work.paths.state, run).exists():
            kind_by_run.setdefault(run, "kept running")
    in_labs = [container for container in containers if container["Labels"][LABEL_RUN] in kind_by_run]
    leftovers = [container["Names"][0].lstrip("/") for container in containers if container not in in_labs]
    for engine_object in other_objects:
        run = engine_object["Labels"][LABEL_RUN]
        if run not in kind_by_run and not is_locked(run_lock_path(work.paths.state, run)):
            leftovers.append(engine_object["Name"])
    services = [container for container in in_labs if LABEL_SERVICE in container["Labels"]]
    ended = {
        str(entry.data["id"]): describe_excess(int(entry.data["written"]), int(entry.data["limit"]))
        for entry in work.journal.read_recent()
        if entry.event == DISK_EXCEEDED_EVENT
    }
    with ThreadPoolExecutor(max(len(services), 1)) as pool:
        rows = list(
            pool.map(lambda item: (item["Labels"][LABEL_RUN], _lab_service(work, engine, item, ended)), services)
        )
    labs = tuple(
        LabRow(run, kind, tuple(service for service_run, service in rows if service_run == run))
        for run, kind in sorted(kind_by_run.items())
    )
    return labs, tuple(sorted(leftovers))


def _lab_service(work: Workspace, engine: Engine, container: Mapping[str, Any], ended: Mapping[str, str]) -> LabService:
    name = container["Labels"][LABEL_SERVICE]
    service = work.config.services.get(name)
    port_names = {port: key for key, port in service.ports.items()} if service else {}
    ports = {
        port_names.get(port, str(port)): join_host_port(engine.host_address, int(published_port["PublicPort"]))
        for published_port in container.get("Ports") or ()
        if published_port.get("PublicPort")
        and (port := parse_port(f"{published_port['PrivatePort']}/{published_port['Type']}"))
    }
    is_running = container["State"] == "running"
    memory, limit, cpu = _resource_usage(engine, container["Id"]) if is_running else (None, 0, None)
    cpu_limit = service.limits.cpus if service else 0.0
    state = ": ".join(filter(None, (container["State"], ended.get(container["Id"]))))
    return LabService(name, state, ports, memory, limit, cpu, cpu_limit)


def _resource_usage(engine: Engine, container_id: str) -> tuple[int | None, int, float | None]:
    """Return memory, its limit and CPUs, from two samples; the engine's own second sample takes a second or two."""
    with translate_errors("measuring a container"):
        previous = engine.api.stats(container_id, stream=False, one_shot=True)
        time.sleep(_SAMPLE_INTERVAL_S)
        current = engine.api.stats(container_id, stream=False, one_shot=True)
    sample = parse_stats_sample({**current, "precpu_stats": previous.get("cpu_stats")})
    return (sample.memory, sample.memory_limit, sample.cpu) if sample is not None else (None, 0, None)


def _recent_runs(entries: Sequence[JournalEntry]) -> tuple[RunRow, ...]:
    """Return the last runs that changed something or failed, newest first."""
    rows = []
    for run_entries in reversed(group_by_run(entries).values()):
        run = summarize_run(run_entries)
        has_changed = any(entry.event not in {"run", "task"} for entry in run_entries)
        has_failed = any(task.exit_code for task in run.tasks)
        if run.command and (has_changed or has_failed):
            rows.append(RunRow(run.id, run.started_at, " ".join(run.command), run.tasks))
    return tuple(rows[:_MAX_RUNS])
