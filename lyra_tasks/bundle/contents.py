"""What stands in a bundle beside the images: its description and the documents made from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.compose import compose_text
from lyra_tasks.bundle.difference import Difference
from lyra_tasks.bundle.environment import env_example, environment_document
from lyra_tasks.bundle.manifest import (
    BundledImage,
    BundledService,
    Manifest,
    Requirements,
    Source,
    TestSummary,
)
from lyra_tasks.bundle.page import promotion_page
from lyra_tasks.bundle.plan import PromotionPlan
from lyra_tasks.bundle.provenance import provenance, test_result
from lyra_tasks.bundle.reception import receive_script
from lyra_tasks.config.changelog import page
from lyra_tasks.config.deployment import config_path
from lyra_tasks.rules.catalogue import rule_set


def manifest_of(plan: PromotionPlan, images: Sequence[BundledImage]) -> Manifest:
    """The root of the bundle's description."""
    config, facts = plan.config, plan.facts
    checks = facts.evidence.checks
    passed = sum(check.outcome == "passed" for check in checks)
    return Manifest(
        project=config.project.name,
        description=config.project.description,
        version=plan.version,
        is_snapshot=not facts.version.is_release,
        created=created(plan),
        source=Source(url=facts.source, commit=facts.commit, dirty=facts.dirty),
        proxima=Requirements(platforms=list(config.proxima.platforms), min_engine=config.proxima.min_engine),
        run=facts.evidence.run,
        set_digest=f"sha256:{facts.key.digest}",
        images=list(images),
        services=[
            BundledService(
                name=each.name, image=str(each.service.image), external=False, ports=dict(each.service.ports)
            )
            for each in plan.services
        ],
        tests=TestSummary(passed=passed, failed=len(checks) - passed),
        deviations=len(facts.deviations),
    )


def documents(plan: PromotionPlan, manifest: Manifest, root: Path) -> dict[str, bytes]:
    """Every further file of the bundle that is made here, by its name, but for the operator's page."""
    project = plan.config.project.name
    deviations = [each.model_dump(mode="json") for each in plan.facts.deviations]
    rules = [each.model_dump(mode="json") for each in plan.facts.rules]
    texts = {
        layout.RECEIVE: receive_script(manifest),
        layout.CHANGES: page(plan.facts.changes, project),
        layout.COMPOSE: compose_text(project, plan.services, _platforms(plan)),
        layout.ENV_EXAMPLE: env_example(plan.services),
        layout.ENVIRONMENT: json_text(environment_document(project, plan.services)),
        layout.PROVENANCE: json_text(provenance(plan, manifest.images)),
        layout.TEST_RESULT: json_text(test_result(plan, manifest.images)),
        layout.RULES: json_text({"schema": "lyra.rules/1", "rule_set": rule_set(), "results": rules}),
        layout.DEVIATIONS: json_text({"schema": "lyra.deviations/1", "deviations": deviations}),
    }
    files = {
        f"deploy/{config_path(each.name, key, file.source)}": (root / file.source).read_bytes()
        for each in plan.services
        for key, file in each.service.configs.items()
    }
    return {name: text.encode() for name, text in texts.items()} | files


def _platforms(plan: PromotionPlan) -> dict[str, str]:
    """By service, the platform of its image where it is for one alone; else it is that of the node."""
    return {
        service: each.record.platform for each in plan.archives if each.key == each.image for service in each.services
    }


def page_of(plan: PromotionPlan, manifest: Manifest, changes: Difference | None) -> bytes:
    """The operator's page; it is made last, since it says what is different from the version before."""
    sign = plan.config.promotion.sign
    facts = plan.facts
    signer = sign.identity if sign else ""
    return promotion_page(
        manifest, plan.services, facts.evidence, facts.rules, facts.deviations, signer, changes
    ).encode()


def archive_annotations(plan: PromotionPlan) -> dict[str, str]:
    """What the archive's index says of its image; the version stands here and in the references alone."""
    prefix = "org.opencontainers.image"
    found = {
        f"{prefix}.version": plan.version,
        f"{prefix}.revision": plan.facts.commit,
        f"{prefix}.created": created(plan),
        f"{prefix}.source": plan.facts.source,
    }
    return {key: value for key, value in found.items() if value}


def created(plan: PromotionPlan) -> str:
    """The time of the commit, as RFC 3339."""
    return datetime.fromtimestamp(plan.facts.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def json_text(document: object) -> str:
    """The written form of the bundle's further documents."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
