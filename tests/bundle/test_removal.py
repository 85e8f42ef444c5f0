"""`bundle.remove`: what the index and the disk know of a version, and what is left afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.index import BundleStore, build_entry, build_index, lock_bundles, register_version
from lyra_tasks.bundle.format.manifest import open_bundle, write_document
from lyra_tasks.bundle.removal import RemovalPlan, plan_removal, remove_bundle
from lyra_tasks.errors import BundleError, LeftoverError, PreconditionError, UsageError
from lyra_tasks.records.journal import Journal
from tests.bundle.test_receive_script import MANIFEST
from tests.conftest import Project

pytestmark = pytest.mark.slow


class Shop:
    """The bundles of a project, and the journal of its checkout."""

    def __init__(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "shop"
        self.directory.mkdir()
        self.journal = Journal(tmp_path / "journal.jsonl")
        for version in ("1.0.0", "1.1.0"):
            self.add(self.directory / version, version=version)
        self.write_index("1.0.0", "1.1.0")

    def add(self, directory: Path, **changes: Any) -> None:
        (directory / layout.IMAGES_DIRECTORY).mkdir(parents=True)
        write_document(directory / layout.MANIFEST_FILE, MANIFEST.model_copy(update=changes))
        (directory / layout.IMAGES_DIRECTORY / "web.tar").write_bytes(bytes(1000))

    def write_index(self, *versions: str) -> None:
        entries = [build_entry(MANIFEST.model_copy(update={"version": version})) for version in versions]
        write_document(self.directory / layout.INDEX_FILE, build_index("shop", entries))

    @property
    def versions(self) -> list[str]:
        return [entry.version for entry in BundleStore(self.directory).index.versions]

    @property
    def directories(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir() if path.is_dir())

    def plan(self, version: str) -> RemovalPlan:
        return plan_removal(BundleStore(self.directory), version, self.journal)

    def remove(self, plan: RemovalPlan) -> None:
        work: Any = SimpleNamespace(journal=self.journal, run="r1")
        remove_bundle(plan, work)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Return the bundles 1.0.0 and 1.1.0."""
    return Shop(tmp_path)


def test_remove_takes_directory_and_entry(shop: Shop) -> None:
    plan = shop.plan("1.0.0")
    manifest_size = (shop.directory / "1.0.0/manifest.json").stat().st_size
    assert (plan.has_directory, plan.is_listed, plan.size) == (True, True, 1000 + manifest_size)
    shop.remove(plan)
    assert (shop.versions, shop.directories) == (["1.1.0"], ["1.1.0"])
    (entry,) = shop.journal.entries()
    assert entry.event == "bundle-removed"
    assert entry.data == {
        "version": "1.0.0",
        "set": MANIFEST.set_digest.removeprefix("sha256:"),
        "directory": str(shop.directory / "1.0.0"),
        "had_directory": True,
        "was_listed": True,
    }


def test_remove_takes_entry_whose_directory_is_gone(shop: Shop) -> None:
    shutil.rmtree(shop.directory / "1.0.0")
    plan = shop.plan("1.0.0")
    assert (plan.has_directory, plan.is_listed, plan.size) == (False, True, 0)
    shop.remove(plan)
    assert shop.versions == ["1.1.0"]


def test_remove_takes_directory_that_index_lacks(shop: Shop) -> None:
    shop.write_index("1.1.0")
    plan = shop.plan("1.0.0")
    assert (plan.has_directory, plan.is_listed) == (True, False)
    shop.remove(plan)
    assert (shop.versions, shop.directories) == (["1.1.0"], ["1.1.0"])
    with pytest.raises(UsageError, match="No bundle with version"):
        shop.plan("1.0.0")


def test_remove_refuses_what_is_not_a_bundle_of_the_project(shop: Shop, tmp_path: Path) -> None:
    (shop.directory / "notes").mkdir()
    shop.add(shop.directory / "2.0.0", project="other", version="2.0.0")
    shop.add(shop.directory / "3.0.0", version="1.0.0")
    (tmp_path / "elsewhere").mkdir()
    (shop.directory / "1.2.0").symlink_to(tmp_path / "elsewhere")
    for version, message in (
        ("notes", "not a promotion bundle"),
        ("2.0.0", "is the bundle of other 2.0.0"),
        ("3.0.0", "is the bundle of shop 1.0.0"),
        ("1.2.0", "is a symbolic link"),
    ):
        with pytest.raises(BundleError, match=message):
            shop.plan(version)
    for version in ("9.9.9", "", ".", "..", "../shop", "1.0.0/images"):
        with pytest.raises(UsageError, match="No bundle with version"):
            shop.plan(version)


def test_remove_takes_a_listed_bundle_that_is_damaged(shop: Shop) -> None:
    (shop.directory / "1.0.0" / layout.MANIFEST_FILE).unlink()
    shop.remove(shop.plan("1.0.0"))
    assert (shop.versions, shop.directories) == (["1.1.0"], ["1.1.0"])


def test_remove_refuses_a_bundle_that_changed_since_the_plan(shop: Shop) -> None:
    plan = shop.plan("1.0.0")
    (shop.directory / "1.0.0/images/web.tar").write_bytes(bytes(2000))
    with pytest.raises(PreconditionError, match="has changed since its removal was planned"):
        shop.remove(plan)
    again = shop.plan("1.0.0")
    shop.remove(again)
    with pytest.raises(PreconditionError, match="has changed"):
        shop.remove(again)


def test_remove_names_packs_that_need_the_version(shop: Shop) -> None:
    for version, since, directory in (
        ("1.1.0", "1.0.0", "/usb/a"),
        ("1.1.0", "1.0.0", "/usb/a"),
        ("1.1.0", None, "/usb/full"),
        ("1.1.0", "1.0.0", "/usb/replaced"),
        ("1.1.0", "0.9.0", "/usb/replaced"),
    ):
        shop.journal.append("r0", "packed", version=version, since=since, set="0", directory=directory)
    assert [(pack.version, pack.directory) for pack in shop.plan("1.0.0").packs] == [("1.1.0", "/usb/a")]
    assert shop.plan("1.1.0").packs == ()


def test_remove_tells_of_files_that_it_cannot_delete(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_directory: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lyra_tasks.bundle.removal.shutil.rmtree", refuse)
    with pytest.raises(LeftoverError, match="not a bundle any more, but its files remain") as caught:
        shop.remove(shop.plan("1.0.0"))
    assert ".staging-1.0.0." in caught.value.hint
    assert shop.versions == ["1.1.0"]


def test_promotion_lists_versions_after_a_killed_removal(shop: Shop) -> None:
    """Killed between the two steps, the index lists a directory that is gone; the next promotion repairs it."""
    (shop.directory / "1.0.0").rename(shop.directory / ".staging-1.0.0.0000")
    register_version(BundleStore(shop.directory), open_bundle(shop.directory / "1.1.0").manifest, keep_snapshots=5)
    assert shop.versions == ["1.1.0"]


def test_command_asks_and_removes(lonely: Project) -> None:
    directory = lonely.root / "promotion/tiny"
    for version in ("1.0.0", "1.1.0"):
        (directory / version).mkdir(parents=True)
        manifest = MANIFEST.model_copy(update={"project": "tiny", "version": version})
        write_document(directory / version / layout.MANIFEST_FILE, manifest)
        register_version(BundleStore(directory), manifest, keep_snapshots=5)
    planned = lonely.lyra("bundle.remove", "1.0.0", "--dry-run")
    assert planned.code == 0, planned.text
    assert "would remove the release 1.0.0 of " in planned.out
    preview = lonely.lyra("bundle.remove", "1.0.0", "--dry-run", "--json")
    assert json.loads(preview.out)["has_directory"] is True, preview.text
    refused = lonely.lyra("bundle.remove", "1.0.0")
    assert refused.code == 2, refused.text
    assert "error: `lyra bundle.remove` was not confirmed" in refused.err
    assert (directory / "1.0.0").is_dir()
    with lock_bundles(directory):
        waiting = lonely.start("bundle.remove", "1.0.0", "--yes")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2)
        assert (directory / "1.0.0").is_dir()
    assert waiting.communicate(timeout=60)[0].startswith("removed the release 1.0.0 of ")
    assert not (directory / "1.0.0").exists()
    shutil.rmtree(directory / "1.1.0")
    gone = lonely.lyra("bundle.remove", "1.1.0", "--yes")
    assert gone.code == 0, gone.text
    assert "warning: promotion/tiny/1.1.0 does not exist; only the entry in index.json is left to remove" in gone.err
    assert [path.name for path in directory.iterdir() if path.name != ".lock"] == ["index.json"]
    assert lonely.lyra("history", "--object", "1.0.0").out.count("bundle-removed") == 1
