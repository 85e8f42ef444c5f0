"""Timelines of services: starts, checks, peaks and exits, each with its log line, and usage curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lyra_tasks import console
from lyra_tasks.records.documents import ReportDocuments
from lyra_tasks.report.curves import Curve, draw_curve

_LOG_DELAY_S = 0.02  # until then, the engine has delivered the log line that a check caused
_FIRST_LINE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class TimelineEvent:
    """An event at `seconds` since the first start; `number` is its mark on the curves."""

    number: int
    seconds: float
    description: str
    outcome: str
    log_line: str


@dataclass(frozen=True)
class ServiceTimeline:
    """A service during a run: peak usage and limits, two curves, events."""

    name: str
    memory: str
    cpu: str
    pids: str
    memory_fraction: float
    cpu_fraction: float
    pids_fraction: float
    oom_killed: bool
    exit_code: int | None
    samples: int
    curves: tuple[Curve, ...]
    events: tuple[TimelineEvent, ...]


@dataclass(frozen=True)
class _Instant:
    seconds: float
    description: str
    outcome: str
    is_error: bool
    log_line: str


def build_timelines(documents: ReportDocuments) -> tuple[ServiceTimeline, ...]:
    """Return the timelines of all services that ran, by name."""
    samples_by_service = documents.metrics["services"]
    events = documents.metrics["events"]
    times = [event["at"] for event in events]
    times += [sample["at"] for samples in samples_by_service.values() for sample in samples]
    if not times:
        return ()
    begin, end = _to_seconds(min(times)), _to_seconds(max(times))
    return tuple(
        _build_timeline(
            name,
            usage,
            [(_to_seconds(sample["at"]) - begin, sample) for sample in samples_by_service.get(name, ())],
            [(_to_seconds(event["at"]) - begin, event) for event in events if event["service"] == name],
            _parse_log(documents.logs.get(name, ()), begin),
            end - begin,
        )
        for name, usage in sorted(documents.tests["usage"].items())
    )


def _build_timeline(
    name: str,
    usage: Mapping[str, Any],
    samples: Sequence[tuple[float, Mapping[str, Any]]],
    events: Sequence[tuple[float, Mapping[str, Any]]],
    lines: Sequence[tuple[float, str]],
    seconds: float,
) -> ServiceTimeline:
    instants = sorted(
        [*(_describe_event(at, event, lines) for at, event in events), *_find_peaks(usage, samples, lines)],
        key=lambda instant: instant.seconds,
    )
    marks = [(instant.seconds, number, instant.is_error) for number, instant in enumerate(instants, start=1)]
    memory = [(at, float(sample["memory"])) for at, sample in samples]
    cpu = [(at, float(sample["cpu"])) for at, sample in samples]
    return ServiceTimeline(
        name=name,
        memory=f"{console.format_bytes(usage['memory_peak'])} of {console.format_bytes(usage['memory_limit'])}",
        cpu=f"{usage['cpu_peak']:.2f} of {usage['cpu_limit']:g}",
        pids=f"{usage['pids_peak']} of {usage['pids_limit']}",
        memory_fraction=_fraction(usage["memory_peak"], usage["memory_limit"]),
        cpu_fraction=_fraction(usage["cpu_peak"], usage["cpu_limit"]),
        pids_fraction=_fraction(usage["pids_peak"], usage["pids_limit"]),
        oom_killed=bool(usage["oom_killed"]),
        exit_code=usage["exit_code"],
        samples=len(samples),
        curves=(
            draw_curve("CPU", cpu, float(usage["cpu_limit"]), marks, seconds, lambda value: f"{value:.3g}"),
            draw_curve("Memory", memory, float(usage["memory_limit"]), marks, seconds, _format_memory),
        ),
        events=tuple(
            TimelineEvent(number, round(instant.seconds, 3), instant.description, instant.outcome, instant.log_line)
            for number, instant in enumerate(instants, start=1)
        ),
    )


def _describe_event(at: float, event: Mapping[str, Any], lines: Sequence[tuple[float, str]]) -> _Instant:
    kind, outcome = event["kind"], event["outcome"]
    if kind == "check":
        line = _first_line(lines, at - event["seconds"], at + _LOG_DELAY_S)
        return _Instant(at, f"check: {event['name']}", outcome, outcome != "passed", line)
    if kind == "started":
        return _Instant(at, "started", "", False, _first_line(lines, at, at + _FIRST_LINE_TIMEOUT_S))
    if kind == "ready":
        return _Instant(at, f"ready after {event['seconds']:.1f} s", "", False, _last_line(lines, at))
    return _Instant(at, f"exited: {outcome}", "", True, _last_line(lines, at))


def _find_peaks(
    usage: Mapping[str, Any], samples: Sequence[tuple[float, Mapping[str, Any]]], lines: Sequence[tuple[float, str]]
) -> list[_Instant]:
    peaks = []
    for key, resource in (("cpu", "CPU"), ("memory", "memory")):
        peak = max(samples, key=lambda sample: sample[1][key], default=None)
        if peak is not None and peak[1][key]:
            at, values = peak
            value = console.format_bytes(values[key]) if key == "memory" else f"{values[key]:.2f}"
            is_error = key == "memory" and bool(usage["oom_killed"])
            peaks.append(_Instant(at, f"{resource} peak, {value}", "", is_error, _last_line(lines, at)))
    return peaks


def _parse_log(log: Sequence[str], begin: float) -> list[tuple[float, str]]:
    lines = []
    for line in log:
        at, _, rest = line.partition(" ")
        try:
            lines.append((_to_seconds(at) - begin, rest.partition(" ")[2]))
        except ValueError:
            continue
    return lines


def _first_line(lines: Sequence[tuple[float, str]], since: float, until: float) -> str:
    return next((text for at, text in lines if since - 0.001 <= at <= until), "")


def _last_line(lines: Sequence[tuple[float, str]], until: float) -> str:
    return next((text for at, text in reversed(lines) if at <= until + 0.001), "")


def _format_memory(value: float) -> str:
    """Format a size with two or three digits: an axis has no space for more."""
    number, _, unit = console.format_bytes(round(value)).partition(" ")
    return f"{float(number):.{0 if len(number) > 4 else 1}f} {unit}".replace(".0 ", " ") if value else "0"


def _fraction(value: float, limit: float) -> float:
    return min(value / limit, 1.0) if limit else 0.0


def _to_seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
