"""What builds and tests leave in the engine and in the temporary directory, after several edits."""

from __future__ import annotations

import json
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


def test_limits_hold_after_a_failing_test_and_spare_what_is_used(tiny: Project, engine: Engine) -> None:
    config = tiny.root / ".lyra.toml"
    config.write_text(f"{config.read_text()}\n[resources]\nkeep_images = 1\n")
    page = tiny.root / "app" / "www" / "index.html"
    built = tiny.lyra("build")
    assert built.code == 0, built.text
    page.write_text("It is huge.\n")
    tested = tiny.lyra("build", "test")
    assert tested.code == 5, tested.text
    assert "Removed old images beyond keep_images = 1: tiny/web:" in tested.text, "a line keeps the limits of its build"
    (used,) = references(engine)
    container = engine.api.create_container(used, name="somebodys")
    try:
        for number in range(2):
            page.write_text(f"It is tiny. {number}\n")
            built = tiny.lyra("build")
            assert built.code == 0, built.text
        assert used in references(engine) and len(references(engine)) == 2, "a container uses the reference"
    finally:
        engine.api.remove_container(container["Id"])


def test_unchanged_image_keeps_its_reference_until_it_is_promoted_and_cleaned(
    tiny: Project, engine: Engine, box: Sandbox
) -> None:
    somebodys = box.config_dir / "buildx" / "refs" / "default" / "default" / "somebodys"
    somebodys.parent.mkdir(parents=True, exist_ok=True)
    somebodys.write_text("{}")
    before = build_notes(box)
    built = tiny.lyra("build")
    assert built.code == 0, built.text
    (reference,) = references(engine)
    (tiny.root / "README.md").write_text("Not in the image.\n")
    for version in ("uncommitted", "tagged"):
        if version == "tagged":
            (tiny.root / "README.md").unlink()
            tiny.git("tag", "v1.0.0")
        built = tiny.lyra("build")
        assert built.code == 0, built.text
        assert reference in built.out and "unchanged" in built.out
        assert references(engine) == {reference}, version
    assert json.loads(tiny.lyra("status", "--json").out)["images"][0]["version"] == "1.0.0"
    promoted = tiny.lyra("test", "promote")
    assert promoted.code == 0, promoted.text
    assert "tiny-1.0.0" in promoted.text or "1.0.0" in promoted.out
    assert json.loads(tiny.lyra("status", "--json").out)["promoted_version"] == "1.0.0"
    assert tiny.lyra("clean").code == 0
    status = json.loads(tiny.lyra("status", "--json").out)
    assert status["promoted_version"] == "1.0.0", "it is known after the images are removed"
    assert status["next_command"].startswith("build")
    (tiny.root / "app" / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    assert tiny.lyra("build").code != 0
    assert build_notes(box) == before, "what Buildx notes goes with the build, whether it has failed or not"
    somebodys.unlink()


def build_notes(box: Sandbox) -> set[Path]:
    """Return the files in which Buildx notes the builds of an engine's users."""
    return {path for path in (box.config_dir / "buildx" / "refs").rglob("*") if path.is_file()}
