"""Exports of images from a containerd store, which is not that of a private engine."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from lyra_tasks.digests import file_sha256
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.buildx.oci_export import BLOBS_PATH, ExportRequest, can_export, export_layout
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.containers import inspect_image
from tests.engine.sandboxes import IMAGE, client_of, import_busybox


def test_images_are_exported_while_another_one_writes_its_index(
    engine: Engine, box: sandbox.Sandbox, busybox: Path, tmp_path: Path
) -> None:
    if engine.facts.store != "containerd":
        pytest.skip("classic stores only save complete images")
    blobs = tmp_path / "layout" / BLOBS_PATH
    blobs.mkdir(parents=True)
    import_busybox(box, busybox)
    try:
        image_id = str((inspect_image(engine, IMAGE) or {})["Id"])
        requests = [ExportRequest(IMAGE, image_id, engine.facts.platform)] * 3
        assert can_export(engine, requests)
        with (tmp_path / "lock").open("w") as lock, (tmp_path / "layout" / "index.json.lock").open("w") as index_lock:
            fcntl.flock(index_lock, fcntl.LOCK_EX)  # as Buildx does, which waits for no other target
            export_layout(engine, requests, tmp_path / "layout", tmp_path, lock.fileno())
    finally:
        client_of(box).images.remove(IMAGE, force=True)
    assert len(list(blobs.iterdir())) == 3, "a manifest, a config and a layer"
    assert all(file_sha256(path) == path.name for path in blobs.iterdir())
