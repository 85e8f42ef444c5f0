"""Create a pack: verify the bundle, write the pack, read it back and rename it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.content.pack_page import render_pack_page
from lyra_tasks.bundle.content.receive_script import render_receive_script
from lyra_tasks.bundle.format.checksums import list_bundle_files, write_checksums
from lyra_tasks.bundle.format.layout import (
    DOCUMENTS_FILE,
    IMAGES_DIRECTORY,
    PACK_FILE,
    RECEIVE_SCRIPT,
    SIGNATURE_FILE,
    SUMMARY_FILE,
)
from lyra_tasks.bundle.format.manifest import encode_document, read_small_file, report_removed_bundle
from lyra_tasks.bundle.format.pack import (
    PackedArchive,
    PackedDocuments,
    PackManifest,
    is_operator_file,
    write_compressed,
    write_document_archive,
)
from lyra_tasks.bundle.format.signature import find_signing_key, sign_checksums
from lyra_tasks.bundle.format.staging import publish_directory, require_free_space, staging_directory, write_staged
from lyra_tasks.bundle.pack.plan import PackPlan, PlannedDelta
from lyra_tasks.bundle.verify import verify_bundle, verify_pack
from lyra_tasks.errors import ImmutableError, PreconditionError
from lyra_tasks.images.archive.parts import MAX_COMPRESSED_BYTES, PartsWriter
from lyra_tasks.images.archive.read import read_without_layers
from lyra_tasks.images.stream.codec import write_blocks
from lyra_tasks.images.stream.tar import SECTOR_BYTES
from lyra_tasks.locks import directory_lock

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


@dataclass(frozen=True)
class PackResult:
    """A created pack: the sizes of the files in its checksums, and its total size, in bytes."""

    directory: Path
    manifest: PackManifest
    file_sizes: Mapping[str, int]
    size: int


def create_pack(plan: PackPlan, work: Workspace) -> PackResult:
    """Create the pack, and record it in the journal."""
    result = write_pack(plan, work)
    manifest = result.manifest
    work.journal.append(
        work.run, "packed", version=manifest.version, since=manifest.since, set=manifest.set_digest,
        directory=str(result.directory.resolve()),
    )  # fmt: skip
    return result


def write_pack(plan: PackPlan, work: Workspace) -> PackResult:
    """Write the pack, which replaces an existing one of the same versions when it is complete.

    Raises ImmutableError if something else has its name, and NoSpaceError before writing anything.
    """
    directory, bundle = plan.directory, plan.facts.bundle
    if directory.exists() and not (directory / PACK_FILE).is_file():
        hint = "Remove it or choose another directory"
        raise ImmutableError(f"{directory} already exists and is not a pack", hint=hint)
    key = _find_key(plan, work)
    with directory_lock(directory.parent, purpose="packing"):
        verify_bundle(bundle.directory)
        require_free_space(plan.facts.target_directory, plan.required_bytes, directory.name)
        with staging_directory(directory, "bundle.pack", stale_pattern=f"{directory.name}*") as stage:
            with _report_file_size_limit(plan), report_removed_bundle(bundle.directory):
                pack_manifest = fill_pack(plan, stage)
            write_checksums(stage)
            if key:
                sign_checksums(stage, key)
            report = verify_pack(stage)
            publish_directory(stage, directory)
    size = sum(path.stat().st_size for path in list_bundle_files(directory)[0].values())
    return PackResult(directory, pack_manifest, report.file_sizes, size)


def fill_pack(plan: PackPlan, stage: Path) -> PackManifest:
    """Write all files of the pack except the checksums."""
    manifest, baseline = plan.facts.bundle.manifest, plan.facts.baseline
    files, _ = list_bundle_files(plan.facts.bundle.directory)
    for name in sorted(filter(is_operator_file, files)):
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], stage / name)
        with suppress(PermissionError):  # FAT has no modes.
            (stage / name).chmod(0o644)  # Containers read their configs from here, as other users.
    other_names = {*manifest.archives_by_file, RECEIVE_SCRIPT}
    archived_files = {
        name: path for name, path in files.items() if not is_operator_file(name) and name not in other_names
    }
    (stage / IMAGES_DIRECTORY).mkdir()
    pack_manifest = PackManifest(
        project=manifest.project,
        version=manifest.version,
        since=baseline.version if baseline else None,
        set_digest=manifest.set_digest,
        archives=[_write_delta(plan, delta, stage) for delta in plan.deltas],
        documents=_write_documents(plan, archived_files, stage),
    )
    write_staged(stage / PACK_FILE, encode_document(pack_manifest))
    page = read_small_file(files[SUMMARY_FILE]).decode(errors="replace") if SUMMARY_FILE in files else ""
    write_staged(stage / SUMMARY_FILE, render_pack_page(page, manifest, pack_manifest).encode())
    write_staged(stage / RECEIVE_SCRIPT, render_receive_script(manifest, pack_manifest).encode(), mode=0o755)
    return pack_manifest


def _write_delta(plan: PackPlan, delta: PlannedDelta, stage: Path) -> PackedArchive:
    file = delta.archive.file
    with PartsWriter(stage / file, _part_limit(plan, delta.size)) as target:
        blocks = read_without_layers(plan.facts.bundle.directory / file, delta.omitted_layers)
        if delta.omitted_layers and delta.size <= MAX_COMPRESSED_BYTES:
            write_compressed(blocks, target)  # engines recognize it
        else:
            write_blocks(blocks, target.digester)
    return PackedArchive(
        platform=delta.archive.platform,
        file=file,
        sha256=target.sha256,
        size=target.size,
        parts=target.parts,
        omitted_layers=list(delta.omitted_layers),
        required_images=list(delta.required_images),
    )


def _write_documents(plan: PackPlan, files: dict[str, Path], stage: Path) -> PackedDocuments:
    epoch = int(datetime.fromisoformat(plan.facts.bundle.manifest.created).timestamp())
    max_size = sum(path.stat().st_size + 2 * SECTOR_BYTES for path in files.values())
    with PartsWriter(stage / DOCUMENTS_FILE, _part_limit(plan, max_size)) as target:
        unpacked = write_document_archive(files, target, epoch)
    return PackedDocuments(sha256=target.sha256, size=target.size, parts=target.parts, unpacked_size=unpacked)


def _part_limit(plan: PackPlan, size: int) -> int | None:
    """Return the part size, or None for a file that fits into one part."""
    max_part_bytes = plan.facts.max_part_bytes
    return max_part_bytes if max_part_bytes and size > max_part_bytes else None


def _find_key(plan: PackPlan, work: Workspace) -> Path | None:
    """Return the key that signs the checksums of the pack, or None."""
    if work.config.promotion.sign:
        return find_signing_key(work.config.promotion.sign, work.root)
    if (plan.facts.bundle.directory / SIGNATURE_FILE).is_file():
        console.warn("The bundle is signed, but its pack will not be: promotion.sign is not set")
    return None


@contextmanager
def _report_file_size_limit(plan: PackPlan) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise PreconditionError(
            f"{plan.facts.target_directory}: file too large for this file system", hint="Add `--split 2g`"
        ) from error
