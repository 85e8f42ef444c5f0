"""Releases on the real engine: the tag, and the bundle of exactly that version from exactly the tested bytes."""

from __future__ import annotations

import json

from lyra_tasks.bundle.read import read_manifest
from tests.conftest import Project


def test_one_line_makes_a_bundle_of_exactly_the_released_version_from_the_tested_bytes(tiny: Project) -> None:
    result = tiny.lyra("build", "test", "release", "promote")
    assert result.code == 0, result.text
    assert tiny.git("cat-file", "-t", "v0.1.0").strip() == "tag"
    (bundle,) = tiny.bundles()
    manifest = read_manifest(bundle)
    assert (manifest.version, manifest.is_snapshot) == ("0.1.0", False)
    (image,) = manifest.images
    assert image.references == ["tiny/web:0.1.0", "tiny/web:0.1", "tiny/web:0", "tiny/web:latest"]
    tested = json.loads((bundle / "evidence" / "tests.json").read_text())
    assert tested, "the evidence travels"
    assert "- start (" in (bundle / "CHANGES.md").read_text()
    assert "- start (" in tiny.git("tag", "--list", "--format=%(contents)", "v0.1.0")
    assert tiny.lyra("verify").code == 0
    assert "promoted already" in tiny.lyra("promote").out
