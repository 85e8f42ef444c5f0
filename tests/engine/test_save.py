"""The stream of saved images ends where it should, or reports an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.buildx.save_stream import open_save_stream
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.errors import EngineUnavailableError, PreconditionError
from lyra_tasks.images.stream.pack import ImageRequest, pack_saved_images
from tests.engine.relay import relayed
from tests.engine.sandboxes import IMAGE, client_of, import_busybox


@pytest.fixture(scope="module", autouse=True)
def image(box: sandbox.Sandbox, busybox: Path) -> Iterator[None]:
    """An image with one layer of several megabytes."""
    import_busybox(box, busybox)
    yield
    client_of(box).images.remove(IMAGE, force=True)


def test_save_stream_counts_bytes_and_is_read_to_the_end(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr("lyra_tasks.console.count_bytes", counts.append)
    with open_save_stream(engine, [IMAGE]) as stream:
        packed = pack_saved_images(stream, {0: ImageRequest(IMAGE)}, tmp_path, "gzip")[0]
        assert stream.skip(1) == 0
    (layer,) = packed.identity.layers
    assert sum(counts) > layer.size > 1_000_000


def test_interrupted_save_stream_reports_lost_engine(engine: Engine, box: sandbox.Sandbox, tmp_path: Path) -> None:
    with (
        relayed(box.socket, tmp_path, max_bytes=500_000) as relay,
        pytest.raises(EngineUnavailableError, match="stopped responding while saving images"),
        open_save_stream(replace(engine, cli_environment={"DOCKER_HOST": relay.address}), [IMAGE]) as stream,
    ):
        pack_saved_images(stream, {0: ImageRequest(IMAGE)}, tmp_path, "gzip")


def test_saving_missing_image_reports_engine_reason(engine: Engine) -> None:
    with (
        pytest.raises(PreconditionError, match=r"lyra-nobody/nothing:1|does not exist"),
        open_save_stream(engine, ["lyra-nobody/nothing:1"]),
    ):
        pass


def test_blobs_of_private_engine_are_read_like_its_save(engine: Engine, tmp_path: Path) -> None:
    if engine.blobs is None:
        pytest.skip("a classic store has no blobs")
    image_id = str(engine.api.inspect_image(IMAGE)["Id"])
    images = []
    for number, source in enumerate((replace(engine, stream_api=None), replace(engine, blobs=None))):
        spool = tmp_path / str(number)
        spool.mkdir()
        with open_save_stream(source, [image_id]) as stream:  # without `stream_api` it cannot ask the engine
            images.append(pack_saved_images(stream, {0: ImageRequest(image_id)}, spool, "gzip")[0].identity)
    assert images[0] == images[1]


def test_missing_blobs_leave_a_save_to_the_engine(engine: Engine, tmp_path: Path) -> None:
    image_id = str(engine.api.inspect_image(IMAGE)["Id"])
    with open_save_stream(replace(engine, blobs=tmp_path / "missing"), [image_id]) as stream:
        packed = pack_saved_images(stream, {0: ImageRequest(image_id)}, tmp_path, "gzip")[0]
    assert packed.identity.layers
