"""Timelines of services: starts, checks, peaks and exits, each with its log line, and usage curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from lyra_tasks import console
from lyra_tasks.records.documents import ReportDocuments

WIDTH, HEIGHT = 360.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 8.0, 18.0, 20.0

_MAX_POINTS = 300
_MARK_WIDTH = 28.0
_HEADROOM = 1.05
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_LOG_DELAY_S = 0.02  # until then, the engine has delivered the log line that a check caused
_FIRST_LINE_TIMEOUT_S = 5.0
_TIME_PRECISION_S = 0.001


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A marked event on the drawing; overlapping events share one mark."""

    x: float
    label: str
    is_error: bool


@dataclass(frozen=True)
class Curve:
    """A drawing: the curve as a path, the area below it, and single points if there are few samples."""

    name: str
    summary: str
    line: str
    area: str
    points: tuple[tuple[float, float], ...]
    peak: tuple[float, float] | None
    limit_y: float
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class TimelineEvent:
    """An event at `seconds` since the first start."""

    seconds: float
    description: str
    outcome: str
    is_error: bool
    log_line: str = ""


class LineQuery(NamedTuple):
    """The last log line until a time or, with `since`, the first one in between; in seconds since the first start."""

    until: float
    since: float | None = None


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
    periods = _find_periods(events, samples_by_service)
    timelines = []
    for name, usage in sorted(documents.tests["usage"].items()):
        if _group_name(name) not in periods:
            continue
        begin, end = periods[_group_name(name)]
        samples = [(_to_seconds(sample["at"]) - begin, sample) for sample in samples_by_service.get(name, ())]
        described = _find_peaks(usage, samples)
        described += [
            _describe_event(_to_seconds(event["at"]) - begin, event) for event in events if event["service"] == name
        ]
        described.sort(key=lambda item: item[0].seconds)
        lines = find_lines(_parse_log(documents.logs.get(name, ()), begin), [query for _, query in described])
        timeline_events = [replace(event, log_line=line) for (event, _), line in zip(described, lines, strict=True)]
        marks = [(event.seconds, number, event.is_error) for number, event in enumerate(timeline_events, start=1)]
        cpu, memory = ([(at, float(sample[key])) for at, sample in samples] for key in ("cpu", "memory"))
        timelines.append(
            ServiceTimeline(
                name=name,
                memory=_create_meter(usage, "memory", console.format_bytes, console.format_bytes),
                cpu=_create_meter(usage, "cpu", "{:.2f}".format, "{:g}".format),
                pids=_create_meter(usage, "pids", str, str),
                oom_killed=bool(usage["oom_killed"]),
                curves=(
                    draw_curve("CPU", cpu, float(usage["cpu_limit"]), marks, end - begin, "{:.3g}".format),
                    draw_curve("Memory", memory, float(usage["memory_limit"]), marks, end - begin, _format_memory),
                ),
                events=tuple(timeline_events),
            )
        )
    return tuple(timelines)


def _find_periods(
    events: Iterable[Mapping[str, Any]], samples_by_service: Mapping[str, Iterable[Mapping[str, Any]]]
) -> dict[str, tuple[float, float]]:
    """Return the first and the last time of each group of checks: results of one may come from an earlier run."""
    times: dict[str, list[str]] = {}
    for event in events:
        if event["service"]:
            times.setdefault(_group_name(event["service"]), []).append(event["at"])
    for name, samples in samples_by_service.items():
        times.setdefault(_group_name(name), []).extend(sample["at"] for sample in samples)
    return {
        group: (_to_seconds(min(moments)), _to_seconds(max(moments))) for group, moments in times.items() if moments
    }


def _group_name(service: str) -> str:
    return service.rpartition("/")[0]


def _create_meter(
    usage: Mapping[str, Any], key: str, format_peak: Callable[[Any], str], format_limit: Callable[[Any], str]
) -> Meter:
    peak, limit = usage[f"{key}_peak"], usage[f"{key}_limit"]
    return Meter(f"{format_peak(peak)} of {format_limit(limit)}", min(peak / limit, 1.0) if limit else 0.0)


def _describe_event(at: float, event: Mapping[str, Any]) -> tuple[TimelineEvent, LineQuery]:
    kind, outcome = event["kind"], event["outcome"]
    if kind == "check":
        text = f"check: {event['name']}"
        return TimelineEvent(at, text, outcome, outcome != "passed"), LineQuery(
            at + _LOG_DELAY_S, at - event["seconds"]
        )
    if kind == "started":
        return TimelineEvent(at, "started", "", False), LineQuery(at + _FIRST_LINE_TIMEOUT_S, at)
    if kind == "ready":
        return TimelineEvent(at, f"ready after {event['seconds']:.1f} s", "", False), LineQuery(at)
    return TimelineEvent(at, f"exited: {outcome}", "", True), LineQuery(at)


def _find_peaks(
    usage: Mapping[str, Any], samples: Sequence[tuple[float, Mapping[str, Any]]]
) -> list[tuple[TimelineEvent, LineQuery]]:
    peaks = []
    for key, resource in (("cpu", "CPU"), ("memory", "memory")):
        peak = max(samples, key=lambda sample: sample[1][key], default=None)
        if peak is not None and peak[1][key]:
            at, values = peak
            value = console.format_bytes(values[key]) if key == "memory" else f"{values[key]:.2f}"
            is_error = key == "memory" and bool(usage["oom_killed"])
            peaks.append((TimelineEvent(at, f"{resource} peak, {value}", "", is_error), LineQuery(at)))
    return peaks


def _parse_log(log: Iterable[str], begin: float) -> Iterator[tuple[float, str]]:
    for line in log:
        at, _, rest = line.partition(" ")
        try:
            yield _to_seconds(at) - begin, rest.partition(" ")[2]
        except ValueError:
            continue


def find_lines(lines: Iterable[tuple[float, str]], queries: Sequence[LineQuery]) -> list[str]:
    """Return the line that each query finds, or ''; the lines, in the order of their times, are read only once."""
    found = [""] * len(queries)
    first = [(query.since - _TIME_PRECISION_S, index) for index, query in enumerate(queries) if query.since is not None]
    last = [(query.until + _TIME_PRECISION_S, index) for index, query in enumerate(queries) if query.since is None]
    first.sort(reverse=True)
    last.sort(reverse=True)
    previous = ""
    for at, text in lines:
        while last and last[-1][0] < at:
            found[last.pop()[1]] = previous
        while first and first[-1][0] <= at:
            index = first.pop()[1]
            found[index] = text if at <= queries[index].until else ""
        previous = text
        if not first and not last:
            break
    for _, index in last:
        found[index] = previous
    return found


def _format_memory(value: float) -> str:
    """Format a size with two or three digits: an axis has no space for more."""
    number, _, unit = console.format_bytes(round(value)).partition(" ")
    return f"{float(number):.{0 if len(number) > 4 else 1}f} {unit}".replace(".0 ", " ") if value else "0"


def _to_seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def draw_curve(
    name: str,
    samples: Sequence[tuple[float, float]],
    limit: float,
    marks: Sequence[tuple[float, int, bool]],
    seconds: float,
    format_value: Callable[[float], str],
) -> Curve:
    """Draw `samples` (seconds, value) and `limit` over `seconds`; `marks` are (seconds, number, is_error)."""
    seconds = max(seconds, 0.1)
    peak = max(samples, key=lambda sample: sample[1], default=None)
    top = max(limit, peak[1] if peak else 0.0) * _HEADROOM or 1.0

    def to_point(at: float, value: float) -> tuple[float, float]:
        x = LEFT + at / seconds * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    points = tuple(to_point(at, value) for at, value in _downsample(samples))
    floor = HEIGHT - BOTTOM
    peak_text = f"{format_value(peak[1])} peak" if peak else "no samples"
    line = " ".join(f"{'L' if number else 'M'}{x} {y}" for number, (x, y) in enumerate(points))
    area = f"M{points[0][0]} {floor} {line.replace('M', 'L')} L{points[-1][0]} {floor} Z" if len(points) > 1 else ""
    return Curve(
        name=name,
        summary=f"{peak_text}, limit {format_value(limit)}",
        line=line if len(points) > 1 else "",
        area=area,
        points=points if len(points) <= 3 else (),
        peak=to_point(*peak) if peak else None,
        limit_y=to_point(0, limit)[1],
        rows=tuple(Tick(to_point(0, part * limit)[1], format_value(part * limit)) for part in (0, 0.5, 1)),
        columns=tuple(Tick(to_point(at, 0)[0], _format_time(at)) for at in _tick_times(seconds)),
        marks=_merge_marks([(to_point(at, 0)[0], number, is_error) for at, number, is_error in marks]),
    )


def _downsample(samples: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the highest sample of each visible interval, so that no peak is lost."""
    size = -(-len(samples) // _MAX_POINTS) or 1
    return [max(samples[start : start + size], key=lambda sample: sample[1]) for start in range(0, len(samples), size)]


def _tick_times(seconds: float) -> list[float]:
    step = next((step for step in _STEPS if seconds / step <= 5), _STEPS[-1])
    return [round(number * step, 1) for number in range(int(seconds / step) + 1)]


def _format_time(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min"


def _merge_marks(marks: Sequence[tuple[float, int, bool]]) -> tuple[Mark, ...]:
    groups: list[list[tuple[float, int, bool]]] = []
    for mark in sorted(marks):
        if groups and mark[0] - groups[-1][0][0] < _MARK_WIDTH:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    merged = []
    for group in groups:
        numbers = sorted(number for _, number, _ in group)
        label = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"  # noqa: RUF001
        merged.append(Mark(group[0][0], label, any(is_error for *_, is_error in group)))
    return tuple(merged)
