"""`bundle.list` and `release.list`: size, signature, checks and directory, also of bundles that are gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.index import BundleStore, register_version
from lyra_tasks.bundle.format.manifest import TestSummary, write_document
from lyra_tasks.bundle.listing import list_bundles
from tests.bundle.test_receive_script import MANIFEST
from tests.conftest import Project
from tests.faults import refused


def add_bundle(bundles: Path, version: str, *, passed: int = 3, is_signed: bool = False) -> Path:
    tests = TestSummary(passed=passed, failed=0)
    manifest = MANIFEST.model_copy(update={"project": bundles.name, "version": version, "tests": tests})
    directory = bundles / version
    directory.mkdir(parents=True)
    write_document(directory / layout.MANIFEST_FILE, manifest)
    (directory / "web.tar").write_bytes(bytes(3 << 20))
    if is_signed:
        (directory / layout.SIGNATURE_FILE).write_text("signature")
    register_version(BundleStore(bundles), manifest, keep_snapshots=5)
    return directory


def test_list_describes_what_is_on_disk(tmp_path: Path) -> None:
    bundles = tmp_path / "shop"
    signed = add_bundle(bundles, "1.2.0", is_signed=True)
    damaged, missing = add_bundle(bundles, "1.1.0"), add_bundle(bundles, "1.0.0")
    (damaged / layout.MANIFEST_FILE).write_text("{}")
    shutil.rmtree(missing)
    rows = list_bundles(BundleStore(bundles)).versions
    assert [(row.version, row.state, row.is_signed, row.passed, row.failed) for row in rows] == [
        ("1.2.0", "present", True, 3, 0),
        ("1.1.0", "damaged", False, None, None),
        ("1.0.0", "missing", False, None, None),
    ]
    assert rows[0].size == sum(path.stat().st_size for path in signed.iterdir())
    assert (rows[1].size, rows[2].size) == ((3 << 20) + 2, 0)
    assert rows[0].directory == str(signed)


def test_commands_show_size_signature_checks_and_directory(lonely: Project) -> None:
    bundles = lonely.root / "promotion/tiny"
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        lonely.git("tag", f"v{version}")
    add_bundle(bundles, "1.1.0", is_signed=True)
    shutil.rmtree(add_bundle(bundles, "1.0.0"))
    listed = lonely.lyra("bundle.list")
    assert listed.code == 0, listed.text
    new, old = listed.out.splitlines()[1:]
    assert new.endswith("release  3.0 MiB  yes     3 passed  promotion/tiny/1.1.0"), new
    assert old.split()[-2:] == ["promotion/tiny/1.0.0", "(missing)"]
    assert "promotion/tiny/1.0.0 is missing; restore it, or run `lyra bundle.remove 1.0.0`" in listed.err
    for line in (("verify", "1.0.0"), ("diff", "1.0.0", "1.1.0"), ("bundle.pack", "1.0.0", "--to", "..")):
        refused(lonely.lyra(*line), 6, "promotion/tiny/1.0.0 is missing", "run `lyra bundle.remove 1.0.0`")
    released = lonely.lyra("release.list")
    assert released.code == 0, released.text
    rows = released.out.splitlines()[1:]
    assert rows[0].endswith("never promoted")
    assert rows[1].endswith("3.0 MiB  yes     3 passed  promotion/tiny/1.1.0"), rows[1]
    assert rows[2].endswith("promotion/tiny/1.0.0 (missing)")
    document = json.loads(lonely.lyra("release.list", "--json").out)
    assert [(row["is_signed"], row["passed"], row["bundle"]) for row in document] == [
        (None, None, None),
        (True, 3, "promotion/tiny/1.1.0"),
        (False, None, "promotion/tiny/1.0.0"),
    ]
