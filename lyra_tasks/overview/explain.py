"""What stands between the checkout and a promotion: which change made what stale, what is refused, what to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lyra_tasks.records.evidence import Evidence, SetKey
from lyra_tasks.rules.deviations import Judgement
from lyra_tasks.rules.freshness import ImageState, failures
from lyra_tasks.rules.standing import Standing

State = Literal["current", "missing", "stale", "failed", "refused", "notice"]


@dataclass(frozen=True)
class ExplainFacts:
    """What was found out before: `evidence` is of this very set, `before` the last of any set.

    `judgement` is what the rules of `evidence` come to today; `promoted` is whether this set is a bundle of this
    version already.
    """

    images: tuple[ImageState, ...]
    key: SetKey
    parts: Mapping[str, str]
    evidence: Evidence | None
    before: Evidence | None
    judgement: Judgement
    standings: tuple[Standing, ...]
    version: str
    promoted: bool
    engine_runs: bool


@dataclass(frozen=True)
class Finding:
    """One line: what it is about, how it stands, and why."""

    about: str
    state: State
    why: str = ""


@dataclass(frozen=True)
class Explanation:
    """Everything found, and the one line of words to run next; `first` is what must be done by hand before that."""

    findings: tuple[Finding, ...]
    run: str
    first: str = ""


def explain(facts: ExplainFacts) -> Explanation:
    """Say how the checkout stands, and what to do."""
    images = [
        Finding(f"image {each.name}", "missing" if each.record is None else "stale" if each.problem else "current",
                f"it {each.problem}" if each.problem else "")
        for each in facts.images
    ]  # fmt: skip
    stale = any(each.state != "current" for each in images)
    findings = [*images, *_evidence(facts, stale), *_rules(facts), *_standings(facts)]
    if not facts.engine_runs:
        findings.append(Finding("engine", "notice", "none answers; images were compared with their files alone"))
    run, first = _next(facts, stale)
    if run == "" and not first:
        findings.append(Finding(f"bundle {facts.version}", "current", "promoted"))
    return Explanation(tuple(findings), run, first)


def changes(before: Evidence, key: SetKey, parts: Mapping[str, str]) -> tuple[str, ...]:
    """What makes the set another one than was tested before, a line for each."""
    found = [
        f"{what} {name} is {_how(old, new, name, 'another')}"
        for what, old, new in (
            ("image", before.set.images, key.images),
            ("the external image of service", before.set.externals, key.externals),
        )
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    for name in sorted({*before.parts, *parts}):
        if before.parts.get(name) == parts.get(name):
            continue
        if name == "rules":
            found.append(f"the rules are others: {before.parts.get(name, 'none')} then, {parts[name]} now")
        else:
            found.append(f"{name} {_verb(before.parts, parts, name)}")
    return tuple(found)


def _how(old: Mapping[str, str], new: Mapping[str, str], name: str, other: str) -> str:
    return "new" if name not in old else "gone" if name not in new else other


def _verb(old: Mapping[str, str], new: Mapping[str, str], name: str) -> str:
    return "is new" if name not in old else "is gone" if name not in new else "changed"


def _evidence(facts: ExplainFacts, stale: bool) -> list[Finding]:
    if facts.evidence is not None and not stale:
        failed = failures(facts.evidence)
        if failed:
            return [Finding("test", "failed", f"{each} (run {facts.evidence.run})") for each in failed]
        return [Finding("test", "current", f"passed in run {facts.evidence.run}")]
    if facts.before is None:
        return [Finding("test", "missing", "nothing has been tested yet, or by another version of lyra-tasks")]
    found = changes(facts.before, facts.key, facts.parts)
    if not found:
        return [Finding("test", "stale", "the images that were tested are to be built again")]
    return [Finding("test", "stale", f"{each} since run {facts.before.run}") for each in found]


def _rules(facts: ExplainFacts) -> list[Finding]:
    told: dict[str, State] = {"broken": "refused", "warning": "notice"}
    return [
        Finding(f"rule {each.rule}", told[each.outcome], f"{each.scope}: {each.message}")
        for each in facts.judgement.results
        if each.outcome in told
    ]


def _standings(facts: ExplainFacts) -> list[Finding]:
    found = []
    for each in facts.standings:
        about, scope = f"deviation from {each.deviation.rule}", each.deviation.scope
        if each.state == "expired":
            found.append(Finding(about, "refused", f"{scope}: it expired on {each.deviation.expires}"))
        elif each.state == "unused":
            found.append(Finding(about, "notice", f"{scope}: nothing needs it; remove it"))
        elif each.ends_soon:
            found.append(Finding(about, "notice", f"{scope}: it ends on {each.deviation.expires}"))
    return found


def _next(facts: ExplainFacts, stale: bool) -> tuple[str, str]:
    if stale:
        return "build test promote", ""
    if facts.evidence is None:
        return "test promote", ""
    if facts.judgement.broken:
        return "build test promote", "keep the rule, or write or renew its [[deviations]] entry"
    if failures(facts.evidence):
        return "build test promote", "mend what failed"
    return ("", "") if facts.promoted else ("promote", "")


def one_line(findings: Sequence[Finding]) -> str:
    """How many of each state, for a summary."""
    counts = {
        state: sum(each.state == state for each in findings) for state in ("refused", "failed", "stale", "missing")
    }
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nothing stands in the way"
