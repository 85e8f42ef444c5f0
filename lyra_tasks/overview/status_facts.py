"""What `status` shows, found out: nothing is changed, and it takes as long however long the history is."""

from __future__ import annotations

import datetime
import fcntl
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.inputs import changed
from lyra_tasks.config.platforms import image_of
from lyra_tasks.config.ports import joined
from lyra_tasks.config.ports import read as read_port
from lyra_tasks.engine.connect import connect_running
from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.guard import lock_of
from lyra_tasks.engine.inputs import current_inputs
from lyra_tasks.engine.objects import inspect_image
from lyra_tasks.engine.ownership import LABEL_PROJECT, LABEL_RUN, LABEL_SERVICE
from lyra_tasks.errors import EngineUnavailableError, LyraError
from lyra_tasks.overview.status import (
    BundleRow,
    ImageRow,
    LabRow,
    LabService,
    RunRow,
    Status,
    Tested,
    deviation_rows,
    next_word,
)
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.evidence import Evidence, SetKey
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.records.journal import Entry
from lyra_tasks.rules.deviations import rejudge
from lyra_tasks.rules.freshness import ImageState, image_states, set_key

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine
    from lyra_tasks.engine.workspace import Workspace

_RUNS = 5
_BETWEEN_SAMPLES = 0.2


def gather(work: Workspace, bundles: Sequence[BundleRow]) -> Status:
    """The state of a checkout; `bundles` are its versions, newest first. No engine is started to look at it."""
    engine, said = _engine(work)
    try:
        return _gathered(work, bundles, engine, said)
    finally:
        if engine is not None:  # who watches asks again and again
            engine.client.close()
            engine.streams.close()


def _gathered(work: Workspace, bundles: Sequence[BundleRow], engine: Engine | None, said: str) -> Status:
    states = _states(work, engine)
    images = tuple(_image(each) for each in states)
    key, unknown = _key(work, engine, states)
    evidence = work.evidence.read(key) if key else None
    tested = _tested(work, evidence) if evidence else None
    digest = f"sha256:{key.digest}" if key else ""
    promoted = next((each.version for each in bundles if each.set_digest == digest), "")
    deviations = deviation_rows(
        [(each.rule, each.scope, each.owner, each.expires) for each in work.config.deviations], datetime.date.today()
    )
    labs, leftovers = _labs(work, engine) if engine else ((), ())
    word, why = next_word(images, tested, promoted, deviations, leftovers, dirty=work.git.dirty)
    return Status(
        project=work.config.project.name,
        version=work.version.semver,
        branch=work.git.branch,
        commit=work.git.short,
        dirty=work.git.dirty,
        engine=said,
        has_engine=engine is not None,
        images=images,
        tested=tested,
        unknown=unknown,
        promoted=promoted,
        newest=bundles[0].version if bundles else "",
        deviations=tuple(deviations),
        labs=labs,
        leftovers=leftovers,
        runs=_runs(work.journal.newest()),
        next=word,
        why=why,
    )


def _engine(work: Workspace) -> tuple[Engine | None, str]:
    try:
        engine = connect_running(work.config, work.paths)
    except EngineUnavailableError as error:
        return None, f"{error.message}; what follows is what the files tell"
    if engine is None:
        return None, "none runs; one is started when it is needed; what follows is what the files tell"
    kind = "private engine" if engine.facts.sandboxed else "Docker Engine"
    return engine, f"{kind} {engine.facts.version}, {engine.facts.store} image store"


def _states(work: Workspace, engine: Engine | None) -> tuple[ImageState, ...]:
    inputs = current_inputs(work)
    if engine is not None:
        return image_states(work.images, engine, inputs)
    states = []
    for name, current in inputs.items():
        record = work.images.read(image_of(name), current["platform"])
        different = changed(record.inputs, current) if record else ()
        problem = f"was built before its {' and '.join(different)} changed" if different else ""
        states.append(ImageState(name, record, problem if record else "has not been built"))
    return tuple(states)


def _image(state: ImageState) -> ImageRow:
    record = state.record
    if record is None:
        return ImageRow(state.name, "", "", False, "", 0, "", state.problem)
    return ImageRow(
        state.name, record.version, record.commit[:7], record.dirty, record.built_at, record.size,
        record.config_digest, state.problem,
    )  # fmt: skip


def _key(work: Workspace, engine: Engine | None, states: Sequence[ImageState]) -> tuple[SetKey | None, str]:
    """The set as it is, and what stands against knowing it."""
    records: dict[str, ImageRecord] = {each.name: each.record for each in states if each.record}
    if any(each.problem for each in states):
        return None, "not before all images are current"
    externals: dict[str, str] = {}
    for name, service in work.config.services.items():
        if service.external is None:
            continue
        found = inspect_image(engine, service.external) if engine else None
        if found is None:
            return None, f"the image of {name}, {service.external}, is only known to an engine that holds it"
        externals[name] = str(found["Id"])
    with suppress(OSError, LyraError):
        return set_key(work, records, externals), ""
    return None, "a configuration file of a service cannot be read"


def _tested(work: Workspace, evidence: Evidence) -> Tested:
    document = evidence.model_dump(mode="json")
    rules: dict[str, int] = {}
    broken = []
    for each in document.get("rules", ()):
        rules[each["outcome"]] = rules.get(each["outcome"], 0) + 1
        if each["outcome"] == "broken":
            broken.append(f"rule {each['rule']} for {each['scope']}")
    failed = [check.title for check in evidence.checks if check.outcome != "passed"]
    refused = rejudge(work.config, evidence.rules, datetime.date.today()).broken if evidence.passed else ()
    return Tested(
        evidence.passed, evidence.run, evidence.started_at, len(evidence.checks), (*failed, *broken), rules,
        "; ".join(f"{each.scope} (rule {each.rule})" for each in refused),
    )  # fmt: skip


def _labs(work: Workspace, engine: Engine) -> tuple[tuple[LabRow, ...], tuple[str, ...]]:
    """Labs that run, and the names of what belongs to none; by label alone, since nothing is removed here."""
    only = {"label": [f"{LABEL_PROJECT}={work.paths.project_id}", LABEL_RUN]}
    with engine_faults("looking for labs"):
        containers = engine.api.containers(all=True, filters=only)
        others = [
            *(each for each in engine.api.networks(filters=only)),
            *(engine.api.volumes(filters=only)["Volumes"] or []),
        ]
    dev = DevStore(work.paths.state).read()
    kinds: dict[str, str] = {}
    for each in containers:
        run = each["Labels"][LABEL_RUN]
        if dev is not None and run == dev.run:
            kinds[run] = "development"
        elif _at_work(work.paths.state, run):
            kinds[run] = "test"
        elif each["State"] == "running" and not lock_of(work.paths.state, run).exists():
            kinds.setdefault(run, "kept running")
    left = [each["Names"][0].lstrip("/") for each in containers if each["Labels"][LABEL_RUN] not in kinds]
    left += [each["Name"] for each in others if not _belongs(each, kinds, work.paths.state)]
    services = [each for each in containers if LABEL_SERVICE in each["Labels"] and each["Labels"][LABEL_RUN] in kinds]
    with ThreadPoolExecutor(max(len(services), 1)) as pool:
        shown = list(pool.map(lambda each: _service(work, engine, each), services))
    rows = tuple(
        LabRow(
            run,
            kind,
            tuple(row for each, row in zip(services, shown, strict=True) if each["Labels"][LABEL_RUN] == run),
        )
        for run, kind in sorted(kinds.items())
    )
    return rows, tuple(sorted(left))


def _belongs(thing: Mapping[str, Any], kinds: Mapping[str, str], state: Path) -> bool:
    run = (thing.get("Labels") or {}).get(LABEL_RUN, "")
    return run in kinds or _at_work(state, run)


def _at_work(state: Path, run: str) -> bool:
    """Whether the process of a run holds its lock."""
    try:
        handle = os.open(lock_of(state, run), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _service(work: Workspace, engine: Engine, container: Mapping[str, Any]) -> LabService:
    name = container["Labels"][LABEL_SERVICE]
    service = work.config.services.get(name)
    names = {port: key for key, port in service.ports.items()} if service else {}
    ports = {
        names.get(port, str(port)): joined(engine.reach_at, int(each["PublicPort"]))
        for each in container.get("Ports") or ()
        if each.get("PublicPort") and (port := read_port(f"{each['PrivatePort']}/{each['Type']}"))
    }
    memory, limit, cpu = _use(engine, container["Id"]) if container["State"] == "running" else (None, 0, None)
    return LabService(
        name, container["State"], ports, memory, limit, cpu, service.limits.cpus if service else 0.0
    )  # fmt: skip


def _use(engine: Engine, identity: str) -> tuple[int | None, int, float | None]:
    """Memory, its limit, and CPUs out of two looks: the engine's own second look takes it a second or two."""
    seen: list[tuple[float, Mapping[str, Any]]] = []
    with engine_faults("measuring a container"):
        for pause in (0.0, _BETWEEN_SAMPLES):
            time.sleep(pause)
            seen.append((time.monotonic(), engine.api.stats(identity, stream=False, one_shot=True)))
    (before, first), (after, last) = seen
    memory = last.get("memory_stats") or {}
    if "usage" not in memory:
        return None, 0, None
    spent = last["cpu_stats"]["cpu_usage"]["total_usage"] - first["cpu_stats"]["cpu_usage"]["total_usage"]
    return int(memory["usage"]), int(memory.get("limit", 0)), round(spent / 1e9 / (after - before), 3)


def _runs(entries: Sequence[Entry]) -> tuple[RunRow, ...]:
    """The last runs that did something, newest first; those that only looked are no news."""
    commands: dict[str, Entry] = {}
    words: dict[str, list[tuple[str, int, float]]] = {}
    did: set[str] = set()
    for entry in entries:
        if entry.event == "run":
            commands[entry.run] = entry
        elif entry.event == "word":
            word, code = str(entry.data["word"]), int(entry.data["exit_code"])
            words.setdefault(entry.run, []).append((word, code, float(entry.data["seconds"])))
            if code:
                did.add(entry.run)
        else:
            did.add(entry.run)
    newest = [run for run in reversed(commands) if run in did][:_RUNS]
    return tuple(
        RunRow(run, commands[run].at, " ".join(commands[run].data["command"]), tuple(words.get(run, ())))
        for run in newest
    )
