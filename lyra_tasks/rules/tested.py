"""The set as it stands in the engine, if it is what the files say and its last test passed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks.config.models import Service
from lyra_tasks.config.platforms import own_platform, platforms_of, variants
from lyra_tasks.engine.inputs import current_inputs
from lyra_tasks.engine.objects import inspect_image
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import StaleError
from lyra_tasks.records.evidence import Evidence, SetKey
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.freshness import image_states, require_current, require_tested, set_key


@dataclass(frozen=True)
class TestedSet:
    """A set whose evidence passed; `records` are by build, `image_configs` the images' configurations by service.

    Of an image for several platforms it is the configuration of the engine's own.
    """

    __test__ = False

    key: SetKey
    evidence: Evidence
    records: Mapping[str, ImageRecord]
    image_configs: Mapping[str, Mapping[str, Any]]


def tested_set(work: Workspace) -> TestedSet:
    """The tested set of the checkout; StaleError with the word to run first where it is stale or untested."""
    config = work.config
    records = require_current(image_states(work.images, work.engine, current_inputs(work)))
    services = {name: _inspected(work, name, service, records) for name, service in config.services.items()}
    externals = {name: services[name]["Id"] for name, each in config.services.items() if each.external is not None}
    key = set_key(work, records, externals)
    evidence = require_tested(work.evidence, key)
    return TestedSet(key, evidence, records, {name: found["Config"] for name, found in services.items()})


def _inspected(work: Workspace, name: str, service: Service, records: Mapping[str, ImageRecord]) -> dict[str, Any]:
    image = str(service.external)
    if service.image is not None:
        platform = own_platform(platforms_of(work.config, service.image), work.engine.facts.platform)
        (build,) = (each for each in variants(work.config, [service.image]) if each.platform == platform)
        image = records[build.key].engine_id
    found = inspect_image(work.engine, image)
    if found is None:
        raise StaleError(f"services.{name}: the engine no longer holds {image}", hint="run `build test` first")
    return found
