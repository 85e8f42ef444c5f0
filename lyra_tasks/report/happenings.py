"""What happened to each service and when, beside its curves: starts, checks, peaks, ends, each with its log line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lyra_tasks import console
from lyra_tasks.records.documents import Documents
from lyra_tasks.report.curves import Curve, curve

_SOON = 0.02  # seconds until a line that a check caused has come out of the engine
_FIRST_LINE = 5.0


@dataclass(frozen=True)
class Happening:
    """An instant, in seconds since the lab began; `number` is its mark on the curves, `line` what was logged then."""

    number: int
    at: float
    what: str
    outcome: str
    line: str


@dataclass(frozen=True)
class ServiceStory:
    """A service during the run: peaks against limits, two curves, and what happened."""

    name: str
    memory: str
    cpu: str
    pids: str
    memory_share: float
    cpu_share: float
    pids_share: float
    oom_killed: bool
    exit_code: int | None
    samples: int
    curves: tuple[Curve, ...]
    happenings: tuple[Happening, ...]


@dataclass(frozen=True)
class _Instant:
    at: float
    what: str
    outcome: str
    bad: bool
    line: str


def stories(documents: Documents) -> tuple[ServiceStory, ...]:
    """The story of every service that ran, by name."""
    measured = documents.metrics["services"]
    events = documents.metrics["events"]
    moments = [each["at"] for each in events] + [each["at"] for samples in measured.values() for each in samples]
    if not moments:
        return ()
    begin, end = _seconds(min(moments)), _seconds(max(moments))
    return tuple(
        _story(
            name,
            use,
            [(_seconds(each["at"]) - begin, each) for each in measured.get(name, ())],
            [(_seconds(each["at"]) - begin, each) for each in events if each["service"] == name],
            _lines(documents.logs.get(name, ()), begin),
            end - begin,
        )
        for name, use in sorted(documents.tests["use"].items())
    )


def _story(
    name: str,
    use: Mapping[str, Any],
    samples: Sequence[tuple[float, Mapping[str, Any]]],
    events: Sequence[tuple[float, Mapping[str, Any]]],
    lines: Sequence[tuple[float, str]],
    seconds: float,
) -> ServiceStory:
    instants = sorted(
        [*(_event(at, each, lines) for at, each in events), *_peaks(use, samples, lines)], key=lambda each: each.at
    )
    marks = [(each.at, number, each.bad) for number, each in enumerate(instants, start=1)]
    memory = [(at, float(each["memory"])) for at, each in samples]
    cpu = [(at, float(each["cpu"])) for at, each in samples]
    return ServiceStory(
        name=name,
        memory=f"{console.size(use['memory_peak'])} of {console.size(use['memory_limit'])}",
        cpu=f"{use['cpu_peak']:.2f} of {use['cpu_limit']:g}",
        pids=f"{use['pids_peak']} of {use['pids_limit']}",
        memory_share=_share(use["memory_peak"], use["memory_limit"]),
        cpu_share=_share(use["cpu_peak"], use["cpu_limit"]),
        pids_share=_share(use["pids_peak"], use["pids_limit"]),
        oom_killed=bool(use["oom_killed"]),
        exit_code=use["exit_code"],
        samples=len(samples),
        curves=(
            curve("CPU", cpu, float(use["cpu_limit"]), marks, seconds, lambda value: f"{value:.3g}"),
            curve("Memory", memory, float(use["memory_limit"]), marks, seconds, _memory),
        ),
        happenings=tuple(
            Happening(number, round(each.at, 3), each.what, each.outcome, each.line)
            for number, each in enumerate(instants, start=1)
        ),
    )


def _event(at: float, event: Mapping[str, Any], lines: Sequence[tuple[float, str]]) -> _Instant:
    what, outcome = event["what"], event["outcome"]
    if what == "check":
        line = _first(lines, at - event["seconds"], at + _SOON)
        return _Instant(at, f"check: {event['name']}", outcome, outcome != "passed", line)
    if what == "started":
        return _Instant(at, "started", "", False, _first(lines, at, at + _FIRST_LINE))
    if what == "ready":
        return _Instant(at, f"ready after {event['seconds']:.1f} s", "", False, _last(lines, at))
    return _Instant(at, f"ended: {outcome}", "", True, _last(lines, at))


def _peaks(
    use: Mapping[str, Any], samples: Sequence[tuple[float, Mapping[str, Any]]], lines: Sequence[tuple[float, str]]
) -> list[_Instant]:
    found = []
    for key, what in (("cpu", "CPU"), ("memory", "memory")):
        peak = max(samples, key=lambda each: each[1][key], default=None)
        if peak is not None and peak[1][key]:
            at, each = peak
            value = console.size(each[key]) if key == "memory" else f"{each[key]:.2f}"
            bad = key == "memory" and bool(use["oom_killed"])
            found.append(_Instant(at, f"{what} peak, {value}", "", bad, _last(lines, at)))
    return found


def _lines(log: Sequence[str], begin: float) -> list[tuple[float, str]]:
    found = []
    for each in log:
        at, _, rest = each.partition(" ")
        try:
            found.append((_seconds(at) - begin, rest.partition(" ")[2]))
        except ValueError:
            continue
    return found


def _first(lines: Sequence[tuple[float, str]], since: float, until: float) -> str:
    return next((text for at, text in lines if since - 0.001 <= at <= until), "")


def _last(lines: Sequence[tuple[float, str]], until: float) -> str:
    return next((text for at, text in reversed(lines) if at <= until + 0.001), "")


def _memory(value: float) -> str:
    """A size with two or three digits: an axis has no room for more."""
    number, _, unit = console.size(round(value)).partition(" ")
    return f"{float(number):.{0 if len(number) > 4 else 1}f} {unit}".replace(".0 ", " ") if value else "0"


def _share(value: float, limit: float) -> float:
    return min(value / limit, 1.0) if limit else 0.0


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
