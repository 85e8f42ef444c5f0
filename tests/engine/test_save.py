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
