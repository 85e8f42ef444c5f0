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
from lyra_tasks.bundle import layout
from lyra_tasks.bundle.checksums import inventory, write_checksums
from lyra_tasks.bundle.manifest import write_document
from lyra_tasks.bundle.packs.document import Pack, PackedArchive, PackedDocuments
from lyra_tasks.bundle.packs.documents import write_documents
from lyra_tasks.bundle.packs.plan import PackPlan, PlannedThin, plain
from lyra_tasks.bundle.packs.verify import verify_pack
from lyra_tasks.bundle.read import reading
from lyra_tasks.bundle.reception import receive_script
from lyra_tasks.bundle.signature import sign, signing_key
from lyra_tasks.bundle.staging import publish, require_room, staging
from lyra_tasks.bundle.verify import FileResult, verify
from lyra_tasks.errors import ImmutableError, PreconditionError
from lyra_tasks.files import write_file
from lyra_tasks.images.parts import PartsWriter
from lyra_tasks.images.tarball import SECTOR
from lyra_tasks.images.thin import copy_without
from lyra_tasks.run import locked

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


@dataclass(frozen=True)
class Packing:
    """A pack that is in place: its description, every file that its checksums name, and all its bytes."""

    folder: Path
    pack: Pack
    files: tuple[FileResult, ...]
    size: int


def run(plan: PackPlan, work: Workspace) -> Packing:
    """Make the pack; one of the same bundle and `since` that is there already is replaced when the new one is whole.

    BundleError if the bundle is not as it was promoted, NoSpaceError before anything is written if there is no room,
    ImmutableError if something else has the pack's name.
    """
    folder = plan.folder
    if folder.exists() and not (folder / layout.PACK).is_file():
        raise ImmutableError(f"{folder}: is there, and is no pack", hint="move it away, or name another folder")
    key = _key(plan, work)
    with locked(work.paths.state / "pack.lock", what="packing"):
        verify(plan.facts.bundle)
        require_room(plan.facts.to, plan.needed, folder.name)
        with staging(folder, "bundle.pack", sweep=f"{folder.name}*") as stage:
            with _large_files(plan), reading(plan.facts.bundle):
                pack = fill(plan, stage)
            write_checksums(stage)
            if key:
                sign(stage, key)
            report = verify_pack(stage)
            publish(stage, folder)
    work.journal.append(
        work.run, "packed", version=pack.version, since=pack.since, set=pack.set_digest, folder=str(folder.resolve())
    )
    size = sum(path.stat().st_size for path in inventory(folder)[0].values())
    return Packing(folder, pack, report.files, size)


def fill(plan: PackPlan, stage: Path) -> Pack:
    """Put all that travels into a folder, but for the checksums; NoSpaceError if the disk is full."""
    facts = plan.facts
    files, _ = inventory(facts.bundle)
    archives = {image.file for image in facts.manifest.images}
    for name in sorted(filter(plain, files)):
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], stage / name)
        with suppress(PermissionError):  # as `write_file`: FAT has no modes
            (stage / name).chmod(0o644)  # containers read their configs from here, as users of their own
    rest = {name: path for name, path in files.items() if not plain(name) and name not in archives | {layout.RECEIVE}}
    (stage / layout.IMAGES).mkdir()
    pack = Pack(
        project=facts.manifest.project,
        version=facts.manifest.version,
        since=facts.since.version if facts.since else None,
        set_digest=facts.manifest.set_digest,
        images=[_archive(plan, each, stage) for each in plan.archives],
        documents=_documents(plan, rest, stage),
    )
    write_document(stage / layout.PACK, pack)
    write_file(stage / layout.RECEIVE, receive_script(facts.manifest, pack).encode(), mode=0o755)
    return pack


def _archive(plan: PackPlan, each: PlannedThin, stage: Path) -> PackedArchive:
    with PartsWriter(stage / each.image.file, _split(plan, each.size)) as target:
        copy_without(plan.facts.bundle / each.image.file, target, each.without)
    return PackedArchive(
        image=each.image.name,
        file=each.image.file,
        sha256=target.sha256,
        size=target.size,
        parts=target.parts,
        without=list(each.without),
        held=each.held,
    )


def _documents(plan: PackPlan, files: dict[str, Path], stage: Path) -> PackedDocuments:
    epoch = int(datetime.fromisoformat(plan.facts.manifest.created).timestamp())
    most = sum(path.stat().st_size + 2 * SECTOR for path in files.values())
    with PartsWriter(stage / layout.DOCUMENTS, _split(plan, most)) as target:
        unpacked = write_documents(files, target, epoch)
    return PackedDocuments(sha256=target.sha256, size=target.size, parts=target.parts, unpacked_size=unpacked)


def _split(plan: PackPlan, size: int) -> int | None:
    """What fits into one part stays in one piece."""
    split = plan.facts.split
    return split if split and size > split else None


def _key(plan: PackPlan, work: Workspace) -> Path | None:
    """What the pack's own checksums are signed with."""
    if work.config.promotion.sign:
        return signing_key(work.config.promotion.sign, work.root)
    if (plan.facts.bundle / layout.SIGNATURE).is_file():
        console.warn("the bundle is signed, and its pack will not be: [promotion] sign is not set")
    return None


@contextmanager
def _large_files(plan: PackPlan) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise PreconditionError(
            f"{plan.facts.to}: its file system takes no file that large", hint="use --split, for example --split 2g"
        ) from error
