"""How the images came to be and what was tested, as in-toto statements about their digests.

They say what this program did and saw, and no more: nobody but the machine itself vouches for it, names of build
arguments are told and values are not, and the machine is not named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lyra_tasks import __version__
from lyra_tasks.bundle.manifest import BundledImage
from lyra_tasks.bundle.plan import PlannedArchive, PromotionPlan

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
BUILD_TYPE = "urn:lyra:buildx-bake:1"
BUILDER = "urn:lyra:local-docker-engine"


def provenance(plan: PromotionPlan, images: Sequence[BundledImage]) -> dict[str, Any]:
    """The build as SLSA provenance: from which commit and bases, with which parameters."""
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "source": {**_source(plan.facts.source), "uncommittedChanges": plan.facts.dirty},
            "images": {each.key: _parameters(plan, each) for each in plan.archives},
        },
        "internalParameters": {"runs": {each.key: each.record.run for each in plan.archives}},
        "resolvedDependencies": [_commit(plan), *_bases(plan)],
    }
    details = {
        "builder": {"id": BUILDER, "version": {"lyra-tasks": __version__}},
        "metadata": {"finishedOn": max(each.record.built_at for each in plan.archives)},
    }
    return _statement(images, PROVENANCE, {"buildDefinition": definition, "runDetails": details})


def test_result(plan: PromotionPlan, images: Sequence[BundledImage]) -> dict[str, Any]:
    """The verdict as a test result: which checks passed, under which services, tests and rules."""
    evidence = plan.facts.evidence
    effective = {"name": "services, tests and rules in force", "digest": {"sha256": plan.facts.key.effective}}
    predicate = {
        "result": "PASSED" if evidence.passed else "FAILED",
        "configuration": [effective],
        "passedTests": [check.title for check in evidence.checks if check.outcome == "passed"],
        "failedTests": [check.title for check in evidence.checks if check.outcome != "passed"],
    }
    return _statement(images, TEST_RESULT, predicate)


def _statement(images: Sequence[BundledImage], kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    """A statement about the archives, and about the images in them as registries and stores name them."""
    archives = [{"name": image.file, "digest": {"sha256": image.sha256}} for image in images]
    inside = [{"name": image.references[0], "digest": {"sha256": _hex(image.manifest_digest)}} for image in images]
    return {"_type": STATEMENT, "subject": archives + inside, "predicateType": kind, "predicate": predicate}


def _parameters(plan: PromotionPlan, archive: PlannedArchive) -> dict[str, Any]:
    image = plan.config.images[archive.image]
    return {
        "context": image.context,
        "dockerfile": image.dockerfile,
        "target": image.target,
        "platform": archive.record.platform,
        "argumentNames": sorted(image.args),
        "secretNames": sorted(image.secrets),
    }


def _source(remote: str) -> dict[str, str]:
    """A remote as URI, if it is one that others can reach: a URL, or `HOST:PATH` as SSH has it."""
    if "://" in remote:
        return {"uri": f"git+{remote}"}
    host, colon, path = remote.partition(":")
    return {"uri": f"git+ssh://{host}/{path.lstrip('/')}"} if colon and host and "/" not in host else {}


def _commit(plan: PromotionPlan) -> dict[str, Any]:
    where = {key: f"{uri}@{plan.facts.commit}" for key, uri in _source(plan.facts.source).items()}
    return {"name": "source", **where, "digest": {"gitCommit": plan.facts.commit}}


def _bases(plan: PromotionPlan) -> list[dict[str, Any]]:
    """Every base that an image stands on, once, by the name in FROM and the digest that it was pinned to."""
    pinned = {(name, digest) for each in plan.archives for name, digest in each.record.bases.items()}
    return [{"name": name, "digest": {"sha256": _hex(digest)}} for name, digest in sorted(pinned)]


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
