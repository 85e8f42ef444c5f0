"""Compute the SVG coordinates of a usage curve and its limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 8.0, 18.0, 20.0

_MAX_POINTS = 300
_MARK_WIDTH = 28.0
_HEADROOM = 1.05
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)


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
