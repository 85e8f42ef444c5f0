"""What a promotion will do, as a value: which tested images travel, under which version and references."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semver import Version

from lyra_tasks.bundle.content.services import PromotedService, select_promoted_services
from lyra_tasks.bundle.format.layout import image_file
from lyra_tasks.config.models import Configuration, Deviation
from lyra_tasks.config.platforms import list_variants
from lyra_tasks.engine.client.connect import parse_version_numbers
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.records.evidence import Evidence, RuleResult, SetKey
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.deviations import reassess_results
from lyra_tasks.rules.freshness import check_promotion, require_tested_set
from lyra_tasks.versions.changelog import VersionChanges, list_commits_since
from lyra_tasks.versions.version import CheckoutVersion, find_previous_release, list_floating_tags, list_releases

_MIN_ZSTD_ENGINE = (23, 0)


@dataclass(frozen=True)
class PromotionFacts:
    """What was found out before planning.

    `image_configs` are by service name; `epoch` is the commit's time; `moving_tags` are the image tags beside the
    version's own, such as `latest`.
    """

    version: CheckoutVersion
    moving_tags: tuple[str, ...]
    commit: str
    dirty: bool
    source: str
    epoch: int
    changes: VersionChanges
    set_key: SetKey
    evidence: Evidence
    evidence_directory: Path
    records: Mapping[str, ImageRecord]
    image_configs: Mapping[str, Mapping[str, Any]]
    rules: tuple[RuleResult, ...]
    deviations: tuple[Deviation, ...]
    bundles_directory: Path


@dataclass(frozen=True)
class PromotedImage:
    """One image that travels, for one platform: its record, its references (the full version's first), its file.

    The references are the same for all its platforms: a node loads those of its own. `key` is what the build is called.
    """

    build_name: str
    name: str
    record: ImageRecord
    references: tuple[str, ...]
    file: str
    services: tuple[str, ...]


@dataclass(frozen=True)
class PromotionPlan:
    """A bundle to be made at `folder`."""

    config: Configuration
    facts: PromotionFacts
    directory: Path
    images: tuple[PromotedImage, ...]
    services: tuple[PromotedService, ...]
    compression: Literal["gzip", "zstd"]

    @property
    def version(self) -> str:
        """The version of the bundle."""
        return self.facts.version.semver


def plan_promotion(config: Configuration, facts: PromotionFacts) -> PromotionPlan:
    """Plan the bundle of one tested set: the images of all promoted services, always together."""
    project = config.project.name
    services_by_image: dict[str, list[str]] = {}
    for name, service in config.services.items():
        if service.is_promoted:
            services_by_image.setdefault(str(service.image), []).append(name)
    if not services_by_image:
        raise ConfigurationError(
            "nothing to promote: no service runs an image of this project",
            hint="give a service an `image`, or set `promote = true` on one",
        )
    version = facts.version.semver
    images = tuple(
        PromotedImage(
            build_name=variant.key,
            name=variant.image,
            record=facts.records[variant.key],
            references=tuple(
                f"{project}/{variant.image}:{tag}" for tag in (facts.version.image_tag, *facts.moving_tags)
            ),
            file=image_file(variant.image, version, variant.platform),
            services=tuple(services_by_image[variant.image]),
        )
        for variant in list_variants(config, sorted(services_by_image))
    )
    references = {image.name: image.references[0] for image in images}
    return PromotionPlan(
        config=config,
        facts=facts,
        directory=facts.bundles_directory / version,
        images=images,
        services=select_promoted_services(config, references, facts.image_configs),
        compression=config.promotion.compression or choose_compression(config.proxima.min_engine),
    )


def choose_compression(min_engine: str) -> Literal["gzip", "zstd"]:
    """What the oldest engine on Proxima can load: zstd layers from 23.0 on, measured on 20.10, 26.1 and 28.5."""
    return "zstd" if parse_version_numbers(min_engine) >= _MIN_ZSTD_ENGINE else "gzip"


def collect_promotion_facts(work: Workspace) -> PromotionFacts:
    """The facts of a promotion; StaleError with the word to run first where the set is stale or untested.

    VerdictError where a deviation that it rests on has expired since.
    """
    config = work.config
    candidate = require_tested_set(work)
    rule_report = reassess_results(config, candidate.evidence.rules, datetime.date.today())
    rule_report.raise_if_failed()
    return PromotionFacts(
        version=work.version,
        moving_tags=_moving_tags(work),
        commit=work.git.commit,
        dirty=work.git.is_dirty,
        source=config.project.source or _public_remote(work.git.remote_url),
        epoch=work.git.commit_time,
        changes=_collect_changes(work),
        set_key=candidate.key,
        evidence=candidate.evidence,
        evidence_directory=work.evidence.directory(candidate.key.digest),
        records=candidate.records,
        image_configs=candidate.image_configs,
        rules=(*rule_report.results, *check_promotion(work.git)),
        deviations=rule_report.used_deviations,
        bundles_directory=work.bundles,
    )


def _moving_tags(work: Workspace) -> tuple[str, ...]:
    """The tags beside the version's own that a release gives its images, by what is tagged in the repository now."""
    if not work.version.is_release:
        return ()
    tagged_versions = (release.version for release in list_releases(work.root, work.config.release.tag))
    return list_floating_tags(Version.parse(work.version.semver), tagged_versions)


def _collect_changes(work: Workspace) -> VersionChanges:
    """The changes since the version before this one."""
    reachable_releases = list_releases(work.root, work.config.release.tag, reachable=True)
    last_release = find_previous_release(Version.parse(work.version.semver), reachable_releases)
    return VersionChanges(
        version=work.version.semver,
        date=work.git.commit_date,
        previous=str(last_release.version) if last_release else "",
        commits=list_commits_since(work.root, last_release.tag if last_release else ""),
        source_url=work.config.project.source or _public_remote(work.git.remote_url),
    )


def _public_remote(remote: str) -> str:
    """A remote that others can reach, too; a path on this machine is nobody else's business."""
    host, colon, _ = remote.partition(":")
    return remote if colon and "/" not in host and host != "file" else ""
