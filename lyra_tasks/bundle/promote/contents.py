"""The documents of a bundle: its manifest, deployment files, attestations and rule results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lyra_tasks.bundle.content.compose import render_compose_file
from lyra_tasks.bundle.content.environment import build_environment_document, render_env_example
from lyra_tasks.bundle.content.page import render_promotion_page
from lyra_tasks.bundle.content.receive_script import render_receive_script
from lyra_tasks.bundle.diff import BundleDiff
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.manifest import (
    BundledArchive,
    BundledImage,
    BundledService,
    BundleSource,
    Manifest,
    Requirements,
    TestDouble,
    TestSummary,
)
from lyra_tasks.bundle.promote.plan import PromotedImage, PromotionPlan
from lyra_tasks.config.deployment import config_path
from lyra_tasks.digests import hex_part
from lyra_tasks.files import format_json
from lyra_tasks.records.record import dump_record
from lyra_tasks.rules.catalogue import rule_set_version
from lyra_tasks.version import __version__
from lyra_tasks.versions.changelog import render_changelog_page


def build_manifest(plan: PromotionPlan, archives: Sequence[BundledArchive], images: Sequence[BundledImage]) -> Manifest:
    """Return the manifest of the planned bundle."""
    config, facts = plan.config, plan.facts
    checks = facts.evidence.checks
    passed = sum(check.outcome == "passed" for check in checks)
    return Manifest(
        project=config.project.name,
        description=config.project.description,
        version=plan.version,
        is_snapshot=not facts.version.is_release,
        created=commit_time(plan),
        source=BundleSource(url=facts.source, commit=facts.commit, dirty=facts.dirty),
        proxima=Requirements(platforms=list(config.proxima.platforms), min_engine=config.proxima.min_engine),
        run=facts.evidence.run,
        set_digest=f"sha256:{facts.set_key.digest}",
        archives=list(archives),
        images=list(images),
        services=[
            BundledService(name=service.name, image=str(service.config.image), ports=dict(service.config.ports))
            for service in plan.services
        ],
        test_doubles=[TestDouble(service=name, reference=reference) for name, reference in plan.test_doubles.items()],
        tests=TestSummary(passed=passed, failed=len(checks) - passed),
        deviations=len(facts.deviations),
    )


def render_documents(plan: PromotionPlan, manifest: Manifest) -> dict[str, bytes]:
    """Return the content of all rendered files by name, except `PROMOTION.md`; configs are as they were tested."""
    project = plan.config.project.name
    deviations = [deviation.model_dump(mode="json") for deviation in plan.facts.deviations]
    rules = [result.model_dump(mode="json") for result in plan.facts.rules]
    # Services of images for several platforms run on that of the node.
    platforms = {
        service: image.record.platform
        for image in plan.images
        if image.build_name == image.name
        for service in image.services
    }
    texts = {
        layout.RECEIVE_SCRIPT: render_receive_script(manifest),
        layout.CHANGES_FILE: render_changelog_page(plan.facts.changes, project),
        layout.COMPOSE_FILE: render_compose_file(project, plan.services, platforms),
        layout.ENV_EXAMPLE_FILE: render_env_example(plan.services),
        layout.ENVIRONMENT_FILE: format_json(build_environment_document(project, plan.services)),
        layout.PROVENANCE_FILE: format_json(build_provenance(plan, manifest)),
        layout.TEST_RESULT_FILE: format_json(build_test_result(plan, manifest)),
        layout.RULES_FILE: format_json({"schema": "lyra.rules/1", "rule_set": rule_set_version(), "results": rules}),
        layout.DEVIATIONS_FILE: format_json({"schema": "lyra.deviations/1", "deviations": deviations}),
        layout.VULNERABILITIES_FILE: format_json(dump_record(plan.facts.vulnerabilities)),
    }
    files = {
        f"deploy/{config_path(service.name, key, file)}": file.read(plan.facts.recorded.read_input)
        for service in plan.services
        for key, file in service.config.configs.items()
    }
    return {name: text.encode() for name, text in texts.items()} | files


def render_operator_page(plan: PromotionPlan, manifest: Manifest, diff: BundleDiff | None) -> bytes:
    """Return `PROMOTION.md`, which needs the differences from the previous version."""
    facts, sign = plan.facts, plan.config.promotion.sign
    signer = sign.identity if sign else ""
    page = render_promotion_page(
        manifest, plan.services, facts.evidence, facts.rules, facts.deviations, signer, diff, facts.vulnerabilities
    )
    return page.encode()


def archive_annotations(plan: PromotionPlan, image: PromotedImage) -> dict[str, str]:
    """Return the annotations of an image in the archive; only they and the references contain the version."""
    if image.origin:
        return {"lyra.origin.reference": image.origin.reference, "lyra.origin.digest": image.origin.digest}
    prefix = "org.opencontainers.image"
    annotations = {
        f"{prefix}.version": plan.version,
        f"{prefix}.revision": plan.facts.commit,
        f"{prefix}.created": commit_time(plan),
        f"{prefix}.source": plan.facts.source,
    }
    return {key: value for key, value in annotations.items() if value}


def commit_time(plan: PromotionPlan) -> str:
    """Return the commit time in RFC 3339."""
    return datetime.fromtimestamp(plan.facts.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def build_provenance(
    plan: PromotionPlan, manifest: Manifest, document_digests: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the SLSA provenance: commit, bases and build parameters, without values of build arguments.

    The other documents of the bundle, with `document_digests` by name, are its by-products.
    """
    source = _source(plan.facts.source)
    location = {key: f"{uri}@{plan.facts.commit}" for key, uri in source.items()}
    commit = {"name": "source", **location, "digest": {"gitCommit": plan.facts.commit}}
    pinned_digests = {base for image in plan.images for base in image.record.bases.items()}
    pinned_digests |= {(image.origin.reference, image.origin.digest) for image in plan.images if image.origin}
    sign = plan.config.promotion.sign
    bases = [{"name": name, "digest": {"sha256": hex_part(digest)}} for name, digest in sorted(pinned_digests)]
    definition = {
        "buildType": "urn:lyra:buildx-bake:1",
        "externalParameters": {
            "source": {**source, "uncommittedChanges": plan.facts.dirty},
            "images": {image.build_name: _build_parameters(plan, image) for image in plan.images},
            **({"signer": sign.identity} if sign else {}),
        },
        "internalParameters": {"runs": {image.build_name: image.record.run for image in plan.images}},
        "resolvedDependencies": [commit, *bases],
    }
    details = {
        "builder": {"id": "urn:lyra:local-docker-engine", "version": {"lyra-tasks": __version__}},
        "metadata": {"finishedOn": max(image.record.built_at for image in plan.images)},
        "byproducts": [
            {"name": name, "digest": {"sha256": digest}} for name, digest in sorted((document_digests or {}).items())
        ],
    }
    predicate = {"buildDefinition": definition, "runDetails": details}
    return _build_statement(manifest, "https://slsa.dev/provenance/v1", predicate)


def build_test_result(plan: PromotionPlan, manifest: Manifest) -> dict[str, Any]:
    """Return the in-toto test result: the checks and the digest of the configuration."""
    evidence = plan.facts.evidence
    effective = {"name": "services, tests and rules in force", "digest": {"sha256": plan.facts.set_key.effective_hash}}
    predicate = {
        "result": "PASSED" if evidence.passed else "FAILED",
        "configuration": [effective],
        "passedTests": [check.title for check in evidence.checks if check.outcome == "passed"],
        "failedTests": [check.title for check in evidence.checks if check.outcome != "passed"],
    }
    return _build_statement(manifest, "https://in-toto.io/attestation/test-result/v0.1", predicate)


def _build_statement(manifest: Manifest, predicate_type: str, predicate: dict[str, Any]) -> dict[str, Any]:
    """Return an in-toto statement about the archives and the images in them."""
    archive_subjects = [{"name": archive.file, "digest": {"sha256": archive.sha256}} for archive in manifest.archives]
    image_subjects = [
        {"name": image.references[0], "digest": {"sha256": hex_part(image.manifest_digest)}}
        for image in manifest.images
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": archive_subjects + image_subjects,
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def _build_parameters(plan: PromotionPlan, image: PromotedImage) -> dict[str, Any]:
    if image.origin:
        return {**image.origin.model_dump(mode="json"), "platform": image.record.platform}
    config = plan.config.images[image.name]
    return {
        "context": config.context,
        "dockerfile": config.dockerfile,
        "target": config.target,
        "platform": image.record.platform,
        "argumentNames": sorted(config.args),
        "secretNames": sorted(config.secrets),
    }


def _source(remote: str) -> dict[str, str]:
    """Return a remote (URL, or `HOST:PATH` of SSH) as URI, if others can reach it."""
    if "://" in remote:
        return {"uri": f"git+{remote}"}
    host, colon, path = remote.partition(":")
    return {"uri": f"git+ssh://{host}/{path.lstrip('/')}"} if colon and host and "/" not in host else {}
