"""What a check of a rule comes to: a breach, or a subject that was looked at and keeps the rule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Breach:
    """A rule that something does not keep: `scope` is `services.web` or the like, `what` what was seen."""

    rule: str
    scope: str
    what: str


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
