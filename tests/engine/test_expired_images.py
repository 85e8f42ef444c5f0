"""What builds and tests leave in the engine and in the temporary directory, after several edits."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.sandbox.layout import Sandbox
from tests.conftest import Project

EDITS = 5


def references(engine: Engine) -> set[str]:
    """Return the references of the project in the engine."""
    tags = (tag for image in engine.api.images() for tag in image.get("RepoTags") or [])
    return {tag for tag in tags if tag.startswith("tiny/")}


@pytest.mark.thorough
def test_edits_leave_a_handful_of_references(tiny: Project, engine: Engine, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    removed = ""
    for number in range(EDITS):
        (tiny.root / "app" / "www" / "index.html").write_text(f"It is tiny. {number}\n")
        built = tiny.lyra("build", TMPDIR=str(scratch))
        assert built.code == 0, built.text
        removed = built.text
    assert len(references(engine)) == 3
    assert "Removed old images beyond keep_images = 3: tiny/web:" in removed
    promoted = tiny.lyra("test", "promote", TMPDIR=str(scratch))
    assert promoted.code == 0, promoted.text
    assert list(scratch.iterdir()) == []
    checked = tiny.lyra("history", "--check")
    assert checked.code == 0, checked.text


def test_line_with_failing_test_keeps_limits_of_its_build(tiny: Project, engine: Engine) -> None:
    config = tiny.root / ".lyra.toml"
    config.write_text(f"{config.read_text()}\n[resources]\nkeep_images = 1\n")
    tested = None
    for number in range(2):
        (tiny.root / "app" / "www" / "index.html").write_text(f"It is huge. {number}\n")
        tested = tiny.lyra("build", "test")
        assert tested.code == 5, tested.text
        assert len(references(engine)) == 1
    assert tested is not None
    assert "Removed old images beyond keep_images = 1: tiny/web:" in tested.text


def test_reference_that_a_container_uses_stays(tiny: Project, engine: Engine) -> None:
    built = tiny.lyra("build")
    assert built.code == 0, built.text
    (used,) = references(engine)
    container = engine.api.create_container(used, name="somebodys")
    try:
        for number in range(EDITS):
            (tiny.root / "app" / "www" / "index.html").write_text(f"It is tiny. {number}\n")
            built = tiny.lyra("build")
            assert built.code == 0, built.text
        assert used in references(engine)
    finally:
        engine.api.remove_container(container["Id"])


def test_unchanged_image_keeps_its_reference_under_a_new_version(tiny: Project, engine: Engine) -> None:
    built = tiny.lyra("build")
    assert built.code == 0, built.text
    (reference,) = references(engine)
    (tiny.root / "README.md").write_text("Not in the image.\n")
    for version in ("uncommitted", "tagged"):
        if version == "tagged":
            (tiny.root / "README.md").unlink()
            subprocess.run(["git", "tag", "v1.0.0"], cwd=tiny.root, check=True)
        built = tiny.lyra("build")
        assert built.code == 0, built.text
        assert reference in built.out and "unchanged" in built.out
        assert references(engine) == {reference}, version
    assert json.loads(tiny.lyra("status", "--json").out)["images"][0]["version"] == "1.0.0"
    promoted = tiny.lyra("test", "promote")
    assert promoted.code == 0, promoted.text
    assert "tiny-1.0.0" in promoted.text or "1.0.0" in promoted.out


def test_notes_of_buildx_go_with_their_build(tiny: Project, box: Sandbox) -> None:
    somebodys = box.config_dir / "buildx" / "refs" / "default" / "default" / "somebodys"
    somebodys.parent.mkdir(parents=True, exist_ok=True)
    somebodys.write_text("{}")
    before = build_notes(box)
    (tiny.root / "app" / "www" / "index.html").write_text("It is tiny.\n")
    built = tiny.lyra("build", "test", "promote")
    assert built.code == 0, built.text
    (tiny.root / "app" / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    assert tiny.lyra("build").code != 0
    assert build_notes(box) == before
    somebodys.unlink()


def build_notes(box: Sandbox) -> set[Path]:
    """Return the files in which Buildx notes the builds of an engine's users."""
    return {path for path in (box.config_dir / "buildx" / "refs").rglob("*") if path.is_file()}


def test_status_after_clean_still_knows_what_is_promoted(tiny: Project) -> None:
    promoted = tiny.lyra("build", "test", "promote")
    assert promoted.code == 0, promoted.text
    version = json.loads(tiny.lyra("status", "--json").out)["promoted_version"]
    assert version
    assert tiny.lyra("clean").code == 0
    status = json.loads(tiny.lyra("status", "--json").out)
    assert status["promoted_version"] == version
    assert status["next_command"].startswith("build")
