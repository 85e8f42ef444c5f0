"""Deviations: what an option loosens is a rule with an id, and going around it takes a written, dated reason."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from lyra_tasks.config.models import Configuration, Deviation, Service
from lyra_tasks.errors import VerdictError

READ_ONLY = "container.read-only-root"
EGRESS = "container.egress"
CAPABILITIES = "container.capabilities"
NON_ROOT = "container.non-root"


@dataclass(frozen=True)
class Breach:
    """A rule that a service does not keep."""

    rule: str
    scope: str
    what: str


def service_breaches(name: str, service: Service, image_config: dict[str, Any]) -> Iterator[Breach]:
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


def require_reasons(config: Configuration, breaches: list[Breach], today: datetime.date) -> tuple[Deviation, ...]:
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
