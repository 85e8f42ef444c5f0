"""Root file systems in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.engine.bases.rootfs import ROOTFS_TAR, _find_cached


@pytest.mark.parametrize("description", ["", "{", '{"suite": "bookworm"}', None])
def test_rootfs_with_damaged_description_is_rebuilt(tmp_path: Path, description: str | None) -> None:
    directory = tmp_path / "rootfs" / "a1b2"
    directory.mkdir(parents=True)
    (directory / ROOTFS_TAR).touch()
    if description is not None:
        (tmp_path / "rootfs" / "a1b2.facts.json").write_text(description)
    assert _find_cached(tmp_path, "a1b2") is None
