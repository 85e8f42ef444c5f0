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
from lyra_tasks.bundle import layout
from lyra_tasks.bundle.checksums import write_checksums
from lyra_tasks.bundle.contents import archive_annotations, documents, json_text, manifest_of, page_of
from lyra_tasks.bundle.described import described, version_before
from lyra_tasks.bundle.difference import difference
from lyra_tasks.bundle.manifest import BundledImage, ImageLayer, Manifest, write_document
from lyra_tasks.bundle.packing import packed
from lyra_tasks.bundle.plan import PlannedArchive, PromotionPlan
from lyra_tasks.bundle.read import read_index, read_manifest
from lyra_tasks.bundle.reported import documents_of_bundle, previous_document
from lyra_tasks.bundle.sbom import from_tool, image_packages, sbom
from lyra_tasks.bundle.signature import sign, signing_key
from lyra_tasks.bundle.staging import free_bytes, publish, staging, sweep_staging, warn_if_open
from lyra_tasks.bundle.versions import enter
from lyra_tasks.errors import ImmutableError
from lyra_tasks.files import copy_folder, sync_file, write_file
from lyra_tasks.images.archive import write_archive
from lyra_tasks.images.cache import LayerCache
from lyra_tasks.images.check import check_archive
from lyra_tasks.images.pack import PackedImage
from lyra_tasks.records.documents import Documents
from lyra_tasks.records.evidence import CHECKS, LOGS
from lyra_tasks.records.journal import Entry
from lyra_tasks.rules.catalogue import COMMITTED
from lyra_tasks.run import locked

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_LOCK = ".lock"
_PATIENCE = 600.0  # seconds that a promotion waits for another one in the same directory
_LATER = {"promoting", "promoted", "packed"}


@dataclass(frozen=True)
class Promotion:
    """A bundle that is in place; `made` is False where it was there already, with the same digests."""

    folder: Path
    manifest: Manifest
    made: bool
    removed_snapshots: tuple[str, ...] = ()


def run(plan: PromotionPlan, work: Workspace, page: Callable[[Documents], str]) -> Promotion:
    """Make the bundle, or say that it is there; `page` writes its report out of its documents.

    ImmutableError if the version is there with other digests, NoSpaceError on a full disk; in every case no partial
    version is to be seen, and what was there before is as it was.
    """
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    work.mark_live(work.run)
    keep = plan.config.promotion.keep_snapshots
    with locked(plan.folder.parent / _LOCK, what="the promotion directory", wait=_PATIENCE) as lock:
        read_index(plan.folder.parent, plan.config.project.name)  # one that was edited is told before any work
        if plan.folder.exists():
            there = _same(plan)
            sweep_staging(plan.folder.parent)
            removed = enter(plan.folder.parent, there, keep)
            return Promotion(plan.folder, there, made=False, removed_snapshots=removed)
        if plan.config.promotion.sign:
            signing_key(plan.config.promotion.sign, work.root)
        for result in plan.facts.rules:
            if result.rule == COMMITTED and result.outcome == "warning":
                console.warn(f"{result.message} (rule {result.rule})")
        work.journal.append(work.run, "promoting", version=plan.version, set=plan.facts.key.digest)
        _say_room(plan)
        warn_if_open(plan.folder.parent)
        with staging(plan.folder, "promote") as stage:
            manifest = _fill(plan, work, stage, page, lock)
            publish(stage, plan.folder)
        removed = enter(plan.folder.parent, manifest, keep)
    work.journal.append(
        work.run, "promoted", version=plan.version, set=plan.facts.key.digest,
        images={key: image.config_digest for key, image in manifest.keyed.items()}, removed_snapshots=list(removed),
    )  # fmt: skip
    return Promotion(plan.folder, manifest, made=True, removed_snapshots=removed)


def _say_room(plan: PromotionPlan) -> None:
    """What is needed and what is free, before any work; how far layers can be compressed is known only afterwards."""
    needed = 2 * sum(each.record.size for each in plan.archives)
    free = free_bytes(plan.folder.parent)
    text = f"at most {console.size(needed)} needed while it is made, {console.size(free)} free"
    (console.warn if needed > free else console.note)(text)


def _same(plan: PromotionPlan) -> Manifest:
    there = read_manifest(plan.folder)
    promoted = {key: image.config_digest for key, image in there.keyed.items()}
    wanted = {each.key: each.record.config_digest for each in plan.archives}
    if promoted != wanted or there.set_digest != f"sha256:{plan.facts.key.digest}":
        lines = [
            f"{name}: promoted {promoted.get(name, 'not at all')}, now {wanted.get(name, 'not any more')}"
            for name in sorted({*promoted, *wanted})
        ]
        raise ImmutableError(
            f"{plan.version} is promoted already, and is not what it would be now",
            hint="a version never changes; commit, or tag the next version",
            details=tuple(lines),
        )
    return there


def _fill(plan: PromotionPlan, work: Workspace, stage: Path, page: Callable[[Documents], str], lock: int) -> Manifest:
    expected = {diff_id for each in plan.archives for diff_id in each.record.diff_ids}
    cache = LayerCache(work.paths.cache / "layers", work.config.resources.cache, expected)
    (stage / layout.IMAGES).mkdir()
    with packed(plan, work, stage, cache, lock) as held, ThreadPoolExecutor(1) as pool:
        listed = [pool.submit(image_packages, held[each.key], work.paths.cache) for each in plan.archives]
        images = [_archived(plan, each, held[each.key], stage) for each in plan.archives]
        packages = [each.result() for each in listed]
        cache.keep(held[plan.archives[0].key].spool, {each.digest for image in images for each in image.layers})
    manifest = manifest_of(plan, images)
    write_document(stage / layout.MANIFEST, manifest)
    for name, content in documents(plan, manifest, work.root).items():
        write_file(stage / name, content, mode=0o755 if name == layout.RECEIVE else 0o644)
    for archive, image, listing in zip(plan.archives, images, packages, strict=True):
        document = from_tool(stage / image.file, manifest, image) or sbom(manifest, image, listing)
        write_file(stage / layout.sbom_file(archive.key), json_text(document).encode())
    _copy_evidence(plan, work, stage)
    before = version_before(plan.folder.parent, manifest.project, manifest.version)
    changes = difference(before, described(stage)) if before else None
    write_file(stage / layout.SUMMARY, page_of(plan, manifest, changes))
    write_file(stage / layout.PREVIOUS, json_text(previous_document(before)).encode())
    write_file(stage / layout.REPORT, page(documents_of_bundle(stage)).encode())
    write_checksums(stage, {image.file: image.sha256 for image in images})
    if plan.config.promotion.sign:
        sign(stage, signing_key(plan.config.promotion.sign, work.root))
    return manifest


def _archived(plan: PromotionPlan, archive: PlannedArchive, image: PackedImage, stage: Path) -> BundledImage:
    """Write one archive and read it back, every byte of it; what was compressed just now is also unpacked again."""
    path = stage / archive.file
    with console.doing(f"{archive.key}: writing the archive and reading it back"), ThreadPoolExecutor(1) as pool:
        write_archive(path, image, archive.references, archive_annotations(plan), plan.facts.epoch)
        durable = pool.submit(sync_file, path)
        contents = check_archive(path, expected=image.identity, unpack=image.fresh)
        durable.result()
    identity = image.identity
    console.note(f"{archive.key}: {console.size(contents.size)}, read back and whole")
    return BundledImage(
        name=archive.image,
        services=list(archive.services),
        references=list(archive.references),
        file=archive.file,
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
        bases=dict(archive.record.bases),
    )


def _copy_evidence(plan: PromotionPlan, work: Workspace, stage: Path) -> None:
    source = plan.facts.evidence_folder
    for name in (layout.TESTS_XML, layout.TESTS_JSON, layout.METRICS):
        shutil.copyfile(source / Path(name).name, stage / name)
    for folder, name in ((LOGS, layout.LOGS), (CHECKS, layout.CHECKS)):
        copy_folder(source / folder, stage / name)
    # how the set was built and tested; not how it was promoted, so that promoting it again gives the same bytes
    runs = {plan.facts.evidence.run, *(each.record.run for each in plan.archives)}
    entries = [entry for entry in work.journal.entries() if entry.run in runs and not _is_later(entry)]
    lines = [json.dumps(entry.__dict__, sort_keys=True) for entry in entries]
    write_file(stage / layout.JOURNAL, ("\n".join(lines) + "\n").encode())


def _is_later(entry: Entry) -> bool:
    return entry.event in _LATER or (entry.event == "word" and entry.data.get("word") not in {"build", "test"})
