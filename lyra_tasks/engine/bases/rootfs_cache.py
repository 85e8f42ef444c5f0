"""Root file systems that were built before, in the cache of the user: each in a directory named by its hash."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.dockerfile.file_hashes import open_file_hashes
from lyra_tasks.dockerfile.lock_file import LockedRootfs
from lyra_tasks.documents import read_document, translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import mark_used, sync_to_disk, write_file

ROOTFS_TAR = "rootfs.tar"
_PIN_FILE = "facts.json"


@dataclass(frozen=True)
class BuiltRootfs:
    """A root file system in the cache: `context` is a build context directory with `rootfs.tar`."""

    context: Path
    pin: LockedRootfs

    @property
    def tar(self) -> Path:
        """Return the path of the tar archive."""
        return self.context / ROOTFS_TAR


def keep_rootfs(context: Path, directory: Path, pin: LockedRootfs) -> BuiltRootfs:
    """Move a finished root file system into the cache; its description is written first, in case of a crash."""
    write_file(directory.with_suffix(f".{_PIN_FILE}"), (pin.model_dump_json(indent=2) + "\n").encode())
    if not directory.exists():
        with (context / ROOTFS_TAR).open("rb") as tar:
            sync_to_disk(tar.fileno())
            os.fchmod(tar.fileno(), 0o444)
        context.rename(directory)
    return BuiltRootfs(directory, pin)


def find_kept_rootfs(cache: Path, sha256: str) -> BuiltRootfs | None:
    """Return a root file system by its hash; None if it is missing, and then a damaged one is removed."""
    directory = cache / "rootfs" / sha256
    try:
        with translate_failures(PreconditionError):
            pin = LockedRootfs.model_validate_json(read_document(directory.with_suffix(f".{_PIN_FILE}")))
    except PreconditionError:
        return None  # missing or damaged: it is built again
    tar = directory / ROOTFS_TAR
    if not tar.is_file():
        return None
    file_hashes = open_file_hashes(cache / "rootfs" / "hashes" / f"{sha256}.json")
    if file_hashes.hash_file(str(tar), tar.lstat()).sha256 != sha256:
        shutil.rmtree(directory)  # damaged: it is built again
        return None
    file_hashes.save([str(tar)])
    mark_used(directory.with_suffix(f".{_PIN_FILE}"))
    return BuiltRootfs(directory, pin)
