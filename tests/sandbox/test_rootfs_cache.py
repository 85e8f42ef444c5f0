"""Root file systems in the cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lyra_tasks.dockerfile.lock_file import LockedRootfs
from lyra_tasks.engine.bases.rootfs_cache import ROOTFS_TAR, BuiltRootfs, find_kept_rootfs


@pytest.mark.parametrize("description", ["", "{", '{"suite": "bookworm"}', None])
def test_rootfs_with_damaged_description_is_rebuilt(tmp_path: Path, description: str | None) -> None:
    directory = tmp_path / "rootfs" / "a1b2"
    directory.mkdir(parents=True)
    (directory / ROOTFS_TAR).touch()
    if description is not None:
        (tmp_path / "rootfs" / "a1b2.facts.json").write_text(description)
    assert find_kept_rootfs(tmp_path, "a1b2") is None


def test_rootfs_with_other_content_than_its_name_is_rebuilt(tmp_path: Path) -> None:
    content = b"a tar archive"
    digest = hashlib.sha256(content).hexdigest()
    pin = LockedRootfs(
        suite="bookworm", variant="custom", packages=("python3",), architecture="amd64", sha256=digest,
        source_date_epoch=1, resolved=(), tools={},
    )  # fmt: skip
    directory = tmp_path / "rootfs" / digest
    directory.mkdir(parents=True)
    (tmp_path / "rootfs" / f"{digest}.facts.json").write_text(pin.model_dump_json())
    (directory / ROOTFS_TAR).write_bytes(content)
    assert find_kept_rootfs(tmp_path, digest) == BuiltRootfs(directory, pin)
    (directory / ROOTFS_TAR).write_bytes(content.swapcase())
    assert find_kept_rootfs(tmp_path, digest) is None
    assert not directory.exists()
