"""What an engine saves, as a stream: it ends where it should, or says what went wrong."""

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
    """An image of one layer, and not a small one."""
    import_busybox(box, busybox)
    yield
    client_of(box).images.remove(IMAGE, force=True)


def test_every_byte_is_counted_and_the_engine_is_heard_to_the_end(engine: Engine, tmp_path: Path) -> None:
    told: list[int] = []
    with open_save_stream(engine, [IMAGE], told.append) as stream:
        packed = pack_saved_images(stream, {0: ImageRequest(IMAGE)}, tmp_path, "gzip")[0]
        assert stream.skip(1) == 0
    (layer,) = packed.identity.layers
    assert sum(told) > layer.size > 1_000_000


def test_an_engine_that_ends_in_the_middle_of_a_layer_stopped_answering(
    engine: Engine, box: sandbox.Sandbox, tmp_path: Path
) -> None:
    with (
        relayed(box.socket, tmp_path, most=500_000) as relay,
        pytest.raises(EngineUnavailableError, match="stopped answering while saving images"),
        open_save_stream(replace(engine, cli_environment={"DOCKER_HOST": relay.address}), [IMAGE]) as stream,
    ):
        pack_saved_images(stream, {0: ImageRequest(IMAGE)}, tmp_path, "gzip")


def test_an_image_that_the_engine_does_not_hold_is_refused_in_its_own_words(engine: Engine) -> None:
    with (
        pytest.raises(PreconditionError, match=r"lyra-nobody/nothing:1|does not exist"),
        open_save_stream(engine, ["lyra-nobody/nothing:1"]),
    ):
        pass
