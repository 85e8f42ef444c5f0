"""The results of a run as files: `tests.json`, JUnit `tests.xml`, `metrics.json`."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lyra_tasks.lab.running import RunningService
from lyra_tasks.records.evidence import CheckResult, Evidence, ServiceUse
from lyra_tasks.records.metrics import Event, Measurement, Metrics


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


def write_results(
    folder: Path, evidence: Evidence, services: Mapping[str, RunningService], events: Sequence[Event]
) -> None:
    """Write the three files into a run's folder."""
    document = evidence.model_dump(mode="json", by_alias=True)
    _write_json(folder / "tests.json", document)
    metrics = Metrics(
        events=sorted(events, key=lambda each: each.at),
        services={
            name: [Measurement(**asdict(sample)) for sample in service.stats.samples]
            for name, service in services.items()
        },
    )
    _write_json(folder / "metrics.json", metrics.model_dump(mode="json", by_alias=True))
    tree = ET.ElementTree(junit(evidence.run, evidence.checks, evidence.use, evidence.seconds))
    ET.indent(tree)
    tree.write(folder / "tests.xml", encoding="utf-8", xml_declaration=True)


def merge_logs(folder: Path, services: Iterable[str]) -> None:
    """Write `all.log`: the lines of all services in the order of their time stamps, each with its service's name."""
    lines = []
    for name in services:
        path = folder / f"{name}.log"
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                at, _, rest = line.partition(" ")
                lines.append((at, f"{at} {name} {rest}"))
    if lines:
        lines.sort(key=lambda line: line[0])
        (folder / "all.log").write_text("\n".join(text for _, text in lines) + "\n", encoding="utf-8")


def junit(run: str, checks: Sequence[CheckResult], use: Mapping[str, ServiceUse], seconds: float) -> ET.Element:
    """The checks as a JUnit document, a suite for each group, with its services' peaks as properties."""
    root = ET.Element("testsuites", _counts(checks, seconds))
    for group in dict.fromkeys(check.group for check in checks) or [""]:
        own = [check for check in checks if check.group == group]
        # of groups that run at the same time, only the checks' own times add up
        spent = sum(check.seconds for check in own) if group else seconds
        suite = ET.SubElement(root, "testsuite", {"name": f"lyra {run} {group}".strip(), **_counts(own, spent)})
        properties = ET.SubElement(suite, "properties")
        for label, each in sorted(use.items()):
            of, _, service = label.rpartition("/")
            for key, value in each.model_dump(mode="json").items() if of == group else ():
                ET.SubElement(properties, "property", {"name": f"{service}.{key}", "value": str(value)})
        for check in own:
            _case(suite, check)
    return root


def _counts(checks: Sequence[CheckResult], seconds: float) -> dict[str, str]:
    return {
        "tests": str(len(checks)),
        "failures": str(sum(check.outcome == "failed" for check in checks)),
        "errors": str(sum(check.outcome == "error" for check in checks)),
        "time": f"{seconds:.3f}",
    }


def _case(suite: ET.Element, check: CheckResult) -> None:
    about = {"name": check.name, "classname": check.service, "time": f"{check.seconds:.3f}"}
    case = ET.SubElement(suite, "testcase", about)
    if check.outcome != "passed":
        kind = "failure" if check.outcome == "failed" else "error"
        ET.SubElement(case, kind, {"message": check.message}).text = check.message


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
