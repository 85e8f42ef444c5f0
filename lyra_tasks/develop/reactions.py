"""Decide what changed files mean for the services of a development environment. Pure functions, no I/O."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.patterns import compile_patterns
from lyra_tasks.config.service_models import ChangeRule

if TYPE_CHECKING:
    from e2b_dockerfile_utils import PatternMatcher

_EVERYTHING = "**"


@dataclass(frozen=True)
class ServiceRule:
    """A rule of one service, with patterns that are ready to match paths relative to the project."""

    service: str
    rule: ChangeRule

    @cached_property
    def _included(self) -> PatternMatcher:
        return _create_matcher(self.rule.paths)

    @cached_property
    def _ignored(self) -> PatternMatcher:
        return _create_matcher(self.rule.ignore)

    def matches(self, path: str) -> bool:
        """Return whether the rule applies to a changed file."""
        return self._included.matches(path) and not self._ignored.matches(path)

    def destination(self, path: str) -> str:
        """Return where `target` puts a file in the container, or an empty text without one."""
        target = self.rule.target
        if target is None:
            return ""
        roots = (root for root in self.rule.roots if root in {".", path} or path.startswith(f"{root}/"))
        relative = posixpath.relpath(path, next(roots))
        return target if relative == "." else f"{target}/{relative}"


@dataclass(frozen=True)
class Reaction:
    """What to do with one service: paths in its container to remove and to copy files of the project to, and so on."""

    service: str
    copies: tuple[tuple[str, str], ...]
    removals: tuple[str, ...]
    is_rebuilt: bool
    is_restarted: bool
    commands: tuple[tuple[str, ...], ...]

    def __bool__(self) -> bool:
        return bool(self.copies or self.removals or self.is_rebuilt or self.is_restarted or self.commands)


def list_rules(profile: Configuration, services: Iterable[str]) -> tuple[ServiceRule, ...]:
    """Return the rules of these services of a development profile."""
    return tuple(
        ServiceRule(name, rule) for name in services for rule in _list_service_rules(profile, profile.services[name])
    )


def _list_service_rules(profile: Configuration, service: Service) -> Iterator[ChangeRule]:
    on_change = service.dev.on_change if service.dev is not None else None
    if isinstance(on_change, str) or (on_change and isinstance(on_change[0], str)):
        image = profile.images.get(service.image)
        yield ChangeRule.model_validate({"paths": [image.context if image else "."], "action": on_change})
        return
    yield from (rule for rule in on_change or () if isinstance(rule, ChangeRule))


def plan_reactions(
    rules: Sequence[ServiceRule], changed: Iterable[str], deleted: Iterable[str]
) -> tuple[Reaction, ...]:
    """Return the reactions of all services to files that were written and deleted, by path relative to the project."""
    changed, deleted = tuple(changed), tuple(deleted)
    reactions = []
    for service in dict.fromkeys(rule.service for rule in rules):
        applied = [
            rule
            for rule in rules
            if rule.service == service and any(rule.matches(path) for path in (*changed, *deleted))
        ]
        actions = [rule.rule.action for rule in applied]
        is_rebuilt = "rebuild" in actions
        copied = [rule for rule in applied if rule.rule.target is not None and not is_rebuilt]
        reaction = Reaction(
            service,
            copies=tuple((path, rule.destination(path)) for rule in copied for path in changed if rule.matches(path)),
            removals=tuple(rule.destination(path) for rule in copied for path in deleted if rule.matches(path)),
            is_rebuilt=is_rebuilt,
            is_restarted="restart" in actions and not is_rebuilt,
            commands=tuple(dict.fromkeys(tuple(action) for action in actions if isinstance(action, list))),
        )
        if reaction:
            reactions.append(reaction)
    return tuple(reactions)


def _create_matcher(patterns: Sequence[str]) -> PatternMatcher:
    return compile_patterns(
        [_EVERYTHING if posixpath.normpath(pattern) in {".", "/"} else pattern for pattern in patterns]
    )
