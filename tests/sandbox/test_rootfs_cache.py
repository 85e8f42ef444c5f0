"""Root file systems that were made before."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.engine.bases.rootfs import ROOTFS_TAR, _find_cached


@pytest.mark.parametrize("facts", ["", "{", '{"suite": "bookworm"}', None])
def test_one_whose_facts_were_lost_in_a_power_cut_is_made_anew(tmp_path: Path, facts: str | None) -> None:
    folder = tmp_path / "rootfs" / "a1b2"
    folder.mkdir(parents=True)
    (folder / ROOTFS_TAR).touch()
    if facts is not None:
        (tmp_path / "rootfs" / "a1b2.facts.json").write_text(facts)
    assert _find_cached(tmp_path, "a1b2") is None
