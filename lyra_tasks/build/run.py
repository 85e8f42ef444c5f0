"""Running a build plan: one bake, then a record per image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.build.plan import BuildPlan, PlannedImage
from lyra_tasks.engine.buildx import bake, metadata_of
from lyra_tasks.engine.objects import inspect_image, load
from lyra_tasks.engine.ownership import IMAGE, Owner
from lyra_tasks.errors import BuildError
from lyra_tasks.records.images import ImageRecord, ImageStore
from lyra_tasks.rules.deviations import image_breaches, require_reasons

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine


@dataclass(frozen=True)
class Built:
    """A built image, and whether it is another one than before."""

    record: ImageRecord
    changed: bool


def definition_text(plan: BuildPlan) -> str:
    """The bake definition as the file that Buildx reads."""
    return json.dumps(plan.definition, indent=2, sort_keys=True) + "\n"


def run(plan: BuildPlan, *, engine: Engine, owner: Owner, store: ImageStore, folder: Path) -> tuple[Built, ...]:
    """Build all images of `plan` in parallel; the definition, the log and Buildx's metadata are kept in `folder`.

    Raises BuildError with the last lines of the log, VerdictError for an image that Proxima could not hold.
    """
    definition = folder / "bake.json"
    definition.write_text(definition_text(plan))
    (folder / "logs").mkdir(exist_ok=True)
    call = partial(
        bake,
        engine,
        definition,
        log=folder / "logs" / "build.log",
        epoch=plan.facts.epoch,
        masked=_secret_values(plan),
        builder=plan.facts.builder,
    )
    if plan.first:
        owner.intend_images(engine, list(plan.first.values()))
        call(metadata=folder / "bake-bases-metadata.json", targets=tuple(plan.first))
        owner.made(IMAGE, {tag: str(_inspect(engine, tag)["Id"]) for tag in plan.first.values()})
    owner.intend_images(engine, [image.reference for image in plan.images])
    metadata = call(metadata=folder / "bake-metadata.json")
    for image in plan.images:
        _load(engine, image)
    built = tuple(_recorded(plan, image, metadata, engine, owner.run, store) for image in plan.images)
    owner.made(IMAGE, {each.record.reference: each.record.engine_id for each in built})
    records = {each.record.image: each.record for each in built}
    require_reasons(plan.config, image_breaches(plan.config, records), datetime.now(UTC).date())
    return built


def _recorded(
    plan: BuildPlan, image: PlannedImage, metadata: Mapping[str, Any], engine: Engine, run_id: str, store: ImageStore
) -> Built:
    said = metadata_of(metadata, image.target)
    seen = _inspect(engine, image.reference)
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
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs=dict(image.inputs),
        bases=dict(image.bases),
    )
    before = store.read(image.name, image.platform)
    store.write(record)
    return Built(record, before is None or before.config_digest != record.config_digest)


def _load(engine: Engine, image: PlannedImage) -> None:
    """What a builder elsewhere made, carried into the engine."""
    if image.archive:
        try:
            load(engine, Path(image.archive))
        finally:
            Path(image.archive).unlink(missing_ok=True)


def _inspect(engine: Engine, reference: str) -> dict[str, Any]:
    found = inspect_image(engine, reference)
    if found is None:
        raise BuildError(
            f"the build ended well, but the engine does not hold {reference}",
            hint="the builder does not load its results into the engine; use the default builder",
        )
    return found


def _secret_values(plan: BuildPlan) -> tuple[str, ...]:
    """The lines of the secret files, so that a build step that prints one does not put it into the log."""
    values = []
    for path in plan.secrets:
        values += [line.strip() for line in Path(path).read_text(errors="replace").splitlines()]
    return tuple(value for value in values if len(value) >= 4)
