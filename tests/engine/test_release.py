"""Tests of `release` with the real engine, and of what a release records."""

from __future__ import annotations

import json
from pathlib import Path

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.manifest import Manifest, open_bundle
from tests.conftest import Project

COMMAND = ("build", "test", "release", "promote")


def read_bundle_manifest(project: Project, version: str) -> Manifest:
    """Return the manifest of a version's bundle."""
    return open_bundle(project.root / "promotion" / "tiny" / version).manifest


def test_release_and_promote_bundle_the_tested_bytes(tiny: Project) -> None:
    result = tiny.lyra(*COMMAND)
    assert result.code == 0, result.text
    assert tiny.git("cat-file", "-t", "v0.1.0") == "tag\n"
    (bundle,) = tiny.bundles()
    manifest = read_bundle_manifest(tiny, "0.1.0")
    assert not manifest.is_snapshot
    (image,) = manifest.images
    assert image.references == ["tiny/web:0.1.0", "tiny/web:0.1", "tiny/web:0", "tiny/web:latest"]
    (evidence,) = tiny.state.glob("*/evidence/*/evidence.json")
    assert json.loads(evidence.read_text())["set"]["images"] == {"web": image.config_digest}
    head = tiny.git("rev-parse", "HEAD")[:7]
    assert (bundle / "CHANGES.md").read_text().endswith(f"### Other changes\n\n- start ({head})\n")
    assert tiny.lyra("verify").code == 0
    assert "already promoted" in tiny.lyra("promote").out
    assert_unscanned(bundle)
    assert_history_agrees(tiny, bundle.name)


def assert_unscanned(bundle: Path) -> None:
    """Assert that a bundle tells that nobody looked for vulnerabilities."""
    document = json.loads((bundle / layout.VULNERABILITIES_FILE).read_text())
    assert document["problem"] == "not scanned: .lyra.toml has no [scan]"
    assert "not scanned" in (bundle / layout.SUMMARY_FILE).read_text()
    assert "not scanned" in (bundle / layout.REPORT_FILE).read_text()


def assert_history_agrees(project: Project, version: str) -> None:
    """Assert that the journal agrees with the entries in a bundle until it is written anew."""
    checked = project.lyra("history", "--check")
    assert checked.code == 0 and f"the same as in bundle {version} (not signed)" in checked.out, checked.text
    for file in project.state.glob("tiny-*/journal.*"):
        file.rename(file.with_name(f"old.{file.name}"))
    assert project.lyra("history").code == 0
    lost = project.lyra("history", "--check")
    assert lost.code == 5 and f"bundle {version} (not signed) holds" in lost.err, lost.text
    for file in project.state.glob("tiny-*/old.journal.*"):
        file.rename(file.with_name(file.name.removeprefix("old.")))


def test_tested_commits_of_an_old_line_keep_the_tags_of_their_line(tiny: Project) -> None:
    tiny.git("tag", "v1.4.2")
    tiny.commit("feat: two")
    tiny.git("tag", "v2.0.0")
    tiny.git("switch", "--quiet", "--create", "stable", "v1.4.2")
    tiny.replace(".lyra.toml", "[images.web]", '[release]\nbranches = ["stable"]\n\n[images.web]')
    tiny.commit("fix: old line")
    assert tiny.lyra(*COMMAND).code == 0
    (image,) = read_bundle_manifest(tiny, "1.4.3").images
    assert image.references == ["tiny/web:1.4.3", "tiny/web:1.4", "tiny/web:1"]
    tiny.commit("feat: next")
    release = ("release", "--pre", "rc", "--changelog", "NEWS.md")
    refused = tiny.lyra(*release)
    assert refused.code == 3
    assert "  tests: web was built before its commit changed. Run `lyra build` first" in refused.err.splitlines()
    assert tiny.lyra("build").code == 0
    refused = tiny.lyra(*release)
    assert "  tests: These images, services and tests have not been tested. Run `lyra test` first" in (
        refused.err.splitlines()
    )
    assert tiny.git("tag", "--list", "v1.5.*") == ""
    result = tiny.lyra("test", *release, "promote")
    assert result.code == 0, result.text
    manifest = read_bundle_manifest(tiny, "1.5.0-rc.1")
    assert manifest.source.dirty is False
    (image,) = manifest.images
    assert image.references == ["tiny/web:1.5.0-rc.1"]
    rows = json.loads(tiny.lyra("release.list", "--json").out)
    assert [(row["version"], row["bundle"]) for row in rows] == [
        ("2.0.0", None),
        ("1.5.0-rc.1", "promotion/tiny/1.5.0-rc.1"),
        ("1.4.3", "promotion/tiny/1.4.3"),
        ("1.4.2", None),
    ]
