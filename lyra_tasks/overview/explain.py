"""Explain what is missing for a promotion: what is stale, which change caused it, what is refused, what to run."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from lyra_tasks import console
from lyra_tasks.engine.client.connect import connect_running_engine
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import EngineUnavailableError, PreconditionError
from lyra_tasks.records.evidence import Evidence, SetKey
from lyra_tasks.results.overview import ExplainedItem, Explanation, ItemState
from lyra_tasks.rules.deviations import DeviationStatus, RuleReport, deviation_statuses, reassess_results
from lyra_tasks.rules.freshness import ImageState, build_set_key, compare_set, hash_effective_parts, list_failures

Progress = Literal["stale", "untested", "failed", "refused", "tested", "promoted"]
"""How far a checkout is from a promotion: the one decision of `status` and `explain`."""

REMAINING_TASKS: Mapping[Progress, str] = {
    "stale": "build test promote",
    "untested": "test promote",
    "failed": "build test promote",
    "refused": "build test promote",
    "tested": "promote",
    "promoted": "",
}
"""The tasks to run; before those of `failed` and `refused`, something must be done by hand."""
_COLOURS = {"current": "green", "stale": "yellow", "missing": "yellow", "failed": "red", "refused": "red"}
_MANUAL_STEPS: Mapping[Progress, str] = {
    "failed": "fix the failing checks",
    "refused": "comply with the rule, or add or renew its [[deviations]] entry",
}


@dataclass(frozen=True)
class ExplainFacts:
    """The facts of an explanation.

    `evidence` is the last test result of the current set of images, `previous_evidence` that of any set, `rule_report`
    the rule results of `evidence` as of today. `is_promoted` means that this version's bundle holds this set.
    """

    images: tuple[ImageState, ...]
    key: SetKey
    parts: Mapping[str, str]
    evidence: Evidence | None
    previous_evidence: Evidence | None
    rule_report: RuleReport
    deviation_statuses: tuple[DeviationStatus, ...]
    version: str
    is_promoted: bool
    is_engine_running: bool


def assess_progress(
    *, is_stale: bool, is_tested: bool, has_failures: bool, is_refused: bool, is_promoted: bool
) -> Progress:
    """Return the first thing that is missing for a promotion of the images as they are."""
    if is_stale:
        return "stale"
    if not is_tested:
        return "untested"
    if is_promoted:
        return "promoted"
    if is_refused:
        return "refused"
    return "failed" if has_failures else "tested"


def explain_checkout(facts: ExplainFacts) -> Explanation:
    """Explain the state of the checkout, and what to do."""
    is_stale = any(image.problem for image in facts.images if image.is_own)
    is_unfetched = any(image.problem for image in facts.images if not image.is_own)
    items = [
        ExplainedItem(f"image {image.name}", "stale" if image.record else "missing", f"it {image.problem}")
        if image.problem
        else ExplainedItem(f"image {image.name}", "current")
        for image in facts.images
    ]
    items += [*_test_items(facts, is_stale or is_unfetched), *_rule_items(facts), *_deviation_items(facts)]
    if not facts.is_engine_running:
        items.append(ExplainedItem("engine", "notice", "none answers; images were only compared with their files"))
    progress = assess_progress(
        is_stale=is_stale,
        is_tested=facts.evidence is not None and not is_unfetched,
        has_failures=facts.evidence is not None and bool(list_failures(facts.evidence)),
        is_refused=bool(facts.rule_report.failed) or any(item.state == "expired" for item in facts.deviation_statuses),
        is_promoted=facts.is_promoted,
    )
    if progress == "promoted":
        items.append(ExplainedItem(f"bundle {facts.version}", "current", "promoted"))
    return Explanation(tuple(items), REMAINING_TASKS[progress], _MANUAL_STEPS.get(progress, ""))


def describe_changes(previous: Evidence, key: SetKey, parts: Mapping[str, str]) -> tuple[str, ...]:
    """Return what changed since a test, one line for each change."""
    descriptions = [
        f"{label} {name} {_change(old, new, name)}"
        for label, old, new in (
            ("image", previous.set.images, key.images),
            ("the test double", previous.set.test_doubles, key.test_doubles),
        )
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    old_parts = previous.part_hashes
    for name in sorted({*old_parts, *parts}):
        if name == "rules" and old_parts.get(name) != parts[name]:
            descriptions.append(f"the rules changed from {old_parts.get(name, 'none')} to {parts[name]}")
        elif old_parts.get(name) != parts.get(name):
            descriptions.append(f"{name} {_change(old_parts, parts, name)}")
    return tuple(descriptions)


def _change(old: Mapping[str, str], new: Mapping[str, str], name: str) -> str:
    return "is new" if name not in old else "was removed" if name not in new else "changed"


def _test_items(facts: ExplainFacts, is_stale: bool) -> list[ExplainedItem]:
    if facts.evidence is not None and not is_stale:
        run, failures = facts.evidence.run, list_failures(facts.evidence)
        failed_items = [ExplainedItem("test", "failed", f"{failure} (run {run})") for failure in failures]
        return failed_items or [ExplainedItem("test", "current", f"passed in run {run}")]
    if facts.previous_evidence is None:
        return [ExplainedItem("test", "missing", "nothing was tested yet, or by another version of lyra-tasks")]
    run, changes = facts.previous_evidence.run, describe_changes(facts.previous_evidence, facts.key, facts.parts)
    changed_items = [ExplainedItem("test", "stale", f"{change} since run {run}") for change in changes]
    return changed_items or [ExplainedItem("test", "stale", "the tested images must be rebuilt")]


def _rule_items(facts: ExplainFacts) -> list[ExplainedItem]:
    state_by_outcome: dict[str, ItemState] = {"failed": "refused", "warning": "notice"}
    return [
        ExplainedItem(f"rule {result.rule}", state_by_outcome[result.outcome], f"{result.scope}: {result.message}")
        for result in facts.rule_report.results
        if result.outcome in state_by_outcome
    ]


def _deviation_items(facts: ExplainFacts) -> list[ExplainedItem]:
    items = []
    for status in facts.deviation_statuses:
        subject, scope = f"deviation from {status.deviation.rule}", status.deviation.scope
        if status.state == "expired":
            items.append(ExplainedItem(subject, "refused", f"{scope}: expired on {status.deviation.expires}"))
        elif status.state == "unused":
            items.append(ExplainedItem(subject, "notice", f"{scope}: not needed any more; remove it"))
        elif status.expires_soon:
            items.append(ExplainedItem(subject, "notice", f"{scope}: expires on {status.deviation.expires}"))
    return items


def summarize_items(items: Sequence[ExplainedItem]) -> str:
    """Return the number of items in each blocking state."""
    counts = {state: sum(item.state == state for item in items) for state in ("refused", "failed", "stale", "missing")}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nothing blocks a promotion"


def collect_explain_facts(work: Workspace) -> ExplainFacts:
    """Collect the facts of an explanation without starting or changing anything."""
    try:
        engine = connect_running_engine(work.config, work.paths)
    except EngineUnavailableError:
        engine = None
    states = compare_set(work, engine)
    records = {state.name: state.record for state in states if state.record is not None}
    key = build_set_key(work, records)
    evidence, previous = None, work.evidence.latest()
    with suppress(PreconditionError):
        evidence = work.evidence.read(key)
    today = datetime.date.today()
    latest = evidence or previous
    return ExplainFacts(
        images=states,
        key=key,
        parts=hash_effective_parts(work, records),
        evidence=evidence,
        previous_evidence=previous,
        rule_report=reassess_results(work.config, evidence.rules, today) if evidence else RuleReport(()),
        deviation_statuses=deviation_statuses(work.config, latest.rules if latest else (), today),
        version=work.version.semver,
        is_promoted=_is_promoted(work, (evidence.set if evidence else key).digest),
        is_engine_running=engine is not None,
    )


def _is_promoted(work: Workspace, digest: str) -> bool:
    version = work.version.semver
    promotions = (entry.data for _, entry in work.journal.find_backwards("promoted"))
    was_promoted = any((data.get("version"), data.get("set")) == (version, digest) for data in promotions)
    return was_promoted and (work.bundles / version).is_dir()


def show_explanation(explanation: Explanation) -> Explanation:
    """Show a line for each item, a summary, and the command to run."""
    if console.print_result(explanation):
        return explanation
    width = max((len(item.subject) for item in explanation.items), default=0)
    for item in explanation.items:
        state = console.style(f"{item.state:<8}", _COLOURS.get(item.state, "dim"))
        console.print(f"{item.subject:<{width}}  {state}{item.reason}".rstrip())
    console.print(summarize_items(explanation.items))
    if explanation.manual_step:
        console.print(f"first: {explanation.manual_step}")
    if explanation.command:
        console.print(f"next: `{explanation.command}`")
    return explanation
