"""Third-party images: locked, fetched, tested and promoted like own ones."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.engine.vendors import SERVICE, build_vendor_image, docker, save_image

REFERENCE = "vendor/cache:1"
ARCHIVE = '\n[bases.cache]\narchive = "vendor/cache.tar"\n'


def add_service(project: Project, text: str = SERVICE) -> None:
    """Add the vendor's service to the project and commit it."""
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(text)
    project.commit("a service of a vendor")


def read_lock(project: Project) -> dict[str, Any]:
    """Return the pins of the lock file."""
    bases: dict[str, Any] = tomllib.loads((project.root / ".lyra.lock.toml").read_text())["bases"]
    return bases


def read_record(project: Project, name: str = "cache") -> dict[str, Any]:
    """Return the record of an image."""
    (path,) = project.state.glob(f"*/images/{name}@*.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def list_tags(engine: Engine) -> list[str]:
    """Return the tags of all images in the engine."""
    return [tag for image in engine.api.images() for tag in image.get("RepoTags") or []]


@pytest.fixture
def vendor(box: sandbox.Sandbox, busybox: Path, tmp_path: Path, engine: Engine) -> Iterator[str]:
    """Yield the id of the vendor's image, which is in the engine."""
    yield build_vendor_image(box, busybox, tmp_path / "vendor")
    if REFERENCE in list_tags(engine):
        docker(box, "image", "rm", REFERENCE)


def test_archive_is_locked_tested_and_cleaned(tiny: Project, vendor: str, box: sandbox.Sandbox, engine: Engine) -> None:
    save_image(box, REFERENCE, tiny.root / "vendor" / "cache.tar")
    add_service(tiny, ARCHIVE + SERVICE)
    outcome = tiny.lyra("build", "test")
    assert outcome.code == 0, outcome.text
    assert read_lock(tiny)["cache"]["path"] == "vendor/cache.tar"
    record = read_record(tiny)
    assert record["origin"] == {
        "reference": REFERENCE,
        "digest": read_lock(tiny)["cache"]["digest"],
        "source": "archive",
        "local": False,
    }
    assert record["config_digest"] == record["origin"]["digest"], "the bytes of the vendor"
    assert REFERENCE not in list_tags(engine)
    assert record["reference"] in list_tags(engine)
    tiny.clean()
    assert record["reference"] not in list_tags(engine)


def test_image_in_the_engine_keeps_its_tag(tiny: Project, vendor: str, engine: Engine) -> None:
    add_service(tiny)
    outcome = tiny.lyra("build", "test")
    assert outcome.code == 0, outcome.text
    assert read_lock(tiny)[REFERENCE]["local"] is True
    tiny.clean()
    assert REFERENCE in list_tags(engine), "the tag of the vendor was there before"
