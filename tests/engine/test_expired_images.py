"""What builds and tests leave in the engine and in the temporary directory, after several edits."""

from __future__ import annotations

from pathlib import Path

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project

EDITS = 5


def references(engine: Engine) -> set[str]:
    """Return the references of the project in the engine."""
    tags = (tag for image in engine.api.images() for tag in image.get("RepoTags") or [])
    return {tag for tag in tags if tag.startswith("tiny/")}


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
