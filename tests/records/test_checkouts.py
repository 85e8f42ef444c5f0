"""Tests of recognizing missing checkouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.records import checkouts
from lyra_tasks.records.checkouts import Checkout


def test_checkout_is_missing_only_if_known_to_be(tmp_path: Path) -> None:
    existing, loop = tmp_path / "existing", tmp_path / "loop"
    existing.mkdir()
    loop.symlink_to(loop)
    assert not Checkout("p", tmp_path, existing).is_missing
    assert not Checkout("p", tmp_path, None).is_missing
    assert not Checkout("p", tmp_path, tmp_path / ("n" * 300)).is_missing, "stat fails"
    assert not Checkout("p", tmp_path, loop / "below").is_missing, "stat fails"
    assert Checkout("p", tmp_path, tmp_path / "deleted").is_missing


def test_missing_checkout_may_be_on_an_unmounted_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount_point, fstab = tmp_path / "mount_point", tmp_path / "fstab"
    mount_point.mkdir()
    missing = Checkout("p", tmp_path, mount_point / "src" / "deleted")
    monkeypatch.setattr(checkouts, "_FSTAB", fstab)
    assert missing.unmounted_reason == f"{mount_point} is empty, like an unused mount point"
    (mount_point / "other").touch()
    assert missing.unmounted_reason == "", "no sign of a disk"
    fstab.write_text(f"# {mount_point} was here\n/dev/sdz1 {tmp_path}/other ext4\nproc /proc proc\n")
    assert missing.unmounted_reason == ""
    with fstab.open("a") as file:
        file.write(f"/dev/sdz2 {mount_point} ext4 noauto 0 0\n")
    assert missing.unmounted_reason == f"{fstab} names a file system there that is not mounted"
    fstab.unlink()
    monkeypatch.setattr(checkouts, "_REMOVABLE_MOUNT_DIRECTORIES", (mount_point,))
    assert missing.unmounted_reason == "removable disks are mounted there"
