"""The results of a run as files: `tests.json`, JUnit `tests.xml`, `metrics.json`."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lyra_tasks.lab.running import RunningService
from lyra_tasks.records.evidence import MERGED_LOG, CheckResult, Evidence, RuleResult, ServiceUse
from lyra_tasks.records.metrics import Event, Measurement, Metrics
from lyra_tasks.rules.breach import Look


def use_of(service: RunningService) -> ServiceUse:
    """The peaks of one container against its limits."""
    samples, planned, last = service.stats.samples, service.planned, service.last
    return ServiceUse(
        memory_peak=max((sample.memory for sample in samples), default=0),
        memory_limit=planned.memory,
        cpu_peak=max((sample.cpu for sample in samples), default=0.0),
        cpu_limit=planned.cpus,
        pids_peak=max((sample.pids for sample in samples), default=0),
        pids_limit=planned.service.limits.pids,
        oom_killed=bool(last and last.oom_killed),
        # a container that we ended ourselves has no verdict of its own
        exit_code=last.exit_code if last and planned.service.oneshot else None,
        samples=len(samples),
    )


def with_containers(rules: Sequence[RuleResult], looks: Sequence[Look]) -> list[RuleResult]:
    """The results of the rules, with what the engine's containers say; what was seen there counts where both say."""
    found: dict[tuple[str, str], list[str]] = {}
    for look in looks:
        said = found.setdefault((look.rule, look.scope), [])
        said += [each for each in look.breaches if each not in said]  # the labs of several groups say the same
    seen = {
        (rule, scope): RuleResult(rule=rule, scope=scope, outcome="broken" if said else "kept", message="; ".join(said))
        for (rule, scope), said in found.items()
    }
    before = [seen.get((each.rule, each.scope), each) if each.outcome == "kept" else each for each in rules]
    known = {(each.rule, each.scope) for each in rules}
    return before + [result for place, result in seen.items() if place not in known]


def write_results(
    folder: Path, evidence: Evidence, services: Mapping[str, RunningService], events: Sequence[Event]
) -> None:
    """Write the three files into a run's folder."""
    document = results_document(evidence)
    _write_json(folder / "tests.json", document)
    metrics = Metrics(
        events=sorted(events, key=lambda each: each.at),
        services={
            name: [Measurement(**asdict(sample)) for sample in service.stats.samples]
            for name, service in services.items()
        },
    )
    _write_json(folder / "metrics.json", metrics.model_dump(mode="json", by_alias=True))
    tree = ET.ElementTree(junit(evidence))
    ET.indent(tree)
    tree.write(folder / "tests.xml", encoding="utf-8", xml_declaration=True)


def results_document(evidence: Evidence) -> dict[str, Any]:
    """What `tests.json` holds: the verdict without the hashes that only this checkout can make use of."""
    return evidence.model_dump(mode="json", by_alias=True, exclude={"parts"})


def merge_logs(folder: Path, services: Iterable[str]) -> None:
    """Write the lines of all services into one log, in the order of their time stamps, each with its service's name."""
    lines = []
    for name in services:
        path = folder / f"{name}.log"
        if path.exists():
            # whatever else counts as the end of a line somewhere is a character of this one
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
                at, _, rest = line.partition(" ")
                lines.append((at, f"{at} {name} {rest}"))
    if lines:
        lines.sort(key=lambda line: line[0])
        (folder / MERGED_LOG).write_text("\n".join(text for _, text in lines) + "\n", encoding="utf-8")


def junit(evidence: Evidence) -> ET.Element:
    """The checks as a JUnit document, a suite for each group with its services' peaks as properties, and the rules."""
    cases = [(check, _check_case(check)) for check in evidence.checks]
    rules = [_rule_case(result) for result in evidence.rules]
    root = ET.Element("testsuites", _counts([*(case for _, case in cases), *rules], evidence.seconds))
    for group in dict.fromkeys(check.group for check, _ in cases) or [""]:
        own = [case for check, case in cases if check.group == group]
        # of groups that run at the same time, only the checks' own times add up
        spent = sum(check.seconds for check, _ in cases if check.group == group) if group else evidence.seconds
        about = {"name": f"lyra {evidence.run} {group}".strip(), **_counts(own, spent)}
        suite = ET.SubElement(root, "testsuite", about)
        properties = ET.SubElement(suite, "properties")
        for label, use in sorted(evidence.use.items()):
            of, _, service = label.rpartition("/")
            for key, value in use.model_dump(mode="json").items() if of == group else ():
                ET.SubElement(properties, "property", {"name": f"{service}.{key}", "value": str(value)})
        suite.extend(own)
    ET.SubElement(root, "testsuite", {"name": "rules", **_counts(rules, 0.0)}).extend(rules)
    return root


def _counts(cases: Sequence[ET.Element], seconds: float) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        "time": f"{seconds:.3f}",
    }


def _check_case(check: CheckResult) -> ET.Element:
    case = ET.Element("testcase", {"name": check.name, "classname": check.service, "time": f"{check.seconds:.3f}"})
    if check.outcome != "passed":
        kind = "failure" if check.outcome == "failed" else "error"
        ET.SubElement(case, kind, {"message": check.message}).text = check.message
    return case


def _rule_case(result: RuleResult) -> ET.Element:
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
