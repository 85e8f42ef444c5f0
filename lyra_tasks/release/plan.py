"""What a release will do, as a value: the tag, its message, and everything that stands against it."""

from __future__ import annotations

from dataclasses import dataclass

from lyra_tasks.config.changelog import Changes, body
from lyra_tasks.config.models import Configuration
from lyra_tasks.release.decide import Decision
from lyra_tasks.release.facts import ReleaseFacts
from lyra_tasks.release.preflight import problems
from lyra_tasks.release.wanted import Wanted


@dataclass(frozen=True)
class ReleasePlan:
    """An annotated tag to be made on `commit`.

    It is pushed to `remote`, and its changes are entered into the project's file `changelog`, unless that is empty.
    `tagged` are the version tags that were there when this was planned.
    """

    decision: Decision
    tag: str
    commit: str
    message: str
    changes: Changes
    remote: str
    changelog: str
    tagged: frozenset[str]
    problems: tuple[str, ...]

    @property
    def version(self) -> str:
        """The version to be released."""
        return str(self.decision.version)


def plan(config: Configuration, facts: ReleaseFacts, asked: Wanted) -> ReleasePlan:
    """Plan a release; what stands against it is in `problems`, and hinders nobody to look at the rest."""
    decision = facts.decision
    changes = Changes(
        version=str(decision.version),
        day=facts.git.day,
        previous=str(decision.previous.version) if decision.previous else "",
        commits=facts.commits,
        source=facts.source,
    )
    return ReleasePlan(
        decision=decision,
        tag=config.release.tag.replace("{version}", str(decision.version)),
        commit=facts.git.commit,
        message=f"{config.project.name} {decision.version}\n\n{body(changes)}",
        changes=changes,
        remote=facts.remote if asked.push else "",
        changelog=asked.changelog,
        tagged=frozenset(each.tag for each in facts.releases),
        problems=tuple(problems(config, facts)),
    )
