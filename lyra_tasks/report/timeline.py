"""What happened to each service and when, beside its curves: starts, checks, peaks, ends, each with its log line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lyra_tasks import console
from lyra_tasks.records.documents import ReportDocuments
from lyra_tasks.report.curves import Curve, draw_curve

_LOG_DELAY_S = 0.02  # seconds until a line that a check caused has come out of the engine
_FIRST_LINE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class TimelineEvent:
    """An instant, in seconds since the lab began; `number` is its mark on the curves, `line` what was logged then."""

    number: int
    seconds: float
    description: str
    outcome: str
    log_line: str


@dataclass(frozen=True)
class ServiceTimeline:
    """A service during the run: peaks against limits, two curves, and what happened."""

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
    """The story of every service that ran, by name."""
    samples_by_service = documents.metrics["services"]
    events = documents.metrics["events"]
    times = [event["at"] for event in events] + [
        sample["at"] for samples in samples_by_service.values() for sample in samples
    ]
    if not times:
        return ()
    begin, end = _to_seconds(min(times)), _to_seconds(max(times))
    return tuple(
        _build_timeline(
            name,
            use,
            [(_to_seconds(sample["at"]) - begin, sample) for sample in samples_by_service.get(name, ())],
            [(_to_seconds(event["at"]) - begin, event) for event in events if event["service"] == name],
            _parse_log(documents.logs.get(name, ()), begin),
            end - begin,
        )
        for name, use in sorted(documents.tests["use"].items())
    )


def _build_timeline(
    name: str,
    use: Mapping[str, Any],
    samples: Sequence[tuple[float, Mapping[str, Any]]],
    events: Sequence[tuple[float, Mapping[str, Any]]],
    lines: Sequence[tuple[float, str]],
    seconds: float,
) -> ServiceTimeline:
    instants = sorted(
        [*(_describe_event(at, event, lines) for at, event in events), *_find_peaks(use, samples, lines)],
        key=lambda instant: instant.seconds,
    )
    marks = [(instant.seconds, number, instant.is_error) for number, instant in enumerate(instants, start=1)]
    memory = [(at, float(sample["memory"])) for at, sample in samples]
    cpu = [(at, float(sample["cpu"])) for at, sample in samples]
    return ServiceTimeline(
        name=name,
        memory=f"{console.format_bytes(use['memory_peak'])} of {console.format_bytes(use['memory_limit'])}",
        cpu=f"{use['cpu_peak']:.2f} of {use['cpu_limit']:g}",
        pids=f"{use['pids_peak']} of {use['pids_limit']}",
        memory_fraction=_fraction(use["memory_peak"], use["memory_limit"]),
        cpu_fraction=_fraction(use["cpu_peak"], use["cpu_limit"]),
        pids_fraction=_fraction(use["pids_peak"], use["pids_limit"]),
        oom_killed=bool(use["oom_killed"]),
        exit_code=use["exit_code"],
        samples=len(samples),
        curves=(
            draw_curve("CPU", cpu, float(use["cpu_limit"]), marks, seconds, lambda value: f"{value:.3g}"),
            draw_curve("Memory", memory, float(use["memory_limit"]), marks, seconds, _format_memory),
        ),
        events=tuple(
            TimelineEvent(number, round(instant.seconds, 3), instant.description, instant.outcome, instant.log_line)
            for number, instant in enumerate(instants, start=1)
        ),
    )


def _describe_event(at: float, event: Mapping[str, Any], lines: Sequence[tuple[float, str]]) -> _Instant:
    what, outcome = event["what"], event["outcome"]
    if what == "check":
        line = _first_line(lines, at - event["seconds"], at + _LOG_DELAY_S)
        return _Instant(at, f"check: {event['name']}", outcome, outcome != "passed", line)
    if what == "started":
        return _Instant(at, "started", "", False, _first_line(lines, at, at + _FIRST_LINE_TIMEOUT_S))
    if what == "ready":
        return _Instant(at, f"ready after {event['seconds']:.1f} s", "", False, _last_line(lines, at))
    return _Instant(at, f"ended: {outcome}", "", True, _last_line(lines, at))


def _find_peaks(
    use: Mapping[str, Any], samples: Sequence[tuple[float, Mapping[str, Any]]], lines: Sequence[tuple[float, str]]
) -> list[_Instant]:
    peaks = []
    for key, what in (("cpu", "CPU"), ("memory", "memory")):
        peak = max(samples, key=lambda sample: sample[1][key], default=None)
        if peak is not None and peak[1][key]:
            at, values = peak
            value = console.format_bytes(values[key]) if key == "memory" else f"{values[key]:.2f}"
            bad = key == "memory" and bool(use["oom_killed"])
            peaks.append(_Instant(at, f"{what} peak, {value}", "", bad, _last_line(lines, at)))
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
    """A size with two or three digits: an axis has no room for more."""
    number, _, unit = console.format_bytes(round(value)).partition(" ")
    return f"{float(number):.{0 if len(number) > 4 else 1}f} {unit}".replace(".0 ", " ") if value else "0"


def _fraction(value: float, limit: float) -> float:
    return min(value / limit, 1.0) if limit else 0.0


def _to_seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
