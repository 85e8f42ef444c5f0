"""The evidence of a small bundle, as a promotion writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.manifest import BundledImage, Manifest
from lyra_tasks.checks.results import write_results
from lyra_tasks.digests import file_sha256, hex_part
from lyra_tasks.records.evidence import CheckResult, Evidence, RuleResult, SetKey

CONFIG = "configs/web/site.toml"
DEVIATION = {"rule": "container.read-only-root", "scope": "services.web", "reason": "vendor", "owner": "ada"}


def set_key(images: list[BundledImage]) -> SetKey:
    """Return the key of the tested set."""
    return SetKey(
        images={image.name: image.config_digest for image in images}, test_doubles={}, effective_hash="e" * 64
    )


def write_evidence(bundle: Path, manifest: Manifest) -> None:
    """Write the documents whose claims `verify` compares, and a config."""
    checks = [
        CheckResult(name="greets", kind="http", service="web", outcome="passed"),
        CheckResult(name="counts", kind="exec", service="counter", outcome="passed", group="slow"),
    ]
    rules = [
        RuleResult(rule="container.read-only-root", scope="services.web", outcome="deviation", message="writable"),
        RuleResult(rule="image.size", scope="images.web", outcome="passed"),
        RuleResult(rule="image.scan", scope="images.web", outcome="skipped", message="not installed"),
    ]
    result = Evidence(
        set=set_key(manifest.images), passed=True, run=manifest.run, started_at=manifest.created, seconds=1.0,
        engine={"version": "26.1", "store": "containerd", "platform": "linux/amd64"}, checks=checks, rules=rules,
        usage={},
    )  # fmt: skip
    evidence = bundle / layout.EVIDENCE_DIRECTORY
    (evidence / "logs").mkdir(parents=True, exist_ok=True)
    write_results(evidence, result, {}, [])
    (evidence / "logs/web.log").write_text("2026-11-23T21:15:04Z out ready\n")
    (bundle / "deploy" / CONFIG).parent.mkdir(parents=True, exist_ok=True)
    (bundle / "deploy" / CONFIG).write_text('title = "shop"\n')
    promoted = [*rules, RuleResult(rule="source.committed", scope="source", outcome="passed")]
    write(bundle, layout.RULES_FILE, {"results": [rule.model_dump(mode="json") for rule in promoted]})
    write(bundle, layout.DEVIATIONS_FILE, {"deviations": [DEVIATION]})
    names = ("tests.json", "tests.xml", "metrics.json", "logs/web.log")
    tested: dict[str, Any] = {
        "set": hex_part(manifest.set_digest),
        "passed": True,
        "partial": False,
        "checks": {check.title: check.outcome for check in checks},
        "files": {name: f"sha256:{file_sha256(evidence / name)}" for name in names},
        "configs": {CONFIG: f"sha256:{file_sha256(bundle / 'deploy' / CONFIG)}"},
    }
    entries = [
        {"event": "run", "run": manifest.run, "data": {}},
        {"event": "tested", "run": manifest.run, "data": tested},
    ]
    (bundle / layout.JOURNAL_FILE).write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    subjects = [{"name": archive.file, "digest": {"sha256": archive.sha256}} for archive in manifest.archives]
    subjects += [
        {"name": image.references[0], "digest": {"sha256": hex_part(image.manifest_digest)}}
        for image in manifest.images
    ]
    source = {"name": "source", "digest": {"gitCommit": manifest.source.commit}}
    definition = {
        "externalParameters": {"source": {"uncommittedChanges": manifest.source.dirty}},
        "resolvedDependencies": [source],
    }
    write(bundle, layout.PROVENANCE_FILE, {"subject": subjects, "predicate": {"buildDefinition": definition}})
    predicate = {
        "result": "PASSED",
        "configuration": [{"digest": {"sha256": "e" * 64}}],
        "passedTests": [check.title for check in checks],
        "failedTests": [],
    }
    write(bundle, layout.TEST_RESULT_FILE, {"subject": subjects, "predicate": predicate})
    services = {
        service.name: {"configs": [{"file": CONFIG}] if service.name == "web" else []} for service in manifest.services
    }
    write(bundle, layout.ENVIRONMENT_FILE, {"project": manifest.project, "services": services})


def write(bundle: Path, name: str, document: dict[str, Any]) -> None:
    """Write a JSON document."""
    (bundle / name).write_text(json.dumps(document, indent=2))
