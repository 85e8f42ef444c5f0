"""Collect the facts of a promotion and plan it: which tested images, under which version and references."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semver import Version

from lyra_tasks.bundle.content.environment import PromotedService, select_promoted_services
from lyra_tasks.bundle.format.layout import archive_file
from lyra_tasks.config.containers import UserIds
from lyra_tasks.config.models import Configuration, Deviation
from lyra_tasks.config.platforms import list_promoted_variants
from lyra_tasks.engine.client.facts import parse_version_numbers
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.records.evidence import Evidence, RuleResult, SetKey
from lyra_tasks.records.images import ImageOrigin, ImageRecord
from lyra_tasks.records.recorded_test import RecordedTest
from lyra_tasks.rules.deviations import assess_checks, reassess_results
from lyra_tasks.rules.freshness import require_fresh_tests, require_tested_set
from lyra_tasks.rules.scanning import read_image_packages
from lyra_tasks.rules.source import check_promotion
from lyra_tasks.rules.vulnerabilities import announce_scan, check_vulnerabilities
from lyra_tasks.versions.changelog import VersionChanges, list_commits_since
from lyra_tasks.versions.version import CheckoutVersion, find_previous_release, list_floating_tags, list_releases
from lyra_tasks.vulnerabilities.document import VulnerabilityScan
from lyra_tasks.vulnerabilities.scan import scan_packages

_MIN_ZSTD_ENGINE = (23, 0)  # the oldest that loads zstd layers, measured on 20.10, 26.1 and 28.5


@dataclass(frozen=True)
class PromotionFacts:
    """The facts of a promotion.

    `records` are by build name, `image_configs` and `user_ids` by service. `recorded` is the test run that was
    judged: every byte that the test used comes from it. `epoch` is the commit time. `moving_tags` are image tags
    besides the version's own, such as `latest`.
    """

    version: CheckoutVersion
    moving_tags: tuple[str, ...]
    commit: str
    dirty: bool
    source: str
    epoch: int
    changes: VersionChanges
    set_key: SetKey
    recorded: RecordedTest
    records: Mapping[str, ImageRecord]
    image_configs: Mapping[str, Mapping[str, Any]]
    user_ids: Mapping[str, UserIds | None]
    rules: tuple[RuleResult, ...]
    deviations: tuple[Deviation, ...]
    vulnerabilities: VulnerabilityScan
    bundles_directory: Path

    @property
    def evidence(self) -> Evidence:
        """Return the evidence of the test run."""
        return self.recorded.evidence


@dataclass(frozen=True)
class PromotedImage:
    """An image to promote, for one platform.

    The first reference has the full version; the references are the same on all platforms.
    """

    build_name: str
    name: str
    record: ImageRecord
    references: tuple[str, ...]
    services: tuple[str, ...]

    @property
    def origin(self) -> ImageOrigin | None:
        """Return where the image comes from, or None for an own image."""
        return self.record.origin


@dataclass(frozen=True)
class PromotionPlan:
    """The bundle to be created in `directory`."""

    config: Configuration
    facts: PromotionFacts
    directory: Path
    images: tuple[PromotedImage, ...]
    services: tuple[PromotedService, ...]
    compression: Literal["gzip", "zstd"]

    @property
    def version(self) -> str:
        """Return the version of the bundle."""
        return self.facts.version.semver

    @property
    def test_doubles(self) -> dict[str, str]:
        """Return the services that only tests run, with the references of their images."""
        return {name: service.image for name, service in self.config.services.items() if not service.is_promoted}

    @property
    def images_by_archive(self) -> dict[str, list[PromotedImage]]:
        """Return the images by the archive of their platform."""
        archives: dict[str, list[PromotedImage]] = {}
        for image in self.images:
            file = archive_file(self.config.project.name, self.version, image.record.platform)
            archives.setdefault(file, []).append(image)
        return dict(sorted(archives.items()))


def plan_promotion(config: Configuration, facts: PromotionFacts) -> PromotionPlan:
    """Plan the bundle of a tested set with the images of all promoted services."""
    project = config.project.name
    services_by_image: dict[str, list[str]] = {}
    for name, service in config.services.items():
        if service.is_promoted:
            services_by_image.setdefault(config.image_name(name), []).append(name)
    if not services_by_image:
        raise ConfigurationError(
            "Nothing to promote: no service is to run on Proxima",
            hint="Add a [services.NAME] table, or remove `promote = false` from one",
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
            services=tuple(services_by_image[variant.image]),
        )
        for variant in list_promoted_variants(config)
    )
    references = {image.name: image.references[0] for image in images}
    supports_zstd = parse_version_numbers(config.proxima.min_engine) >= _MIN_ZSTD_ENGINE
    return PromotionPlan(
        config=config,
        facts=facts,
        directory=facts.bundles_directory / version,
        images=images,
        services=select_promoted_services(config, references, facts.image_configs, facts.user_ids),
        compression=config.promotion.compression or ("zstd" if supports_zstd else "gzip"),
    )


def collect_promotion_facts(work: Workspace) -> PromotionFacts:
    """Collect the facts; raise StaleError for a stale or untested set, CheckFailedError for an expired deviation."""
    config = work.config
    tested_set = require_tested_set(work)
    today = datetime.date.today()
    rule_report = reassess_results(config, tested_set.evidence.rules, today)
    rule_report.raise_if_failed()
    if work.version.is_release:
        require_fresh_tests(work, tested_set.evidence)
    source_report = check_promotion(config, work.git, today)
    source_report.raise_if_failed()
    scan = _scan_promoted_images(work, tested_set.records, today)
    scan_report = assess_checks(config, check_vulnerabilities(scan), today)
    scan_report.raise_if_failed()
    announce_scan(scan)
    source = config.project.source or _public_remote(work.git.remote_url)
    return PromotionFacts(
        version=work.version,
        moving_tags=_moving_tags(work),
        commit=work.git.commit,
        dirty=work.git.is_dirty,
        source=source,
        epoch=work.git.commit_time,
        changes=_collect_changes(work, source),
        set_key=tested_set.key,
        recorded=tested_set.recorded,
        records=tested_set.records,
        image_configs=tested_set.image_configs,
        user_ids=tested_set.user_ids,
        rules=(*rule_report.results, *source_report.results, *scan_report.results),
        deviations=(*rule_report.used_deviations, *source_report.used_deviations, *scan_report.used_deviations),
        vulnerabilities=scan,
        bundles_directory=work.bundles,
    )


def _scan_promoted_images(
    work: Workspace, records: Mapping[str, ImageRecord], today: datetime.date
) -> VulnerabilityScan:
    """Look the packages of all images of the bundle up, if the project wants that."""
    promoted = {variant.key: records[variant.key] for variant in list_promoted_variants(work.config)}
    packages = read_image_packages(work, promoted) if work.config.scan else {}
    return scan_packages(packages, work.config.scan, work.root, today)


def _moving_tags(work: Workspace) -> tuple[str, ...]:
    """Return the floating tags of a release, such as `1.2`, which depend on the other releases."""
    if not work.version.is_release:
        return ()
    tagged_versions = (release.version for release in list_releases(work.root, work.config.release.tag))
    return list_floating_tags(Version.parse(work.version.semver), tagged_versions)


def _collect_changes(work: Workspace, source: str) -> VersionChanges:
    """Collect the commits since the previous release."""
    reachable_releases = list_releases(work.root, work.config.release.tag, reachable=True)
    previous = find_previous_release(Version.parse(work.version.semver), reachable_releases)
    return VersionChanges(
        version=work.version.semver,
        date=work.git.commit_date,
        previous=str(previous.version) if previous else "",
        commits=list_commits_since(work.root, previous.tag if previous else ""),
        source_url=source,
    )


def _public_remote(remote: str) -> str:
    """Return a remote that others can reach, or nothing for a path on this machine."""
    host, colon, _ = remote.partition(":")
    return remote if colon and "/" not in host and host != "file" else ""
