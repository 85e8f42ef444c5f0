"""Running a build plan: one bake, then a record per image."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.build.plan import BuildPlan, PlannedImage
from lyra_tasks.engine.buildx import bake, literal, metadata_of
from lyra_tasks.engine.materials import build_bases, built_image, secret_lines
from lyra_tasks.engine.objects import load
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.engine.space import shrink_cache
from lyra_tasks.errors import BuildError
from lyra_tasks.records.evidence import BUILD_LOG, LOGS
from lyra_tasks.records.images import ImageRecord, ImageStore
from lyra_tasks.rules.declared import blotted_out, without
from lyra_tasks.rules.deviations import require_reasons
from lyra_tasks.rules.images import record_looks

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine


_AT_ONCE = 4  # records, each of which waits for the engine and for the disk


@dataclass(frozen=True)
class Built:
    """A built image, what the build is called (`config.platforms`), and whether it is another one than before."""

    key: str
    record: ImageRecord
    changed: bool


def definition_text(plan: BuildPlan) -> str:
    """The bake definition that Buildx reads, as it is shown and kept: what is declared as a secret is blotted out."""
    return literal(without(_definition(plan), blotted_out(plan.config, Path(plan.facts.materials.root))))


def _definition(plan: BuildPlan) -> str:
    return json.dumps(plan.definition, indent=2, sort_keys=True) + "\n"


def run(plan: BuildPlan, *, engine: Engine, owner: Owner, store: ImageStore, folder: Path) -> tuple[Built, ...]:
    """Build all images of `plan` in parallel; the definition, the log and Buildx's metadata are kept in `folder`.

    Raises BuildError with the last lines of the log, VerdictError for an image that Proxima could not hold.
    """
    definition = folder / "bake.json"
    definition.write_text(literal(_definition(plan)))
    (folder / LOGS).mkdir(exist_ok=True)
    call = partial(
        bake,
        engine,
        definition,
        log=folder / LOGS / BUILD_LOG,
        epoch=plan.facts.epoch,
        masked=(*secret_lines(plan.secrets), *blotted_out(plan.config, Path(plan.facts.materials.root))),
        builder=plan.facts.builder,
    )
    bases = folder / "bake-bases-metadata.json"
    try:
        build_bases(engine, owner, plan.first, lambda targets: call(metadata=bases, targets=targets))
        owner.intend_images(engine, [image.reference for image in plan.images])
        metadata = call(metadata=folder / "bake-metadata.json")
    finally:
        # an argument may be what is a secret elsewhere; the file that stays does not hold it
        definition.write_text(definition_text(plan))
    for image in plan.images:
        _load(engine, image)
    recorded = partial(_recorded, plan, metadata=metadata, engine=engine, run_id=owner.run, store=store)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        built = tuple(pool.map(recorded, plan.images))
    owner.made_images(engine, {each.record.reference: each.record.engine_id for each in built})
    shrink_cache(engine, plan.config.resources.cache)
    looks = [look for each in built for look in record_looks(each.key, each.record, plan.config.proxima)]
    require_reasons(plan.config, looks, datetime.date.today())
    return built


def _recorded(
    plan: BuildPlan, image: PlannedImage, *, metadata: Mapping[str, Any], engine: Engine, run_id: str, store: ImageStore
) -> Built:
    said = metadata_of(metadata, image.target)
    seen = built_image(engine, image.reference)
    containerd = engine.facts.store == "containerd"
    config_digest = str(said.get("containerimage.config.digest") or ("" if containerd else seen["Id"]))
    if not config_digest or (containerd and seen["Id"] != said["containerimage.digest"]):
        raise BuildError(
            f"the engine holds {seen['Id']} as {image.reference}, Buildx says it built {said['containerimage.digest']}",
            hint="another build of the same reference ran at the same time? build again",
        )
    record = ImageRecord(
        image=image.name,
        reference=image.reference,
        engine=engine.facts.id,
        engine_id=seen["Id"],
        config_digest=config_digest,
        manifest_digest=str(said["containerimage.digest"]) if containerd else None,
        diff_ids=list(seen["RootFS"]["Layers"]),
        platform=image.platform,
        size=int(seen["Size"]),
        commit=plan.facts.commit,
        dirty=plan.facts.dirty,
        version=plan.facts.version,
        run=run_id,
        built_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        inputs=dict(image.inputs),
        bases=dict(image.bases),
    )
    before = store.read(image.name, image.platform)
    store.write(record)
    return Built(image.key, record, before is None or before.config_digest != record.config_digest)


def _load(engine: Engine, image: PlannedImage) -> None:
    """What a builder elsewhere made, carried into the engine."""
    if image.archive:
        try:
            load(engine, Path(image.archive))
        finally:
            Path(image.archive).unlink(missing_ok=True)
