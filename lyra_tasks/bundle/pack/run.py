"""Making a pack: the bundle verified, what travels copied and read back, given its name when it is whole."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.content.receive_script import render_receive_script
from lyra_tasks.bundle.format.checksums import list_bundle_files, write_checksums
from lyra_tasks.bundle.format.index import report_removed_bundle
from lyra_tasks.bundle.format.layout import DOCUMENTS_FILE, IMAGES_DIRECTORY, PACK_FILE, RECEIVE_SCRIPT, SIGNATURE_FILE
from lyra_tasks.bundle.format.manifest import write_document
from lyra_tasks.bundle.format.pack import PackedArchive, PackedDocuments, PackManifest, write_document_archive
from lyra_tasks.bundle.format.signature import find_signing_key, sign_checksums
from lyra_tasks.bundle.format.staging import publish_directory, require_free_space, staging_directory
from lyra_tasks.bundle.pack.plan import PackPlan, PlannedDelta, is_operator_file
from lyra_tasks.bundle.verify.bundle import FileResult, verify_bundle
from lyra_tasks.bundle.verify.pack import verify_pack
from lyra_tasks.errors import ImmutableError, PreconditionError
from lyra_tasks.files import write_file
from lyra_tasks.images.archive.parts import PartsWriter
from lyra_tasks.images.archive.read import copy_without_layers
from lyra_tasks.images.stream.tar import SECTOR_BYTES
from lyra_tasks.locks import file_lock

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


@dataclass(frozen=True)
class PackResult:
    """A pack that is in place: its description, every file that its checksums name, and all its bytes."""

    directory: Path
    manifest: PackManifest
    files: tuple[FileResult, ...]
    size: int


def create_pack(plan: PackPlan, work: Workspace) -> PackResult:
    """Make the pack; one of the same bundle and `since` that is there already is replaced when the new one is whole.

    BundleError if the bundle is not as it was promoted, NoSpaceError before anything is written if there is no room,
    ImmutableError if something else has the pack's name.
    """
    directory = plan.directory
    if directory.exists() and not (directory / PACK_FILE).is_file():
        raise ImmutableError(f"{directory}: is there, and is no pack", hint="move it away, or name another folder")
    key = _find_key(plan, work)
    with file_lock(work.paths.state / "pack.lock", resource="packing"):
        verify_bundle(plan.facts.bundle)
        require_free_space(plan.facts.target_directory, plan.required_bytes, directory.name)
        with staging_directory(directory, "bundle.pack", stale_pattern=f"{directory.name}*") as stage:
            with _report_file_size_limit(plan), report_removed_bundle(plan.facts.bundle):
                pack_manifest = fill_pack(plan, stage)
            write_checksums(stage)
            if key:
                sign_checksums(stage, key)
            report = verify_pack(stage)
            publish_directory(stage, directory)
    work.journal.append(
        work.run,
        "packed",
        version=pack_manifest.version,
        since=pack_manifest.since,
        set=pack_manifest.set_digest,
        folder=str(directory.resolve()),
    )
    size = sum(path.stat().st_size for path in list_bundle_files(directory)[0].values())
    return PackResult(directory, pack_manifest, report.files, size)


def fill_pack(plan: PackPlan, stage: Path) -> PackManifest:
    """Put all that travels into a folder, but for the checksums; NoSpaceError if the disk is full."""
    facts = plan.facts
    files, _ = list_bundle_files(facts.bundle)
    archives = {image.file for image in facts.manifest.images}
    for name in sorted(filter(is_operator_file, files)):
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], stage / name)
        with suppress(PermissionError):  # as `write_file`: FAT has no modes
            (stage / name).chmod(0o644)  # containers read their configs from here, as users of their own
    archived_files = {
        name: path
        for name, path in files.items()
        if not is_operator_file(name) and name not in archives | {RECEIVE_SCRIPT}
    }
    (stage / IMAGES_DIRECTORY).mkdir()
    pack_manifest = PackManifest(
        project=facts.manifest.project,
        version=facts.manifest.version,
        since=facts.baseline.version if facts.baseline else None,
        set_digest=facts.manifest.set_digest,
        images=[_write_delta(plan, delta, stage) for delta in plan.deltas],
        documents=_write_documents(plan, archived_files, stage),
    )
    write_document(stage / PACK_FILE, pack_manifest)
    write_file(stage / RECEIVE_SCRIPT, render_receive_script(facts.manifest, pack_manifest).encode(), mode=0o755)
    return pack_manifest


def _write_delta(plan: PackPlan, delta: PlannedDelta, stage: Path) -> PackedArchive:
    with PartsWriter(stage / delta.image.file, _part_limit(plan, delta.size)) as target:
        copy_without_layers(plan.facts.bundle / delta.image.file, target, delta.omitted_layers)
    return PackedArchive(
        image=delta.image.name,
        file=delta.image.file,
        sha256=target.sha256,
        size=target.size,
        parts=target.parts,
        omitted_layers=list(delta.omitted_layers),
        required_image=delta.required_image,
    )


def _write_documents(plan: PackPlan, files: dict[str, Path], stage: Path) -> PackedDocuments:
    epoch = int(datetime.fromisoformat(plan.facts.manifest.created).timestamp())
    max_size = sum(path.stat().st_size + 2 * SECTOR_BYTES for path in files.values())
    with PartsWriter(stage / DOCUMENTS_FILE, _part_limit(plan, max_size)) as target:
        unpacked = write_document_archive(files, target, epoch)
    return PackedDocuments(sha256=target.sha256, size=target.size, parts=target.parts, unpacked_size=unpacked)


def _part_limit(plan: PackPlan, size: int) -> int | None:
    """What fits into one part stays in one piece."""
    max_part_bytes = plan.facts.max_part_bytes
    return max_part_bytes if max_part_bytes and size > max_part_bytes else None


def _find_key(plan: PackPlan, work: Workspace) -> Path | None:
    """What the pack's own checksums are signed with."""
    if work.config.promotion.sign:
        return find_signing_key(work.config.promotion.sign, work.root)
    if (plan.facts.bundle / SIGNATURE_FILE).is_file():
        console.warn("the bundle is signed, and its pack will not be: [promotion] sign is not set")
    return None


@contextmanager
def _report_file_size_limit(plan: PackPlan) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise PreconditionError(
            f"{plan.facts.target_directory}: its file system takes no file that large",
            hint="use --split, for example --split 2g",
        ) from error
