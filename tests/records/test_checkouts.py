from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.records import checkouts
from lyra_tasks.records.checkouts import Checkout


def test_a_checkout_is_gone_only_where_that_can_be_known(tmp_path: Path) -> None:
    there, loop = tmp_path / "there", tmp_path / "loop"
    there.mkdir()
    loop.symlink_to(loop)
    assert not Checkout("p", tmp_path, there).is_missing
    assert not Checkout("p", tmp_path, None).is_missing
    assert not Checkout("p", tmp_path, tmp_path / ("n" * 300)).is_missing, "the system refuses to look"
    assert not Checkout("p", tmp_path, loop / "below").is_missing, "it leads nowhere, today"
    assert Checkout("p", tmp_path, tmp_path / "deleted").is_missing


def test_a_folder_that_may_be_on_a_disk_that_is_not_mounted_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, table = tmp_path / "place", tmp_path / "fstab"
    place.mkdir()
    gone = Checkout("p", tmp_path, place / "src" / "deleted")
    monkeypatch.setattr(checkouts, "_FIXED", table)
    assert gone.unmounted_reason == f"{place} is empty, as where a disk is not mounted"
    (place / "neighbour").touch()
    assert gone.unmounted_reason == "", "nothing speaks for a disk"
    table.write_text(f"# {place} is where it was\n/dev/sdz1 {tmp_path}/other ext4\nproc /proc proc\n")
    assert gone.unmounted_reason == ""
    with table.open("a") as file:
        file.write(f"/dev/sdz2 {place} ext4 noauto 0 0\n")
    assert gone.unmounted_reason == f"a disk of {table} belongs there, which is not mounted"
    table.unlink()
    monkeypatch.setattr(checkouts, "_MOVABLE", (place,))
    assert gone.unmounted_reason == "disks that come and go are mounted there"
