"""Parse and format sizes and durations as Compose writes them: `8g`, `64m`, `1.5s`, `2m`."""

from __future__ import annotations

import math
import re

SIZE_PATTERN = r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([bB]|[kKmMgGtT](?:[iI]?[bB])?)?\s*$"
"""Every text that `parse_size` accepts, for the JSON Schema, too: number and unit."""
DURATION_PATTERN = r"^\s*([0-9.]+h)?([0-9.]+m)?([0-9.]+s)?([0-9.]+ms)?\s*$"
"""Every text that `parse_duration` accepts, and a few more, for the JSON Schema."""
_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?", re.ASCII
)
_POWERS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MAX_SIZE_BYTES = 1024**6
_MAX_DURATION_S = 86400


def parse_size(value: object) -> int:
    """Return the bytes of `64m`, `8g`, `512k` or a plain number; units are powers of 1024, as in Docker.

    Raises:
        ValueError: The value is no size, not positive, or too large.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and (match := re.fullmatch(SIZE_PATTERN, value)):
        # `min` first: int() of an infinite float would raise OverflowError
        number = int(min(float(match[1]) * 1024 ** _POWERS[(match[2] or "").lower()[:1]], _MAX_SIZE_BYTES + 1))
    else:
        raise ValueError('is not a size; write a number with k, m or g, for example "64m" or "8g"')
    if number <= 0:
        raise ValueError('must be more than zero, for example "64m"')
    if number > _MAX_SIZE_BYTES:
        raise ValueError('is too large; write for example "8g"')
    return number


def format_size(size: int) -> str:
    """Return the shortest exact form that `parse_size` accepts: `64m`, `1536k`, `1000`."""
    for unit, power in (("t", 4), ("g", 3), ("m", 2), ("k", 1)):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """Return the shortest form that `parse_duration` accepts: `500ms`, `5s`, `1m30s`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, remainder = divmod(seconds, 60)
    return (f"{minutes:g}m" if minutes else "") + (f"{remainder:g}s" if remainder else "")


def parse_duration(value: object) -> float:
    """Return the seconds of `30s`, `1m30s`, `500ms` or a plain number.

    Raises:
        ValueError: The value is no duration, not positive, or longer than a day.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) <= _MAX_DURATION_S else math.inf
    elif isinstance(value, str) and value.strip() and (match := _DURATION.fullmatch(value.strip())):
        hours, minutes, whole, milli = (float(part or 0) for part in match.groups())
        seconds = hours * 3600 + minutes * 60 + whole + milli / 1000
    else:
        raise ValueError('is not a duration; write for example "30s", "1m30s" or "500ms"')
    if not 0 < seconds <= _MAX_DURATION_S:
        raise ValueError('must be more than zero and at most a day, for example "30s"')
    return seconds
