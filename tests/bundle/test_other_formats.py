"""Bundles and packs that an earlier version of the program has written: named as such, and in nobody's way."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import write_checksums
from lyra_tasks.bundle.format.documents import read_previous_bundle
from lyra_tasks.bundle.format.index import BundleStore, build_entry, build_index, register_version
from lyra_tasks.bundle.format.manifest import OtherFormatError, open_bundle, write_document
from lyra_tasks.bundle.listing import list_bundles
from lyra_tasks.bundle.pack.plan import collect_pack_facts, plan_pack
from lyra_tasks.bundle.promote.run import _require_same_content
from lyra_tasks.bundle.removal import plan_removal
from lyra_tasks.bundle.verify import verify_path
from lyra_tasks.errors import BundleError, ImmutableError
from lyra_tasks.files import format_json
from lyra_tasks.records.journal import Journal
from tests.bundle.test_receive_script import MANIFEST
from tests.conftest import Project

EARLIER = "written by an earlier version of lyra-tasks (lyra.promotion/1)"


def earlier_manifest(version: str) -> str:
    """Return a manifest with one archive per image, as the first format has it."""
    document: dict[str, Any] = MANIFEST.model_dump(mode="json", by_alias=True)
    del document["test_doubles"]
    (archive,) = document.pop("archives")
    for image in document["images"]:
        del image["origin"]
        image |= {"file": f"images/web-{version}-linux-amd64.tar", "sha256": archive["sha256"], "size": archive["size"]}
    return format_json(document | {"schema": "lyra.promotion/1", "version": version})


def write_bundle(directory: Path, version: str, *, is_earlier: bool) -> None:
    directory.mkdir(parents=True)
    if is_earlier:
        (directory / layout.MANIFEST_FILE).write_text(earlier_manifest(version))
    else:
        write_document(directory / layout.MANIFEST_FILE, MANIFEST.model_copy(update={"version": version}))
    write_checksums(directory)


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Create the directory of a project with two bundles, of which the older one has the first format."""
    directory = tmp_path / "shop"
    for version, is_earlier in (("1.0.0", True), ("1.1.0", False)):
        write_bundle(directory / version, version, is_earlier=is_earlier)
    entries = [build_entry(MANIFEST.model_copy(update={"version": version})) for version in ("1.0.0", "1.1.0")]
    write_document(directory / layout.INDEX_FILE, build_index("shop", entries))
    return directory


def test_earlier_bundle_is_named_when_opened_or_verified(bundles: Path) -> None:
    for read in (open_bundle, verify_path):
        with pytest.raises(OtherFormatError) as error:
            read(bundles / "1.0.0")
        assert EARLIER in error.value.message
        assert "Its own receive.sh still verifies and loads it" in error.value.hint
        assert error.value.exit_code == 6


def test_earlier_pack_is_named_when_verified(tmp_path: Path) -> None:
    (tmp_path / layout.PACK_FILE).write_text(format_json({"schema": "lyra.pack/1", "images": []}))
    write_checksums(tmp_path)
    with pytest.raises(BundleError, match=r"pack\.json: written by an earlier version of lyra-tasks"):
        verify_path(tmp_path)


def test_list_shows_earlier_bundle_with_its_size(bundles: Path) -> None:
    newer, earlier = list_bundles(BundleStore(bundles)).versions
    assert (newer.state, earlier.state, earlier.passed) == ("present", "other-format", None)
    assert earlier.size == sum(path.stat().st_size for path in (bundles / "1.0.0").iterdir())


def test_earlier_bundle_is_not_compared_with_a_new_one(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(bundles / "0.9.0", "0.9.0", is_earlier=True)
    entries = [*BundleStore(bundles).index.versions, build_entry(MANIFEST.model_copy(update={"version": "0.9.0"}))]
    write_document(bundles / layout.INDEX_FILE, build_index("shop", entries))
    assert read_previous_bundle(BundleStore(bundles), "1.0.1") is None
    message = capsys.readouterr().err
    assert "Not compared with 1.0.0: " in message and EARLIER in message
    assert ("damaged" not in message, message.count("Not compared")) == (True, 1)


def test_retention_keeps_earlier_releases_and_prunes_earlier_snapshots(bundles: Path) -> None:
    snapshots = [f"1.1.1-dev.{number}+gabc" for number in (1, 2)]
    entries = [*BundleStore(bundles).index.versions]
    for version in snapshots:
        write_bundle(bundles / version, version, is_earlier=True)
        entries.append(build_entry(MANIFEST.model_copy(update={"version": version, "is_snapshot": True})))
    write_document(bundles / layout.INDEX_FILE, build_index("shop", entries))
    new = MANIFEST.model_copy(update={"version": "1.1.1-dev.3+gabc", "is_snapshot": True})
    assert register_version(BundleStore(bundles), new, keep_snapshots=2) == (snapshots[0],)
    assert sorted(path.name for path in bundles.iterdir() if path.is_dir()) == ["1.0.0", "1.1.0", snapshots[1]]


def test_pack_since_an_earlier_bundle_is_complete(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = collect_pack_facts(BundleStore(bundles), "1.1.0", to=str(tmp_path), since="1.0.0", split="")
    message = capsys.readouterr().err
    assert "The pack will be complete, since no layers can be compared: " in message and EARLIER in message
    plan = plan_pack(facts)
    assert (plan.directory.name, [delta.omitted_layers for delta in plan.deltas]) == ("shop-1.1.0", [()])
    with pytest.raises(OtherFormatError, match="an earlier version"):
        collect_pack_facts(BundleStore(bundles), "1.0.0", to=str(tmp_path), since="", split="")


def test_version_of_an_earlier_bundle_is_immutable(bundles: Path) -> None:
    plan: Any = SimpleNamespace(directory=bundles / "1.0.0", version="1.0.0")
    with pytest.raises(ImmutableError, match=r"1\.0\.0 is already promoted: .* an earlier version") as error:
        _require_same_content(plan)
    assert "`bundle.remove 1.0.0`" in error.value.hint


def test_earlier_bundle_can_be_removed(bundles: Path, tmp_path: Path) -> None:
    plan = plan_removal(BundleStore(bundles), "1.0.0", Journal(tmp_path / "journal.jsonl"))
    assert (plan.is_listed, plan.has_directory, plan.entry.version) == (True, True, "1.0.0")


def test_commands_name_an_earlier_bundle(lonely: Project) -> None:
    directory = lonely.root / "promotion/tiny/1.0.0"
    write_bundle(directory, "1.0.0", is_earlier=True)
    entry = build_entry(MANIFEST.model_copy(update={"version": "1.0.0"}))
    write_document(directory.parent / layout.INDEX_FILE, build_index("tiny", [entry]))
    for arguments in (("verify", "1.0.0"), ("diff", "1.0.0", "1.0.0"), ("verify",)):
        result = lonely.lyra(*arguments)
        assert (result.code, EARLIER in result.err) == (6, True), result.text
    listed = lonely.lyra("bundle.list")
    assert listed.code == 0, listed.text
    assert "promotion/tiny/1.0.0 was written by another version of lyra-tasks" in listed.err
    assert "(other format)" in listed.out
    assert json.loads(lonely.lyra("bundle.list", "--json").out)["versions"][0]["state"] == "other-format"
