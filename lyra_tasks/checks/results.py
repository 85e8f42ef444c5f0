"""Results of a run: printed, and as the files `tests.json`, `tests.xml` (JUnit) and `metrics.json`."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lyra_tasks import console
from lyra_tasks.console.markup import sanitize_xml
from lyra_tasks.files import display_path, format_json
from lyra_tasks.lab.service import RunningService
from lyra_tasks.records.evidence import (
    CheckDetail,
    CheckResult,
    Evidence,
    Measurement,
    Metrics,
    RuleResult,
    ServiceEvent,
    ServiceUsage,
)
from lyra_tasks.rules.finding import RuleCheck


def summarize_usage(service: RunningService) -> ServiceUsage:
    """Return the peak usage of one container and its limits."""
    samples, planned, final_state = service.stats.samples, service.planned, service.final_state
    return ServiceUsage(
        memory_peak=max((sample.memory for sample in samples), default=0),
        memory_limit=planned.memory,
        cpu_peak=max((sample.cpu for sample in samples), default=0.0),
        cpu_limit=planned.cpus,
        pids_peak=max((sample.pids for sample in samples), default=0),
        pids_limit=planned.service.limits.pids,
        oom_killed=bool(final_state and final_state.oom_killed),
        # the exit code of a container that was stopped from outside says nothing
        exit_code=final_state.exit_code if final_state and planned.service.oneshot else None,
        samples=len(samples),
    )


def merge_container_results(rules: Sequence[RuleResult], rule_checks: Sequence[RuleCheck]) -> list[RuleResult]:
    """Merge checks of created containers into the rule results; they take the place of results that passed."""
    messages_by_scope: dict[tuple[str, str], list[str]] = {}
    for rule_check in rule_checks:
        messages = messages_by_scope.setdefault((rule_check.rule, rule_check.scope), [])
        # the labs of several groups report the same violations
        messages += [message for message in rule_check.messages if message not in messages]
    container_results = {
        (rule, scope): RuleResult(
            rule=rule, scope=scope, outcome="failed" if messages else "passed", message="; ".join(messages)
        )
        for (rule, scope), messages in messages_by_scope.items()
    }
    merged = [
        container_results.get((rule.rule, rule.scope), rule) if rule.outcome == "passed" else rule for rule in rules
    ]
    known_scopes = {(rule.rule, rule.scope) for rule in rules}
    return merged + [result for scope_key, result in container_results.items() if scope_key not in known_scopes]


def list_measurements(service: RunningService) -> list[Measurement]:
    """Return the usage samples of one container."""
    return [Measurement(**asdict(sample)) for sample in service.stats.samples]


def add_container_results(rules: Sequence[RuleResult], earlier: Sequence[RuleResult]) -> list[RuleResult]:
    """Add the rule results of containers that an earlier run has created, whose results are used again."""
    known_scopes = {(rule.rule, rule.scope) for rule in rules}
    return [*rules, *(rule for rule in earlier if (rule.rule, rule.scope) not in known_scopes)]


def write_results(
    run_directory: Path,
    evidence: Evidence,
    measurements: Mapping[str, list[Measurement]],
    events: Sequence[ServiceEvent],
) -> None:
    """Write the three files into the directory of a run; `measurements` are by service."""
    (run_directory / "tests.json").write_text(format_json(build_results_document(evidence)), encoding="utf-8")
    metrics = Metrics(events=sorted(events, key=lambda event: event.at), services=dict(measurements))
    document = metrics.model_dump(mode="json", by_alias=True)
    (run_directory / "metrics.json").write_text(format_json(document), encoding="utf-8")
    tree = ET.ElementTree(build_junit(evidence))
    ET.indent(tree)
    tree.write(run_directory / "tests.xml", encoding="utf-8", xml_declaration=True)


def build_results_document(evidence: Evidence) -> dict[str, Any]:
    """Return the content of `tests.json`: the evidence without the hashes, which only matter in this checkout."""
    return evidence.model_dump(mode="json", by_alias=True, exclude={"part_hashes", "check_keys", "group_keys"})


def build_junit(evidence: Evidence) -> ET.Element:
    """Return a JUnit document: a suite per group of checks, with peak usage as properties, and one for the rules."""
    cases = [(check, _build_check_case(check)) for check in evidence.checks]
    rules = [_build_rule_case(result) for result in evidence.rules]
    root = ET.Element("testsuites", _count_outcomes([*(case for _, case in cases), *rules], evidence.seconds))
    for group in dict.fromkeys(check.group for check, _ in cases) or [""]:
        group_cases = [case for check, case in cases if check.group == group]
        # groups run in parallel, so that only the times of their checks add up
        seconds = sum(check.seconds for check, _ in cases if check.group == group) if group else evidence.seconds
        attributes = {"name": f"lyra {evidence.run} {group}".strip(), **_count_outcomes(group_cases, seconds)}
        suite = ET.SubElement(root, "testsuite", attributes)
        properties = ET.SubElement(suite, "properties")
        for label, usage in sorted(evidence.usage.items()):
            group_name, _, service = label.rpartition("/")
            for key, value in usage.model_dump(mode="json").items() if group_name == group else ():
                ET.SubElement(properties, "property", {"name": f"{service}.{key}", "value": str(value)})
        suite.extend(group_cases)
    ET.SubElement(root, "testsuite", {"name": "rules", **_count_outcomes(rules, 0.0)}).extend(rules)
    return sanitize_xml(root)


def _count_outcomes(cases: Sequence[ET.Element], seconds: float) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        "time": f"{seconds:.3f}",
    }


def _build_check_case(check: CheckResult) -> ET.Element:
    case = ET.Element("testcase", {"name": check.name, "classname": check.service, "time": f"{check.seconds:.3f}"})
    if check.cached_from:
        properties = ET.SubElement(case, "properties")
        ET.SubElement(properties, "property", {"name": "cached_from", "value": check.cached_from})
    if check.outcome != "passed":
        kind = "failure" if check.outcome == "failed" else "error"
        text = "\n".join([check.message, *format_details(check.details)])
        ET.SubElement(case, kind, {"message": check.message}).text = text
    return case


def _build_rule_case(result: RuleResult) -> ET.Element:
    """Return the case of a rule; a warning or a deviation passes, and is reported as output."""
    case = ET.Element("testcase", {"name": result.rule, "classname": result.scope, "time": "0.000"})
    if result.outcome == "failed":
        ET.SubElement(case, "failure", {"message": result.message}).text = result.message
    elif result.outcome == "skipped":
        ET.SubElement(case, "skipped", {"message": result.message})
    elif result.message:
        ET.SubElement(case, "system-out").text = f"{result.outcome}: {result.message}"
    return case


def print_check_result(result: CheckResult, run_directory: Path | None = None) -> None:
    """Print the result of a check as soon as it has been run; its files are named if they are in `run_directory`."""
    mark = console.style("ok  ", "green") if result.outcome == "passed" else console.style("FAIL", "red", "bold")
    lines = [f"{mark} {result.title} ({'cached' if result.cached_from else f'{result.seconds:.2f} s'})"]
    lines += [f"     {line}" for line in result.message.splitlines()]
    directory = f"{display_path(run_directory)}/" if run_directory is not None else ""
    details = [f"     {line}" for line in format_details(result.details, directory)]
    console.print("\n".join(lines), details)  # in one call, so that the lines of parallel groups do not mix


def format_details(details: Sequence[CheckDetail], directory: str = "") -> list[str]:
    """Return the lines that explain a result, each block below its title; `directory` is put before their files."""
    lines = []
    for detail in details:
        lines.append(f"{detail.title}{f' ({directory}{detail.file})' if detail.file else ''}:")
        lines += [f"  {line}" for line in detail.lines]
    return lines
