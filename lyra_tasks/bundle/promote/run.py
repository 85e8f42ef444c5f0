"""Running a promotion: staged beside the other versions, read back, renamed into place, listed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.content.sbom import build_sbom, collect_image_packages, run_syft
from lyra_tasks.bundle.diff import compare_bundles
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import write_checksums
from lyra_tasks.bundle.format.documents import (
    previous_document,
    read_bundle_documents,
    read_previous_bundle,
    read_report_documents,
)
from lyra_tasks.bundle.format.index import read_index, read_manifest, register_version
from lyra_tasks.bundle.format.manifest import BundledImage, ImageLayer, Manifest, write_document
from lyra_tasks.bundle.format.signature import find_signing_key, sign_checksums
from lyra_tasks.bundle.format.staging import (
    free_bytes,
    publish_directory,
    remove_stale_staging,
    staging_directory,
    warn_if_world_writable,
)
from lyra_tasks.bundle.promote.contents import (
    archive_annotations,
    build_manifest,
    format_json,
    render_documents,
    render_operator_page,
)
from lyra_tasks.bundle.promote.images import pack_images
from lyra_tasks.bundle.promote.plan import PromotedImage, PromotionPlan
from lyra_tasks.errors import ImmutableError
from lyra_tasks.files import copy_directory, sync_file, write_file
from lyra_tasks.images.archive.verify import verify_archive
from lyra_tasks.images.archive.write import write_archive
from lyra_tasks.images.stream.cache import LayerCache
from lyra_tasks.images.stream.pack import PackedImage
from lyra_tasks.locks import file_lock
from lyra_tasks.records.documents import ReportDocuments
from lyra_tasks.records.evidence import CHECKS_DIRECTORY, LOGS_DIRECTORY
from lyra_tasks.records.journal import JournalEntry
from lyra_tasks.rules.catalogue import SOURCE_COMMITTED

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_LOCK_FILE = ".lock"
_LOCK_TIMEOUT_S = 600.0  # seconds that a promotion waits for another one in the same directory
_PROMOTION_EVENTS = {"promoting", "promoted", "packed"}


@dataclass(frozen=True)
class PromotionResult:
    """A bundle that is in place; `made` is False where it was there already, with the same digests."""

    directory: Path
    manifest: Manifest
    is_new: bool
    removed_snapshots: tuple[str, ...] = ()


def create_bundle(
    plan: PromotionPlan, work: Workspace, render_report: Callable[[ReportDocuments], str]
) -> PromotionResult:
    """Make the bundle, or say that it is there; `page` writes its report out of its documents.

    ImmutableError if the version is there with other digests, NoSpaceError on a full disk; in every case no partial
    version is to be seen, and what was there before is as it was.
    """
    plan.directory.parent.mkdir(parents=True, exist_ok=True)
    work.mark_active(work.run)
    keep_snapshots = plan.config.promotion.keep_snapshots
    with file_lock(
        plan.directory.parent / _LOCK_FILE, resource="the promotion directory", timeout=_LOCK_TIMEOUT_S
    ) as lock:
        read_index(plan.directory.parent, plan.config.project.name)  # one that was edited is told before any work
        if plan.directory.exists():
            existing = _require_same_content(plan)
            remove_stale_staging(plan.directory.parent)
            removed_snapshots = register_version(plan.directory.parent, existing, keep_snapshots)
            return PromotionResult(plan.directory, existing, is_new=False, removed_snapshots=removed_snapshots)
        if plan.config.promotion.sign:
            find_signing_key(plan.config.promotion.sign, work.root)
        for result in plan.facts.rules:
            if result.rule == SOURCE_COMMITTED and result.outcome == "warning":
                console.warn(f"{result.message} (rule {result.rule})")
        work.journal.append(work.run, "promoting", version=plan.version, set=plan.facts.set_key.digest)
        _report_disk_space(plan)
        warn_if_world_writable(plan.directory.parent)
        with staging_directory(plan.directory, "promote") as stage:
            manifest = _fill_stage(plan, work, stage, render_report, lock)
            publish_directory(stage, plan.directory)
        removed_snapshots = register_version(plan.directory.parent, manifest, keep_snapshots)
    work.journal.append(
        work.run, "promoted", version=plan.version, set=plan.facts.set_key.digest,
        images={key: image.config_digest for key, image in manifest.images_by_build.items()}, removed_snapshots=list(removed_snapshots),
    )  # fmt: skip
    return PromotionResult(plan.directory, manifest, is_new=True, removed_snapshots=removed_snapshots)


def _report_disk_space(plan: PromotionPlan) -> None:
    """What is needed and what is free, before any work; how far layers can be compressed is known only afterwards."""
    required_bytes = 2 * sum(image.record.size for image in plan.images)
    free = free_bytes(plan.directory.parent)
    message = (
        f"at most {console.format_bytes(required_bytes)} needed while it is made, {console.format_bytes(free)} free"
    )
    (console.warn if required_bytes > free else console.info)(message)


def _require_same_content(plan: PromotionPlan) -> Manifest:
    existing = read_manifest(plan.directory)
    promoted_digests = {key: image.config_digest for key, image in existing.images_by_build.items()}
    current_digests = {image.build_name: image.record.config_digest for image in plan.images}
    if promoted_digests != current_digests or existing.set_digest != f"sha256:{plan.facts.set_key.digest}":
        differences = [
            f"{name}: promoted {promoted_digests.get(name, 'not at all')}, now {current_digests.get(name, 'not any more')}"
            for name in sorted({*promoted_digests, *current_digests})
        ]
        raise ImmutableError(
            f"{plan.version} is promoted already, and is not what it would be now",
            hint="a version never changes; commit, or tag the next version",
            details=tuple(differences),
        )
    return existing


def _fill_stage(
    plan: PromotionPlan, work: Workspace, stage: Path, render_report: Callable[[ReportDocuments], str], lock: int
) -> Manifest:
    expected = {diff_id for image in plan.images for diff_id in image.record.diff_ids}
    cache = LayerCache(work.paths.cache / "layers", work.config.resources.cache, expected)
    (stage / layout.IMAGES_DIRECTORY).mkdir()
    with pack_images(plan, work, stage, cache, lock) as packed_images, ThreadPoolExecutor(1) as pool:
        package_futures = [
            pool.submit(collect_image_packages, packed_images[image.build_name], work.paths.cache)
            for image in plan.images
        ]
        images = [_write_image(plan, image, packed_images[image.build_name], stage) for image in plan.images]
        packages = [future.result() for future in package_futures]
        cache.save_pending(
            packed_images[plan.images[0].build_name].spool, {layer.digest for image in images for layer in image.layers}
        )
    manifest = build_manifest(plan, images)
    write_document(stage / layout.MANIFEST_FILE, manifest)
    for name, content in render_documents(plan, manifest, work.root).items():
        write_file(stage / name, content, mode=0o755 if name == layout.RECEIVE_SCRIPT else 0o644)
    for promoted_image, image, image_packages in zip(plan.images, images, packages, strict=True):
        document = run_syft(stage / image.file, manifest, image) or build_sbom(manifest, image, image_packages)
        write_file(stage / layout.sbom_file(promoted_image.build_name), format_json(document).encode())
    _copy_evidence(plan, work, stage)
    previous = read_previous_bundle(plan.directory.parent, manifest.project, manifest.version)
    diff = compare_bundles(previous, read_bundle_documents(stage)) if previous else None
    write_file(stage / layout.SUMMARY_FILE, render_operator_page(plan, manifest, diff))
    write_file(stage / layout.PREVIOUS_FILE, format_json(previous_document(previous)).encode())
    write_file(stage / layout.REPORT_FILE, render_report(read_report_documents(stage)).encode())
    write_checksums(stage, {image.file: image.sha256 for image in images})
    if plan.config.promotion.sign:
        sign_checksums(stage, find_signing_key(plan.config.promotion.sign, work.root))
    return manifest


def _write_image(plan: PromotionPlan, image: PromotedImage, packed_image: PackedImage, stage: Path) -> BundledImage:
    """Write one archive and read it back, every byte of it; what was compressed just now is also unpacked again."""
    path = stage / image.file
    with (
        console.progress(f"{image.build_name}: writing the archive and reading it back"),
        ThreadPoolExecutor(1) as pool,
    ):
        write_archive(path, packed_image, image.references, archive_annotations(plan), plan.facts.epoch)
        sync_future = pool.submit(sync_file, path)
        contents = verify_archive(path, expected=packed_image.identity, unpack=packed_image.unverified)
        sync_future.result()
    identity = packed_image.identity
    console.info(f"{image.build_name}: {console.format_bytes(contents.size)}, read back and whole")
    return BundledImage(
        name=image.name,
        services=list(image.services),
        references=list(image.references),
        file=image.file,
        sha256=contents.sha256,
        size=contents.size,
        platform=identity.platform,
        config_digest=identity.config_digest,
        manifest_digest=identity.manifest_digest,
        diff_ids=list(identity.diff_ids),
        layers=[
            ImageLayer(
                media_type=layer.media_type, digest=layer.digest, size=layer.size, unpacked_size=layer.unpacked_size
            )
            for layer in identity.layers
        ],
        bases=dict(image.record.bases),
    )


def _copy_evidence(plan: PromotionPlan, work: Workspace, stage: Path) -> None:
    source = plan.facts.evidence_directory
    for name in (layout.TESTS_XML_FILE, layout.TESTS_JSON_FILE, layout.METRICS_FILE):
        shutil.copyfile(source / Path(name).name, stage / name)
    for directory, name in ((LOGS_DIRECTORY, layout.LOGS_DIRECTORY), (CHECKS_DIRECTORY, layout.CHECKS_DIRECTORY)):
        copy_directory(source / directory, stage / name)
    # how the set was built and tested; not how it was promoted, so that promoting it again gives the same bytes
    runs = {plan.facts.evidence.run, *(image.record.run for image in plan.images)}
    entries = [entry for entry in work.journal.entries() if entry.run in runs and not _is_promotion_entry(entry)]
    lines = [json.dumps(entry.__dict__, sort_keys=True) for entry in entries]
    write_file(stage / layout.JOURNAL_FILE, ("\n".join(lines) + "\n").encode())


def _is_promotion_entry(entry: JournalEntry) -> bool:
    return entry.event in _PROMOTION_EVENTS or (
        entry.event == "word" and entry.data.get("word") not in {"build", "test"}
    )
