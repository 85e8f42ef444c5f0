"""What a check of a rule comes to: a breach, or a subject that was looked at and keeps the rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Violation:
    """A rule that something does not keep: `scope` is `services.web` or the like, `what` what was seen."""

    rule: str
    scope: str
    message: str


def merge_platforms(checks: Mapping[str, Iterable[RuleCheck]]) -> list[RuleCheck]:
    """What was seen of the same thing on several platforms as one look for each rule; what only some say names them."""
    platforms_by_violation: dict[tuple[str, str], dict[str, list[str]]] = {}
    first_checks: dict[tuple[str, str], RuleCheck] = {}
    for platform, platform_checks in checks.items():
        for check in platform_checks:
            first_checks.setdefault((check.rule, check.scope), check)
            platforms_by_message = platforms_by_violation.setdefault((check.rule, check.scope), {})
            for message in check.messages:
                platforms_by_message.setdefault(message, []).append(platform)
    return [
        replace(
            first_checks[key],
            messages=tuple(
                message if len(platforms) == len(checks) else f"{message} ({', '.join(platforms)})"
                for message, platforms in platforms_by_message.items()
            ),
        )
        for key, platforms_by_message in platforms_by_violation.items()
    ]


@dataclass(frozen=True)
class RuleCheck:
    """A rule that was looked at for a scope; empty `breaches` mean that it is kept, `skipped` that it could not be."""

    rule: str
    scope: str
    messages: tuple[str, ...] = ()
    skip_reason: str = ""

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The breaches, each of them on its own."""
        return tuple(Violation(self.rule, self.scope, message) for message in self.messages)
