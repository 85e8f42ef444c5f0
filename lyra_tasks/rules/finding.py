"""Results of rule checks: violations, passes and skips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RuleCheck:
    """The result of checking a rule in a scope (`services.web`): violations by `messages`, or why it was skipped."""

    rule: str
    scope: str
    messages: tuple[str, ...] = ()
    skip_reason: str = ""


def merge_platforms(checks: Mapping[str, Iterable[RuleCheck]]) -> list[RuleCheck]:
    """Merge per-platform results into one per rule and scope; messages of only some platforms name them."""
    first_checks: dict[tuple[str, str], RuleCheck] = {}
    platforms_by_message: dict[tuple[str, str], dict[str, list[str]]] = {}
    for platform, platform_checks in checks.items():
        for check in platform_checks:
            key = (check.rule, check.scope)
            first_checks.setdefault(key, check)
            platforms_by_message.setdefault(key, {})
            for message in check.messages:
                platforms_by_message[key].setdefault(message, []).append(platform)

    def merge(key: tuple[str, str]) -> tuple[str, ...]:
        return tuple(
            message if len(platforms) == len(checks) else f"{message} ({', '.join(platforms)})"
            for message, platforms in platforms_by_message[key].items()
        )

    return [replace(check, messages=merge(key)) for key, check in first_checks.items()]
