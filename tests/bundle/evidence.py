"""The evidence of a small bundle, as a promotion writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lyra_tasks.bundle.content.compose import render_compose_file
from lyra_tasks.bundle.content.environment import (
    build_environment_document,
    render_env_example,
    select_promoted_services,
)
from lyra_tasks.bundle.content.receive_script import render_receive_script
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import hash_bundle
from lyra_tasks.bundle.format.manifest import BundledImage, Manifest
from lyra_tasks.checks.results import write_results
from lyra_tasks.config.models import Configuration
from lyra_tasks.digests import file_sha256, hex_part
from lyra_tasks.records.evidence import CheckResult, Evidence, RuleResult, SetKey
from lyra_tasks.version import __version__

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
    details = {"builder": {"version": {"lyra-tasks": __version__}}}
    predicate = {"buildDefinition": definition, "runDetails": details}
    write(bundle, layout.PROVENANCE_FILE, {"subject": subjects, "predicate": predicate})
    predicate = {
        "result": "PASSED",
        "configuration": [{"digest": {"sha256": "e" * 64}}],
        "passedTests": [check.title for check in checks],
        "failedTests": [],
    }
    write(bundle, layout.TEST_RESULT_FILE, {"subject": subjects, "predicate": predicate})
    write_deployment(bundle, manifest)
    record_documents(bundle)


def write_deployment(bundle: Path, manifest: Manifest) -> None:
    """Write the files for the node: one service with everything, and one with little."""
    variables = {
        "GREETING": {"default": "hello $you"},
        "BRACES": {"default": "}{"},
        "LEVEL": {"required": True},
        "TOKEN": {"secret": True},
        "EMPTY": {},
    }
    tables: dict[str, Any] = {
        "web": {
            "image": "web",
            "read_only": False,
            "environment": variables,
            "ports": {"http": 8080, "dns": "53/udp"},
            "volumes": {"data": {"path": "/data"}},
            "secrets": {"key": {"path": "/run/key"}},
            "configs": {"site": {"path": "/site.toml", "source": "site.toml"}},
            "tmpfs": {"/spool": "1m"},
            "depends_on": ["counter"],
        },
        "counter": {"image": "counter", "ports": {"http": 8080}, "environment": {"EMPTY": {"default": "no"}}},
    }
    images = {image.name: {"context": "."} for image in manifest.images}
    services = {name: table for name, table in tables.items() if name in images}
    config = Configuration.model_validate(
        {"schema": 1, "project": {"name": manifest.project}, "images": images, "services": services}
    )
    references = {image.name: image.references[0] for image in manifest.images}
    promoted = select_promoted_services(config, references, {name: {"Env": ["PATH=/bin", "X=1"]} for name in services})
    (bundle / layout.COMPOSE_FILE).write_text(render_compose_file(manifest.project, promoted, {}))
    (bundle / layout.ENV_EXAMPLE_FILE).write_text(render_env_example(promoted))
    write(bundle, layout.ENVIRONMENT_FILE, build_environment_document(manifest.project, promoted))
    (bundle / layout.RECEIVE_SCRIPT).write_text(render_receive_script(manifest))


def record_documents(bundle: Path) -> None:
    """Name all documents in the provenance, as they are now."""
    statement = json.loads((bundle / layout.PROVENANCE_FILE).read_text())
    digests = hash_bundle(bundle, {})
    statement["predicate"]["runDetails"]["byproducts"] = [
        {"name": name, "digest": {"sha256": digest}}
        for name, digest in digests.items()
        if name != layout.PROVENANCE_FILE and not name.startswith(f"{layout.IMAGES_DIRECTORY}/")
    ]
    write(bundle, layout.PROVENANCE_FILE, statement)


def write(bundle: Path, name: str, document: dict[str, Any]) -> None:
    """Write a JSON document."""
    (bundle / name).write_text(json.dumps(document, indent=2))
