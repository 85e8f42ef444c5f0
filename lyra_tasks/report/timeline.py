"""Timelines of services: starts, checks, peaks and exits, each with its log line, and usage curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from lyra_tasks import console
from lyra_tasks.records.documents import ReportDocuments
from lyra_tasks.report.curves import Curve, draw_curve

_LOG_DELAY_S = 0.02  # until then, the engine has delivered the log line that a check caused
_FIRST_LINE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class TimelineEvent:
    """An event at `seconds` since the first start."""

    seconds: float
    description: str
    outcome: str
    is_error: bool
    log_line: str


class Meter(NamedTuple):
    """A peak usage and its limit."""

    text: str
    fraction: float


@dataclass(frozen=True)
class ServiceTimeline:
    """A service during a run: peak usage, two curves, events."""

    name: str
    memory: Meter
    cpu: Meter
    pids: Meter
    oom_killed: bool
    curves: tuple[Curve, ...]
    events: tuple[TimelineEvent, ...]


def build_timelines(documents: ReportDocuments) -> tuple[ServiceTimeline, ...]:
    """Return the timelines of all services that ran, by name."""
    samples_by_service = documents.metrics["services"]
    events = documents.metrics["events"]
    times = [event["at"] for event in events]
    times += [sample["at"] for samples in samples_by_service.values() for sample in samples]
    if not times:
        return ()
    begin, end = _to_seconds(min(times)), _to_seconds(max(times))
    timelines = []
    for name, usage in sorted(documents.tests["usage"].items()):
        samples = [(_to_seconds(sample["at"]) - begin, sample) for sample in samples_by_service.get(name, ())]
        lines = _parse_log(documents.logs.get(name, ()), begin)
        timeline_events = _find_peaks(usage, samples, lines)
        for event in events:
            if event["service"] == name:
                timeline_events.append(_describe_event(_to_seconds(event["at"]) - begin, event, lines))
        timeline_events.sort(key=lambda event: event.seconds)
        marks = [(event.seconds, number, event.is_error) for number, event in enumerate(timeline_events, start=1)]
        memory = [(at, float(sample["memory"])) for at, sample in samples]
        memory_peak, memory_limit = usage["memory_peak"], usage["memory_limit"]
        memory_text = f"{console.format_bytes(memory_peak)} of {console.format_bytes(memory_limit)}"
        cpu = [(at, float(sample["cpu"])) for at, sample in samples]
        cpu_peak, cpu_limit = usage["cpu_peak"], usage["cpu_limit"]
        pids_peak, pids_limit = usage["pids_peak"], usage["pids_limit"]
        timelines.append(
            ServiceTimeline(
                name=name,
                memory=Meter(memory_text, _fraction(memory_peak, memory_limit)),
                cpu=Meter(f"{cpu_peak:.2f} of {cpu_limit:g}", _fraction(cpu_peak, cpu_limit)),
                pids=Meter(f"{pids_peak} of {pids_limit}", _fraction(pids_peak, pids_limit)),
                oom_killed=bool(usage["oom_killed"]),
                curves=(
                    draw_curve("CPU", cpu, float(cpu_limit), marks, end - begin, lambda value: f"{value:.3g}"),
                    draw_curve("Memory", memory, float(memory_limit), marks, end - begin, _format_memory),
                ),
                events=tuple(timeline_events),
            )
        )
    return tuple(timelines)


def _describe_event(at: float, event: Mapping[str, Any], lines: Sequence[tuple[float, str]]) -> TimelineEvent:
    kind, outcome = event["kind"], event["outcome"]
    if kind == "check":
        line = _first_line(lines, at - event["seconds"], at + _LOG_DELAY_S)
        return TimelineEvent(at, f"check: {event['name']}", outcome, outcome != "passed", line)
    if kind == "started":
        return TimelineEvent(at, "started", "", False, _first_line(lines, at, at + _FIRST_LINE_TIMEOUT_S))
    if kind == "ready":
        return TimelineEvent(at, f"ready after {event['seconds']:.1f} s", "", False, _last_line(lines, at))
    return TimelineEvent(at, f"exited: {outcome}", "", True, _last_line(lines, at))


def _find_peaks(
    usage: Mapping[str, Any], samples: Sequence[tuple[float, Mapping[str, Any]]], lines: Sequence[tuple[float, str]]
) -> list[TimelineEvent]:
    peaks = []
    for key, resource in (("cpu", "CPU"), ("memory", "memory")):
        peak = max(samples, key=lambda sample: sample[1][key], default=None)
        if peak is not None and peak[1][key]:
            at, values = peak
            value = console.format_bytes(values[key]) if key == "memory" else f"{values[key]:.2f}"
            is_error = key == "memory" and bool(usage["oom_killed"])
            peaks.append(TimelineEvent(at, f"{resource} peak, {value}", "", is_error, _last_line(lines, at)))
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
