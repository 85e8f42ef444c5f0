"""What a promotion will do, as a value: which tested images travel, under which version and references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.subject import PromotedService, promoted_services
from lyra_tasks.config.changelog import Changes
from lyra_tasks.config.models import Configuration, Deviation
from lyra_tasks.config.platforms import variants
from lyra_tasks.config.version import Version
from lyra_tasks.engine.connect import version_numbers
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.records.evidence import Evidence, RuleResult, SetKey
from lyra_tasks.records.images import ImageRecord

_ZSTD_FROM = (23, 0)


@dataclass(frozen=True)
class PromotionFacts:
    """What was found out before planning.

    `image_configs` are by service name; `epoch` is the commit's time; `moving_tags` are the image tags beside the
    version's own, such as `latest`.
    """

    version: Version
    moving_tags: tuple[str, ...]
    commit: str
    dirty: bool
    source: str
    epoch: int
    changes: Changes
    key: SetKey
    evidence: Evidence
    evidence_folder: Path
    records: Mapping[str, ImageRecord]
    image_configs: Mapping[str, Mapping[str, Any]]
    rules: tuple[RuleResult, ...]
    deviations: tuple[Deviation, ...]
    bundles: Path


@dataclass(frozen=True)
class PlannedArchive:
    """One image that travels, for one platform: its record, its references (the full version's first), its file.

    The references are the same for all its platforms: a node loads those of its own. `key` is what the build is called.
    """

    key: str
    image: str
    record: ImageRecord
    references: tuple[str, ...]
    file: str
    services: tuple[str, ...]


@dataclass(frozen=True)
class PromotionPlan:
    """A bundle to be made at `folder`."""

    config: Configuration
    facts: PromotionFacts
    folder: Path
    archives: tuple[PlannedArchive, ...]
    services: tuple[PromotedService, ...]
    compression: Literal["gzip", "zstd"]

    @property
    def version(self) -> str:
        """The version of the bundle."""
        return self.facts.version.semver


def plan(config: Configuration, facts: PromotionFacts) -> PromotionPlan:
    """Plan the bundle of one tested set: the images of all promoted services, always together."""
    project = config.project.name
    wanted: dict[str, list[str]] = {}
    for name, service in config.services.items():
        if service.promoted:
            wanted.setdefault(str(service.image), []).append(name)
    if not wanted:
        raise ConfigurationError(
            "nothing to promote: no service runs an image of this project",
            hint="give a service an `image`, or set `promote = true` on one",
        )
    version = facts.version.semver
    archives = tuple(
        PlannedArchive(
            key=each.key,
            image=each.image,
            record=facts.records[each.key],
            references=tuple(f"{project}/{each.image}:{tag}" for tag in (facts.version.image_tag, *facts.moving_tags)),
            file=layout.image_file(each.image, version, each.platform),
            services=tuple(wanted[each.image]),
        )
        for each in variants(config, sorted(wanted))
    )
    references = {each.image: each.references[0] for each in archives}
    return PromotionPlan(
        config=config,
        facts=facts,
        folder=facts.bundles / version,
        archives=archives,
        services=promoted_services(config, references, facts.image_configs),
        compression=config.promotion.compression or compression_for(config.proxima.min_engine),
    )


def compression_for(min_engine: str) -> Literal["gzip", "zstd"]:
    """What the oldest engine on Proxima can load: zstd layers from 23.0 on, measured on 20.10, 26.1 and 28.5."""
    return "zstd" if version_numbers(min_engine) >= _ZSTD_FROM else "gzip"
