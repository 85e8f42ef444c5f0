"""What containers printed: of past and running tests out of their files, of a development lab out of the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from lyra_tasks import console
from lyra_tasks.config.units import parse_duration
from lyra_tasks.engine import logs as engine_logs
from lyra_tasks.engine.guard import lock_of
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LyraError, PreconditionError, UsageError
from lyra_tasks.lab.payload import HOLDER_FOLDER
from lyra_tasks.lab.plan import blotted
from lyra_tasks.lab.results import merge_logs
from lyra_tasks.records.dev import DevLab, DevStore
from lyra_tasks.records.evidence import service_logs
from lyra_tasks.rules.declared import blotted_out, without

_POLL = 0.2


class Line(NamedTuple):
    """One line: time stamp (UTC, ISO), service, text."""

    at: str
    service: str
    text: str


@dataclass(frozen=True)
class Source:
    """Where logs are read: a run's folder, or the containers of the development lab."""

    run: str
    folder: Path
    services: tuple[str, ...]
    lab: DevLab | None


def find(work: Workspace, run: str, chosen: Sequence[str]) -> Source:
    """The logs of `run`; without one, of the development lab, else of the last run that has any."""
    lab = DevStore(work.paths.state).read()
    if lab is not None and run in {"", lab.run}:
        return Source(lab.run, work.paths.runs / lab.run / "logs", _chosen(lab.services, chosen), lab)
    run = run or last_run(work.paths.runs)
    folder = work.paths.runs / run / "logs"
    if not run or not folder.is_dir():
        raise PreconditionError(
            f"there are no logs of {run or 'any run'}",
            hint=f"runs with logs: {', '.join(_runs(work.paths.runs)[-5:]) or 'none; run `test` or `create` first'}",
        )
    return Source(run, folder, _chosen(_services(folder), chosen), None)


def last_run(runs: Path) -> str:
    """The last run that has logs, or nothing."""
    return max(_runs(runs), default="")


def read(work: Workspace, source: Source, since: str) -> list[Line]:
    """Every line, in the order of time; `since` is a duration such as `10m`, or nothing."""
    after = _stamp(since)
    if source.lab is not None:
        masked = _masked(work, source.lab)
        lines = [line for name in source.services for line in _from_engine(work, source.lab, name, masked)]
    else:
        lines = [line for name in source.services for line in _from_file(source.folder, name)]
    return sorted((line for line in lines if line.at >= after), key=lambda line: line.at)


def follow(work: Workspace, source: Source, since: str) -> Iterator[Line]:
    """Lines as they come, until everything that writes them has ended."""
    if source.lab is not None:
        yield from _following_engine(work, source.lab, source.services, _stamp(since))
    else:
        yield from _following_files(work, source, _stamp(since))


def save(work: Workspace, lab: DevLab) -> None:
    """Keep what the containers of a development lab printed in its run's folder, as a test's logs are kept."""
    folder = work.paths.runs / lab.run / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    masked = _masked(work, lab)
    for name in lab.services:
        kept = [
            (line, stream) for stream in ("out", "err") for line in _from_engine(work, lab, name, masked, (stream,))
        ]
        kept.sort(key=lambda each: each[0].at)
        text = "".join(f"{line.at} {stream} {line.text}\n" for line, stream in kept)
        (folder / f"{name}.log").write_text(text, encoding="utf-8")
    merge_logs(folder, lab.services)


def _from_engine(
    work: Workspace, lab: DevLab, name: str, masked: Sequence[str], streams: Sequence[str] = ("out", "err")
) -> list[Line]:
    printed = engine_logs.lines(work.engine, lab.services[name].id, streams=streams)
    return [_line(name, at, text, masked) for at, text in printed]


def _following_engine(work: Workspace, lab: DevLab, names: Sequence[str], after: str) -> Iterator[Line]:
    """A thread for each container; what ends one that is not its container's end is the fault of all."""
    masked = _masked(work, lab)
    queue: Queue[Line | LyraError | None] = Queue()

    def carry(name: str) -> None:
        try:
            for at, text in engine_logs.lines(work.engine, lab.services[name].id, follow=True):
                queue.put(_line(name, at, text, masked))
            queue.put(None)
        except LyraError as error:
            queue.put(error)

    for name in names:
        threading.Thread(target=carry, args=(name,), daemon=True).start()
    running = len(names)
    while running:
        said = queue.get()
        if said is None:
            running -= 1
        elif isinstance(said, LyraError):
            raise said
        elif said.at >= after:
            yield said


def _following_files(work: Workspace, source: Source, after: str) -> Iterator[Line]:
    """A test that runs in another process: its files grow, until the lock of its run is gone."""
    lock = lock_of(work.paths.state, source.run)
    read = dict.fromkeys(source.services, 0)
    while True:
        running = lock.exists()
        fresh = []
        for name in source.services:
            lines = _from_file(source.folder, name)
            fresh += lines[read[name] :]
            read[name] = len(lines)
        yield from sorted((line for line in fresh if line.at >= after), key=lambda line: line.at)
        if not running:
            return
        time.sleep(_POLL)


def _from_file(folder: Path, name: str) -> list[Line]:
    path = folder / f"{name}.log"
    if not path.exists():
        return []
    whole, newline, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    found = []
    for each in whole.split("\n") if newline else ():
        at, _, rest = each.partition(" ")
        found.append(Line(at, name, rest.partition(" ")[2]))
    return found


def _line(name: str, at: str, text: str, masked: Iterable[str]) -> Line:
    return Line(at, name, console.clean(without(text, masked)))


def _masked(work: Workspace, lab: DevLab) -> tuple[str, ...]:
    """The secrets of all services, asked of the engine, since nothing else may know them; and those of the project."""
    found = list(blotted_out(work.config, work.root))
    for name, service in lab.services.items():
        found += engine_logs.secret_values(work.engine, service.id, service.secret_variables)
        if lab.holder:
            found += engine_logs.secret_files(work.engine, lab.holder, f"{HOLDER_FOLDER}/lyra-{lab.run}-{name}-secrets")
    return blotted(found)


def _stamp(since: str) -> str:
    if not since:
        return ""
    from datetime import UTC, datetime, timedelta

    try:
        seconds = parse_duration(since)
    except ValueError as error:
        raise UsageError(f"--since takes a duration, not {since!r}", hint='for example "10m" or "90s"') from error
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _chosen(known: Iterable[str], chosen: Sequence[str]) -> tuple[str, ...]:
    names = tuple(sorted(known))
    for name in chosen:
        if not any(_means(each, name) for each in names):
            raise UsageError(f"there is no log of {name!r}", hint=f"there are logs of: {', '.join(names) or 'nothing'}")
    return tuple(each for each in names if not chosen or any(_means(each, name) for name in chosen))


def _means(known: str, wanted: str) -> bool:
    """Whether a log is the one of the service `wanted`, in whichever group."""
    return wanted in {known, known.rpartition("/")[2]}


def _services(folder: Path) -> list[str]:
    """Those of a test's groups are called GROUP/SERVICE, as their files are."""
    return [path.relative_to(folder).with_suffix("").as_posix() for path in service_logs(folder)]


def _runs(runs: Path) -> list[str]:
    return sorted(path.parent.name for path in runs.glob("*/logs") if _services(path))
