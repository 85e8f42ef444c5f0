"""What was measured while a lab ran, and what happened when: `metrics.json` of a run and of a bundle."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from lyra_tasks.records.store import Record


class Measurement(Record):
    """One sample of a container: memory in bytes, CPU in cores since the sample before, limits as the kernel has them.

    `at` is UTC in ISO 8601 with milliseconds, as everywhere in this file.
    """

    at: str
    memory: int
    memory_limit: int
    cpu: float
    pids: int
    pids_limit: int


class Event(Record):
    """Something that happened to a service, or a check that was made of it and took `seconds` up to `at`.

    `outcome` is that of a check, or how a service ended: `out of memory`, or `exit code N`.
    """

    at: str
    what: Literal["started", "ready", "check", "ended"]
    service: str
    name: str = ""
    outcome: str = ""
    seconds: float = 0.0


class Metrics(Record):
    """A run's measurements by service, and its events in the order of time."""

    schema_: Literal["lyra.metrics/1"] = Field(default="lyra.metrics/1", alias="schema")
    events: list[Event]
    services: dict[str, list[Measurement]]


def event(
    what: Literal["started", "ready", "check", "ended"],
    service: str,
    *,
    name: str = "",
    outcome: str = "",
    seconds: float = 0.0,
) -> Event:
    """An event of this moment."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Event(at=at, what=what, service=service, name=name, outcome=outcome, seconds=round(seconds, 3))
