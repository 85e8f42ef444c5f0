"""What a check of a rule comes to: a breach, or a subject that was looked at and keeps the rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Breach:
    """A rule that something does not keep: `scope` is `services.web` or the like, `what` what was seen."""

    rule: str
    scope: str
    what: str


def for_all(looks: Mapping[str, Iterable[Look]]) -> list[Look]:
    """What was seen of the same thing on several platforms as one look for each rule; what only some say names them."""
    seen: dict[tuple[str, str], dict[str, list[str]]] = {}
    first: dict[tuple[str, str], Look] = {}
    for platform, every in looks.items():
        for look in every:
            first.setdefault((look.rule, look.scope), look)
            said = seen.setdefault((look.rule, look.scope), {})
            for each in look.breaches:
                said.setdefault(each, []).append(platform)
    return [
        replace(
            first[place],
            breaches=tuple(
                what if len(where) == len(looks) else f"{what} ({', '.join(where)})" for what, where in said.items()
            ),
        )
        for place, said in seen.items()
    ]


@dataclass(frozen=True)
class Look:
    """A rule that was looked at for a scope; empty `breaches` mean that it is kept, `skipped` that it could not be."""

    rule: str
    scope: str
    breaches: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def found(self) -> tuple[Breach, ...]:
        """The breaches, each of them on its own."""
        return tuple(Breach(self.rule, self.scope, what) for what in self.breaches)
