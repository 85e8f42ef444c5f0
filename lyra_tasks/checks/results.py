"""The results of a run as files: `tests.json`, JUnit `tests.xml`, `metrics.json`."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lyra_tasks.lab.lab import RunningService
from lyra_tasks.records.evidence import (
    MERGED_LOG,
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
    """The peaks of one container against its limits."""
    samples, planned, final_state = service.stats.samples, service.planned, service.final_state
    return ServiceUsage(
        memory_peak=max((sample.memory for sample in samples), default=0),
        memory_limit=planned.memory,
        cpu_peak=max((sample.cpu for sample in samples), default=0.0),
        cpu_limit=planned.cpus,
        pids_peak=max((sample.pids for sample in samples), default=0),
        pids_limit=planned.service.limits.pids,
        oom_killed=bool(final_state and final_state.oom_killed),
        # a container that we ended ourselves has no verdict of its own
        exit_code=final_state.exit_code if final_state and planned.service.oneshot else None,
        samples=len(samples),
    )


def merge_container_results(rules: Sequence[RuleResult], rule_checks: Sequence[RuleCheck]) -> list[RuleResult]:
    """The results of the rules, with what the engine's containers say; what was seen there counts where both say."""
    messages_by_scope: dict[tuple[str, str], list[str]] = {}
    for rule_check in rule_checks:
        messages = messages_by_scope.setdefault((rule_check.rule, rule_check.scope), [])
        messages += [
            violation for violation in rule_check.messages if violation not in messages
        ]  # the labs of several groups say the same
    container_results = {
        (rule, scope): RuleResult(
            rule=rule, scope=scope, outcome="broken" if messages else "kept", message="; ".join(messages)
        )
        for (rule, scope), messages in messages_by_scope.items()
    }
    merged = [
        container_results.get((rule.rule, rule.scope), rule) if rule.outcome == "kept" else rule for rule in rules
    ]
    known_scopes = {(rule.rule, rule.scope) for rule in rules}
    return merged + [result for scope_key, result in container_results.items() if scope_key not in known_scopes]


def write_results(
    run_directory: Path, evidence: Evidence, services: Mapping[str, RunningService], events: Sequence[ServiceEvent]
) -> None:
    """Write the three files into a run's folder."""
    document = build_results_document(evidence)
    _write_json(run_directory / "tests.json", document)
    metrics = Metrics(
        events=sorted(events, key=lambda entry: entry.at),
        services={
            name: [Measurement(**asdict(sample)) for sample in service.stats.samples]
            for name, service in services.items()
        },
    )
    _write_json(run_directory / "metrics.json", metrics.model_dump(mode="json", by_alias=True))
    tree = ET.ElementTree(build_junit(evidence))
    ET.indent(tree)
    tree.write(run_directory / "tests.xml", encoding="utf-8", xml_declaration=True)


def build_results_document(evidence: Evidence) -> dict[str, Any]:
    """What `tests.json` holds: the verdict without the hashes that only this checkout can make use of."""
    return evidence.model_dump(mode="json", by_alias=True, exclude={"parts"})


def merge_logs(logs_directory: Path, services: Iterable[str]) -> None:
    """Write the lines of all services into one log, in the order of their time stamps, each with its service's name."""
    lines = []
    for name in services:
        path = logs_directory / f"{name}.log"
        if path.exists():
            # whatever else counts as the end of a line somewhere is a character of this one
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
                timestamp, _, rest = line.partition(" ")
                lines.append((timestamp, f"{timestamp} {name} {rest}"))
    if lines:
        lines.sort(key=lambda line: line[0])
        (logs_directory / MERGED_LOG).write_text("\n".join(text for _, text in lines) + "\n", encoding="utf-8")


def build_junit(evidence: Evidence) -> ET.Element:
    """The checks as a JUnit document, a suite for each group with its services' peaks as properties, and the rules."""
    cases = [(check, _build_check_case(check)) for check in evidence.checks]
    rules = [_build_rule_case(result) for result in evidence.rules]
    root = ET.Element("testsuites", _count_outcomes([*(case for _, case in cases), *rules], evidence.seconds))
    for group in dict.fromkeys(check.group for check, _ in cases) or [""]:
        group_cases = [case for check, case in cases if check.group == group]
        # of groups that run at the same time, only the checks' own times add up
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
    return root


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
    if check.outcome != "passed":
        kind = "failure" if check.outcome == "failed" else "error"
        ET.SubElement(case, kind, {"message": check.message}).text = check.message
    return case


def _build_rule_case(result: RuleResult) -> ET.Element:
    """A warning or a deviation did not fail: it is told as output of a case that passed."""
    case = ET.Element("testcase", {"name": result.rule, "classname": result.scope, "time": "0.000"})
    if result.outcome == "broken":
        ET.SubElement(case, "failure", {"message": result.message}).text = result.message
    elif result.outcome == "skipped":
        ET.SubElement(case, "skipped", {"message": result.message})
    elif result.message:
        ET.SubElement(case, "system-out").text = f"{result.outcome}: {result.message}"
    return case


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
