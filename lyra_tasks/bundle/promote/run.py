"""Create a bundle: write it beside the other versions, read it back, rename it and add it to the index."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.content.sbom_process import SbomProcess
from lyra_tasks.bundle.contradictions import find_bundle_contradictions
from lyra_tasks.bundle.diff import compare_bundles
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import hash_bundle, write_checksums
from lyra_tasks.bundle.format.documents import (
    BundleDocuments,
    previous_document,
    read_bundle_documents,
    read_previous_bundle,
    read_report_documents,
)
from lyra_tasks.bundle.format.index import BundleStore, lock_bundles, register_version
from lyra_tasks.bundle.format.manifest import (
    Bundle,
    BundledArchive,
    BundledImage,
    ImageLayer,
    Manifest,
    OtherFormatError,
    encode_document,
    open_bundle,
)
from lyra_tasks.bundle.format.signature import find_signing_key, sign_checksums
from lyra_tasks.bundle.format.staging import (
    publish_directory,
    remove_stale_staging,
    staging_directory,
    warn_if_world_writable,
    write_staged,
)
from lyra_tasks.bundle.promote.contents import (
    archive_annotations,
    build_manifest,
    build_provenance,
    render_documents,
    render_operator_page,
)
from lyra_tasks.bundle.promote.images import pack_images
from lyra_tasks.bundle.promote.plan import PromotedImage, PromotionPlan
from lyra_tasks.bundle.promote.sboms import write_sboms
from lyra_tasks.errors import BundleError, ImmutableError
from lyra_tasks.files import format_json, sync_file
from lyra_tasks.images.archive.verify import ExpectedImage, verify_archive
from lyra_tasks.images.archive.write import ArchiveEntry, write_archive
from lyra_tasks.images.stream.cache import LayerCache
from lyra_tasks.images.stream.pack import PackedImage
from lyra_tasks.records.documents import ReportDocuments
from lyra_tasks.records.journal_entry import JournalEntry
from lyra_tasks.rules.catalogue import SOURCE_COMMITTED

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_PROMOTION_EVENTS = {"promoting", "promoted", "packed"}


@dataclass(frozen=True)
class PromotionResult:
    """A promoted bundle; `is_new` is False if it already existed with the same digests."""

    bundle: Bundle
    is_new: bool
    removed_snapshots: tuple[str, ...]


def create_bundle(
    plan: PromotionPlan, work: Workspace, render_report: Callable[[ReportDocuments], str], sboms: SbomProcess
) -> PromotionResult:
    """Create the bundle unless it exists; `render_report` renders its report.

    An incomplete version is never visible, and on errors all other versions stay unchanged. Raises ImmutableError if
    the version exists with other digests.
    """
    directory, config = plan.facts.bundles_directory, plan.config.promotion
    directory.mkdir(parents=True, exist_ok=True)
    work.mark_active(work.run)
    with plan.facts.recorded.hold(), lock_bundles(directory) as lock:
        store = BundleStore(directory)
        store.index  # noqa: B018  # read under the lock, so that an edited index is reported before any work
        if plan.directory.exists():
            existing = _require_same_content(plan)
            remove_stale_staging(directory)
            removed_snapshots = register_version(store, existing.manifest, config.keep_snapshots)
            return PromotionResult(existing, is_new=False, removed_snapshots=removed_snapshots)
        if config.sign:
            find_signing_key(config.sign, work.root)
        for result in plan.facts.rules:
            if result.rule == SOURCE_COMMITTED and result.outcome == "warning":
                console.warn(f"{result.message} (rule {result.rule})")
        work.journal.append(work.run, "promoting", version=plan.version, set=plan.facts.set_key.digest)
        _report_disk_space(plan)
        warn_if_world_writable(directory)
        with staging_directory(plan.directory, "promote") as stage:
            manifest = _write_images(plan, work, stage, lock, sboms)
            previous = read_previous_bundle(store, manifest.version)
            _write_documents(plan, work, previous, Bundle(stage, manifest), render_report)
            publish_directory(stage, plan.directory)
        removed_snapshots = register_version(store, manifest, config.keep_snapshots)
    digests = {build_name: image.config_digest for build_name, image in manifest.images_by_build.items()}
    work.journal.append(
        work.run, "promoted", version=plan.version, set=plan.facts.set_key.digest,
        images=digests, removed_snapshots=list(removed_snapshots),
    )  # fmt: skip
    return PromotionResult(Bundle(plan.directory, manifest), is_new=True, removed_snapshots=removed_snapshots)


def _report_disk_space(plan: PromotionPlan) -> None:
    """Report the space needed at most; how well the layers compress is known only afterwards."""
    required_bytes = 2 * sum(image.record.size for image in plan.images)
    free = shutil.disk_usage(plan.facts.bundles_directory).free
    message = f"At most {console.format_bytes(required_bytes)} needed for the bundle, {console.format_bytes(free)} free"
    (console.warn if required_bytes > free else console.info)(message)


def _require_same_content(plan: PromotionPlan) -> Bundle:
    try:
        existing = open_bundle(plan.directory)
    except OtherFormatError as error:
        raise ImmutableError(
            f"{plan.version} is already promoted: {error.message}",
            hint=f"Tag the next version, or remove that one: `bundle.remove {plan.version}`",
        ) from error
    manifest = existing.manifest
    promoted_digests = {name: image.config_digest for name, image in manifest.images_by_build.items()}
    current_digests = {image.build_name: image.record.config_digest for image in plan.images}
    if promoted_digests != current_digests or manifest.set_digest != f"sha256:{plan.facts.set_key.digest}":
        differences = [
            f"{name}: promoted {promoted_digests.get(name, 'nothing')}, now {current_digests.get(name, 'nothing')}"
            for name in sorted({*promoted_digests, *current_digests})
            if promoted_digests.get(name) != current_digests.get(name)
        ] or ["the images are the same, but not the services, checks, configs or rules that they were tested with"]
        raise ImmutableError(
            f"{plan.version} is already promoted and the content differs",
            hint="Versions are immutable: commit the changes, or tag the next version",
            details=tuple(differences),
        )
    return existing


def _write_images(plan: PromotionPlan, work: Workspace, stage: Path, lock: int, sboms: SbomProcess) -> Manifest:
    """Write the archive for each platform and the SBOM of each image, and return the manifest."""
    expected = dict.fromkeys(diff_id for image in plan.images for diff_id in image.record.diff_ids)
    cache = LayerCache(work.paths.cache / "layers", work.config.resources.cache, expected)
    (stage / layout.IMAGES_DIRECTORY).mkdir()
    with pack_images(plan, work, stage, cache, lock) as packed_images:
        images = {image.build_name: _describe_image(image, packed_images[image.build_name]) for image in plan.images}
        with write_sboms(plan, work, stage, images, packed_images, sboms):
            archives = [
                _write_archive(plan, [(image, packed_images[image.build_name]) for image in archived], stage / file)
                for file, archived in plan.images_by_archive.items()
            ]
        spool = packed_images[plan.images[0].build_name].spool
        cache.save_pending(spool, {layer.digest for image in images.values() for layer in image.layers})
        return build_manifest(plan, archives, list(images.values()))


def _write_documents(
    plan: PromotionPlan,
    work: Workspace,
    previous: BundleDocuments | None,
    bundle: Bundle,
    render_report: Callable[[ReportDocuments], str],
) -> None:
    """Write all other files; the report, the provenance and the checksums are last: they depend on the others."""
    stage, manifest = bundle.directory, bundle.manifest
    write_staged(stage / layout.MANIFEST_FILE, encode_document(manifest))
    for name, content in render_documents(plan, manifest).items():
        write_staged(stage / name, content, mode=0o755 if name == layout.RECEIVE_SCRIPT else 0o644)
    _copy_evidence(plan, work, stage)
    diff = compare_bundles(previous, read_bundle_documents(bundle)) if previous else None
    write_staged(stage / layout.SUMMARY_FILE, render_operator_page(plan, manifest, diff))
    changes = [asdict(change) for change in diff.changes] if diff else []
    write_staged(stage / layout.PREVIOUS_FILE, format_json(previous_document(previous, changes)).encode())
    write_staged(stage / layout.REPORT_FILE, render_report(read_report_documents(bundle)).encode())
    sums = _write_digests(plan, bundle)
    problems = find_bundle_contradictions(stage, manifest, sums)
    if problems:
        details = tuple(f"{name}: {problem}" for name, problem in sorted(problems.items()))
        raise BundleError("What was tested contradicts itself", hint="Run `build test` again", details=details)
    if plan.config.promotion.sign:
        sign_checksums(stage, find_signing_key(plan.config.promotion.sign, work.root))


def _write_digests(plan: PromotionPlan, bundle: Bundle) -> dict[str, str]:
    """Write the digests of all documents into the provenance, then the checksums, and return those."""
    stage, manifest = bundle.directory, bundle.manifest
    archives = {archive.file: archive.sha256 for archive in manifest.archives}
    digests = hash_bundle(stage, archives)
    del digests[layout.PROVENANCE_FILE]
    documents = {name: digest for name, digest in digests.items() if name not in archives}
    provenance = build_provenance(plan, manifest, documents)
    write_staged(stage / layout.PROVENANCE_FILE, format_json(provenance).encode())
    return write_checksums(stage, digests)


def _write_archive(
    plan: PromotionPlan, images: Sequence[tuple[PromotedImage, PackedImage]], path: Path
) -> BundledArchive:
    """Write an archive and read it back; layers that were compressed just now are also unpacked again."""
    entries = [
        ArchiveEntry(packed_image, image.references, archive_annotations(plan, image)) for image, packed_image in images
    ]
    expected = [ExpectedImage(entry.image.identity, entry.references) for entry in entries]
    unverified = {digest for entry in entries for digest in entry.image.unverified}
    file, platform = f"{layout.IMAGES_DIRECTORY}/{path.name}", images[0][1].identity.platform
    with console.progress(f"{path.name}: writing and verifying the archive"), ThreadPoolExecutor(1) as pool:
        write_archive(path, entries, plan.facts.epoch)
        sync_future = pool.submit(sync_file, path)
        contents = verify_archive(path, expected=expected, unpack=unverified)
        sync_future.result()
    console.info(f"{file}: {console.format_bytes(contents.size)}, verified")
    return BundledArchive(platform=platform, file=file, sha256=contents.sha256, size=contents.size)


def _describe_image(image: PromotedImage, packed_image: PackedImage) -> BundledImage:
    identity = packed_image.identity
    return BundledImage(
        name=image.name,
        services=list(image.services),
        references=list(image.references),
        platform=identity.platform,
        origin=image.origin,
        config_digest=identity.config_digest,
        manifest_digest=identity.manifest_digest,
        diff_ids=list(identity.diff_ids),
        layers=[ImageLayer.model_validate(layer, from_attributes=True) for layer in identity.layers],
        bases=dict(image.record.bases),
    )


def _copy_evidence(plan: PromotionPlan, work: Workspace, stage: Path) -> None:
    for name in plan.facts.recorded.digests:
        plan.facts.recorded.copy_file(name, stage / layout.EVIDENCE_DIRECTORY / name)
    # Without the promotion itself, so that promoting the set again creates the same bytes.
    runs = {plan.facts.evidence.run, *(image.record.run for image in plan.images)}
    entries = [entry for entry in work.journal.all_entries(runs) if not _is_promotion_entry(entry)]
    lines = [json.dumps(entry.__dict__, sort_keys=True) for entry in entries]
    write_staged(stage / layout.JOURNAL_FILE, ("\n".join(lines) + "\n").encode())


def _is_promotion_entry(entry: JournalEntry) -> bool:
    return entry.event in _PROMOTION_EVENTS or (
        entry.event == "task" and entry.data.get("task") not in {"build", "test"}
    )
