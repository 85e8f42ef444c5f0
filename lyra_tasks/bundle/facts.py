"""What a promotion depends on, found out: only a set that was tested, and is what the files say, goes on."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from lyra_tasks.bundle.plan import PromotionFacts
from lyra_tasks.config.models import Service
from lyra_tasks.engine.inputs import current_inputs
from lyra_tasks.engine.objects import inspect_image
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import StaleError
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.deviations import breaches_of, require_reasons
from lyra_tasks.rules.freshness import image_states, require_current, require_tested, set_key


def gather(work: Workspace) -> PromotionFacts:
    """The facts of a promotion; StaleError with the word to run first where the set is stale or untested."""
    config = work.config
    states = image_states(work.images, work.engine, current_inputs(work), work.platform)
    records = require_current(states)
    services = {name: _inspected(work, name, service, records) for name, service in config.services.items()}
    externals = {name: services[name]["Id"] for name, each in config.services.items() if each.external is not None}
    key = set_key(config, work.root, records, externals)
    evidence = require_tested(work.evidence, key)
    service_configs = {name: found["Config"] for name, found in services.items()}
    return PromotionFacts(
        version=work.version,
        commit=work.git.commit,
        dirty=work.git.dirty,
        source=config.project.source or work.git.remote,
        epoch=work.git.time,
        key=key,
        evidence=evidence,
        evidence_folder=work.evidence.folder(key.digest),
        records=records,
        image_configs=service_configs,
        deviations=require_reasons(config, breaches_of(config, records, service_configs), datetime.date.today()),
        bundles=work.bundles,
    )


def _inspected(work: Workspace, name: str, service: Service, records: Mapping[str, ImageRecord]) -> dict[str, Any]:
    image = records[service.image].engine_id if service.image is not None else str(service.external)
    found = inspect_image(work.engine, image)
    if found is None:
        raise StaleError(f"services.{name}: the engine no longer holds {image}", hint="run `build test` first")
    return found
