"""Run a build plan: one bake, then a record for each image."""

from __future__ import annotations

import datetime
import json
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.builds.facts import collect_build_facts
from lyra_tasks.builds.plan import BuildPlan, PlannedImage, plan_build
from lyra_tasks.config.platforms import Variant, list_variants
from lyra_tasks.dockerfile.input_hashes import ImageInputs, scan_contexts
from lyra_tasks.engine.bases.inputs import hash_current_inputs
from lyra_tasks.engine.bases.materials import build_prerequisites, inspect_built_image, read_secret_lines
from lyra_tasks.engine.buildx.bake import bake_targets, select_target_metadata
from lyra_tasks.engine.buildx.contexts import escape_bake_definition
from lyra_tasks.engine.objects.containers import inspect_image, load_image_archive
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import BuildError, StaleError
from lyra_tasks.images.third_party.prepare import prepare_third_party_images
from lyra_tasks.lab.admission import count_parallel_builds, list_reservations
from lyra_tasks.lab.build_slots import find_slots_directory, hold_build_slots
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.evidence import BUILD_LOG, LOGS_DIRECTORY
from lyra_tasks.records.images import ImageRecord, ImageStore
from lyra_tasks.redaction import redact
from lyra_tasks.rules.deviations import enforce_rules
from lyra_tasks.rules.freshness import compare_images
from lyra_tasks.rules.images import check_image_record
from lyra_tasks.rules.secrets import redacted_values
from lyra_tasks.versions.git import SHORT_ID_LENGTH, read_head

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_MAX_WORKERS = 4  # each waits for the engine and the disk


@dataclass(frozen=True)
class BuildResult:
    """A built image, its variant key, and whether it differs from the previous build."""

    key: str
    record: ImageRecord
    is_new: bool


def render_bake_definition(plan: BuildPlan) -> str:
    """Render the bake definition with declared secrets redacted."""
    return escape_bake_definition(redact(_dump_definition(plan), _redacted_values(plan)))


def _redacted_values(plan: BuildPlan) -> tuple[str, ...]:
    return redacted_values(plan.config, Path(plan.facts.materials.root))


def _dump_definition(plan: BuildPlan) -> str:
    return json.dumps(plan.definition, indent=2, sort_keys=True) + "\n"


def run_build(
    plan: BuildPlan,
    *,
    engine: Engine,
    owner: Owner,
    store: ImageStore,
    directory: Path,
    slots: Path,
    meanwhile: Callable[[], None] = lambda: None,
) -> tuple[BuildResult, ...]:
    """Build all images that are not current, as many at once as the `slots` of the engine allow.

    Definition, log and Buildx's metadata stay in `directory`. `meanwhile` runs in the background while they are built.
    """
    with ThreadPoolExecutor(_MAX_WORKERS) as pool:
        current = [result for result in pool.map(partial(_find_current, plan, engine, store), plan.images) if result]
    by_key = {result.key: result for result in current}
    images = [image for image in plan.images if image.key not in by_key]
    if images:
        by_key |= _build_images(
            plan, images, engine=engine, owner=owner, store=store, directory=directory, slots=slots, meanwhile=meanwhile
        )
    results = tuple(by_key[image.key] for image in plan.images)
    checks = [
        check for result in results for check in check_image_record(result.key, result.record, plan.config.proxima)
    ]
    enforce_rules(plan.config, checks, datetime.date.today())
    return results


def _find_current(plan: BuildPlan, engine: Engine, store: ImageStore, image: PlannedImage) -> BuildResult | None:
    """Return the recorded result of an image if a build of it would change nothing, else None."""
    record = store.read(image.name, image.platform) if image.definition else None
    if record is None or record.inputs != dict(image.inputs):
        return None
    if (record.definition, record.engine) != (image.definition, engine.facts.id):
        return None
    engine_image = inspect_image(engine, record.reference)
    if engine_image is None or engine_image["Id"] != record.image_id:
        return None
    if (record.version, record.dirty) != (plan.facts.version, plan.facts.is_dirty):
        # The same image of another version keeps its reference: whoever lists images sees no second one.
        record = record.model_copy(update={"version": plan.facts.version, "dirty": plan.facts.is_dirty})
        store.write(record)
    return BuildResult(image.key, record, is_new=False)


def _build_images(
    plan: BuildPlan,
    images: Sequence[PlannedImage],
    *,
    engine: Engine,
    owner: Owner,
    store: ImageStore,
    directory: Path,
    slots: Path,
    meanwhile: Callable[[], None],
) -> dict[str, BuildResult]:
    """Build images and return the results by key."""
    definition = directory / "bake.json"
    definition.write_text(escape_bake_definition(_dump_definition(plan)))
    (directory / LOGS_DIRECTORY).mkdir(exist_ok=True)
    run_bake = partial(
        bake_targets,
        engine,
        definition,
        log=directory / LOGS_DIRECTORY / BUILD_LOG,
        epoch=plan.facts.source_date_epoch,
        redacted_values=(*read_secret_lines(plan.secrets), *_redacted_values(plan)),
        builder=plan.facts.builder,
        sources=plan.facts.materials.sources,
    )
    bases_metadata = directory / "bake-bases-metadata.json"
    targets = tuple(image.target for image in images)
    capacity = engine.facts.cpus * plan.config.resources.host_share
    holder = f"{plan.config.project.name} (pid {os.getpid()})"
    try:
        available = count_parallel_builds(capacity, list_reservations(engine))
        with hold_build_slots(slots, available, len(targets), holder) as handles:
            build_prerequisites(
                engine,
                owner,
                plan.base_targets,
                lambda targets: run_bake(metadata=bases_metadata, targets=targets, lock_handles=handles),
            )
            owner.record_image_intents(engine, [image.reference for image in images])
            parallel = len(handles)
            if parallel < len(targets):
                console.info(f"Building {parallel} of {len(targets)} images at once, as many as host_share leaves CPUs")
            metadata: dict[str, Any] = {}
            begin_meanwhile = threading.Thread(target=meanwhile, daemon=True).start
            for start in range(0, len(targets), parallel):
                batch = targets[start : start + parallel]
                file = directory / "bake-metadata.json"
                on_start = begin_meanwhile if start == 0 else lambda: None
                metadata |= run_bake(metadata=file, targets=batch, lock_handles=handles, on_start=on_start)
        _require_same_commit(plan)
    finally:
        # an argument may have the value of a secret; the file that stays must not contain it
        definition.write_text(render_bake_definition(plan))
    for archive in (Path(image.archive) for image in images if image.archive):
        try:
            load_image_archive(engine, archive)
        finally:
            archive.unlink(missing_ok=True)
    record_image = partial(_record_image, plan, metadata=metadata, engine=engine, run_id=owner.run, store=store)
    with ThreadPoolExecutor(_MAX_WORKERS) as pool:
        results = {result.key: result for result in pool.map(record_image, images)}
    owner.record_created_images(
        engine, {result.record.reference: result.record.image_id for result in results.values()}
    )
    store.remove_unused_files()
    return results


def _require_same_commit(plan: BuildPlan) -> None:
    """Raise StaleError if HEAD moved during the build; images of the development environment name no commit."""
    commit = plan.facts.commit
    if commit and (head := read_head(Path(plan.facts.materials.root))) != commit:
        raise StaleError(
            f"HEAD moved from {commit[:SHORT_ID_LENGTH]} to {head[:SHORT_ID_LENGTH]} during the build",
            hint="Run `build` again",
        )


def _record_image(
    plan: BuildPlan, image: PlannedImage, *, metadata: Mapping[str, Any], engine: Engine, run_id: str, store: ImageStore
) -> BuildResult:
    image_metadata = select_target_metadata(metadata, image.target)
    engine_image = inspect_built_image(engine, image.reference)
    is_containerd = engine.facts.store == "containerd"
    built_digest = str(image_metadata.get("containerimage.digest", ""))
    config_digest = str(
        image_metadata.get("containerimage.config.digest") or ("" if is_containerd else engine_image["Id"])
    )
    if not config_digest or (is_containerd and engine_image["Id"] != built_digest):
        raise BuildError(
            f"{image.reference} is {engine_image['Id']} in the engine, but Buildx built {built_digest}",
            hint="Rerun `build`; another build of the same reference may have run at the same time",
        )
    record = ImageRecord(
        image=image.name,
        reference=image.reference,
        engine=engine.facts.id,
        image_id=engine_image["Id"],
        config_digest=config_digest,
        manifest_digest=built_digest if is_containerd else None,
        diff_ids=list(engine_image["RootFS"].get("Layers") or ()),
        platform=image.platform,
        size=int(engine_image["Size"]),
        commit=plan.facts.commit,
        dirty=plan.facts.is_dirty,
        version=plan.facts.version,
        run=run_id,
        built_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        inputs=dict(image.inputs),
        bases=dict(image.bases),
        definition=image.definition,
    )
    previous = store.read(image.name, image.platform)
    values = _redacted_values(plan)
    store.write(record, {redact(path, values): digest for path, digest in image.inputs.source.digests.items()})
    return BuildResult(image.key, record, previous is None or previous.config_digest != record.config_digest)


def fetch_images(work: Workspace, variants: Sequence[Variant]) -> tuple[BuildResult, ...]:
    """Lock and fetch the third-party images that the engine lacks, and return the results of all."""
    if not variants:
        return ()  # without an engine
    previous = {variant.key: work.images.read(variant.image, variant.platform) for variant in variants}
    records = prepare_third_party_images(work, variants)
    checks = [
        check for key, record in records.items() for check in check_image_record(key, record, work.config.proxima)
    ]
    enforce_rules(work.config, checks, datetime.date.today())
    return tuple(
        BuildResult(key, record, is_new=(old := previous[key]) is None or old.config_digest != record.config_digest)
        for key, record in records.items()
    )


def build_dev_images(work: Workspace, only: Collection[str] | None = None) -> dict[str, ImageRecord]:
    """Build the stale images of a profile and return the records of all its images by name.

    Of a running environment, `only` are the images to build; others stay as they are. Their tag `dev-CHECKOUT` keeps
    two checkouts apart, and their records are separate from those that are tested.
    Third-party images are the tested ones.
    """
    store = ImageStore(DevStore(work.paths.state).images_directory)
    fetched = {record.image: record for record in prepare_third_party_images(work).values()}
    if not work.config.images:
        return fetched
    variants = {variant.key: variant for variant in list_variants(work.config, work.config.images)}
    engine, snapshots = work.engine, scan_contexts(work.root, work.config.images)
    states = compare_images(store, engine, _without_commit(hash_current_inputs(work, snapshots)))
    states = tuple(state for state in states if only is None or variants[state.name].image in only)
    stale = [variants[state.name] for state in states if state.problem]
    for state in states:
        console.info(f"image {state.name}: {state.problem or 'unchanged'}")
    if stale:
        build_facts = collect_build_facts(work, stale, snapshots)
        # a new commit alone must not replace images and containers
        build_facts = replace(
            build_facts,
            image_tag=f"dev-{work.paths.project_id.rpartition('-')[2]}",
            commit="",
            source_date_epoch=0,
            inputs=_without_commit(build_facts.inputs),
        )
        run_build(
            plan_build(work.config, build_facts, stale),
            engine=engine,
            owner=work.owner,
            store=store,
            directory=work.run_directory,
            slots=find_slots_directory(work),
        )
    records = {variant.image: store.read(variant.image, variant.platform) for variant in variants.values()}
    return fetched | {name: record for name, record in records.items() if record is not None}


def _without_commit(inputs: Mapping[str, ImageInputs]) -> dict[str, ImageInputs]:
    return {
        name: replace(kinds, hashes={kind: value for kind, value in kinds.items() if kind != "commit"})
        for name, kinds in inputs.items()
    }
