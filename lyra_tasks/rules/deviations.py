"""Deviations: what an option loosens is a rule with an id, and going around it takes a written, dated reason."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.models import Configuration, Deviation, Service
from lyra_tasks.errors import VerdictError
from lyra_tasks.records.images import ImageRecord

READ_ONLY = "container.read-only-root"
EGRESS = "container.egress"
CAPABILITIES = "container.capabilities"
NON_ROOT = "container.non-root"
IMAGE_SIZE = "image.size"
IMAGE_PLATFORM = "image.platform"
CAPACITY = "proxima.capacity"


@dataclass(frozen=True)
class Breach:
    """A rule that a service does not keep."""

    rule: str
    scope: str
    what: str


def breaches_of(
    config: Configuration, records: Mapping[str, ImageRecord], image_configs: Mapping[str, Mapping[str, Any]]
) -> list[Breach]:
    """Every rule that the project does not keep; `image_configs` are the images' configurations by service name."""
    found = [*image_breaches(config, records), *capacity_breaches(config)]
    for name, service in config.services.items():
        found += service_breaches(name, service, image_configs[name])
    return found


def service_breaches(name: str, service: Service, image_config: Mapping[str, Any]) -> Iterator[Breach]:
    """The rules about a container that `service`, run from an image with `image_config`, does not keep."""
    scope = f"services.{name}"
    if not service.read_only:
        yield Breach(READ_ONLY, scope, "its root file system is writable")
    if service.egress:
        yield Breach(EGRESS, scope, "it has a way out of its network")
    if service.cap_add:
        yield Breach(CAPABILITIES, scope, f"it keeps the capabilities {', '.join(service.cap_add)}")
    user = (service.user or str(image_config.get("User") or "")).split(":")[0]
    if user in {"", "0", "root"}:
        yield Breach(NON_ROOT, scope, "it runs as root")


def image_breaches(config: Configuration, records: Mapping[str, ImageRecord]) -> Iterator[Breach]:
    """The rules about what Proxima can hold (R3) that built images do not keep."""
    limit = config.proxima.max_image_size
    for name, record in records.items():
        if limit is not None and record.size > limit:
            have, allowed = console.size(record.size), console.size(limit)
            yield Breach(IMAGE_SIZE, f"images.{name}", f"it has {have}, Proxima takes {allowed} at most")
        if record.platform not in config.proxima.platforms:
            yield Breach(IMAGE_PLATFORM, f"images.{name}", f"it is for {record.platform}, which Proxima does not run")


def capacity_breaches(config: Configuration) -> Iterator[Breach]:
    """Whether the limits of all promoted services together fit into Proxima (R3, R10)."""
    promoted = [service for service in config.services.values() if service.promoted]
    cpus = sum(service.limits.cpus for service in promoted)
    memory = sum(service.limits.memory for service in promoted)
    if config.proxima.cpus is not None and cpus > config.proxima.cpus:
        yield Breach(CAPACITY, "services", f"together they need {cpus:g} CPUs, Proxima has {config.proxima.cpus:g}")
    if config.proxima.memory is not None and memory > config.proxima.memory:
        have, there = console.size(memory), console.size(config.proxima.memory)
        yield Breach(CAPACITY, "services", f"together they need {have} of memory, Proxima has {there}")


def require_reasons(config: Configuration, breaches: Iterable[Breach], today: datetime.date) -> tuple[Deviation, ...]:
    """The deviations that give `breaches` a reason; VerdictError listing every one without, and every expired one."""
    problems: list[str] = []
    used: list[Deviation] = []
    for breach in breaches:
        found = next((each for each in config.deviations if _covers(each, breach)), None)
        if found is None:
            problems.append(f"{breach.scope}: {breach.what} (rule {breach.rule})")
        elif found.expires < today:
            problems.append(f"{breach.scope}: the deviation from {breach.rule} expired on {found.expires}")
        elif found not in used:
            used.append(found)
    if problems:
        raise VerdictError(
            f"{len(problems)} rule(s) are not kept",
            hint="keep the rule, or write a [[deviations]] entry with rule, scope, reason, owner and expires",
            details=tuple(problems),
        )
    return tuple(used)


def _covers(deviation: Deviation, breach: Breach) -> bool:
    return deviation.rule == breach.rule and fnmatchcase(breach.scope, deviation.scope)
