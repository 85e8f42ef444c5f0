"""A stage ends whatever happens on either side of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from lyra_tasks.images.stream.pipeline import Block, PipelineStep


def test_blocks_arrive_in_order_and_the_result_comes_back() -> None:
    with PipelineStep(b"".join) as stage:
        for number in range(100):
            stage.put(bytes([number]))
        assert stage.finish() == bytes(range(100))


def test_a_consumer_that_fails_while_its_queue_is_full_blocks_nobody() -> None:
    def fail(blocks: Iterator[Block]) -> None:
        time.sleep(0.2)
        raise ValueError("no more")

    seen: list[str] = []

    def produce() -> None:
        try:
            with PipelineStep(fail) as stage:
                for _ in range(100):
                    stage.put(b"x")
                stage.finish()
        except ValueError as error:
            seen.append(str(error))

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    producer.join(5)
    assert seen == ["no more"]


def test_a_consumer_that_fails_at_the_very_end_is_heard() -> None:
    def fail(blocks: Iterator[Block]) -> None:
        list(blocks)
        raise ValueError("incomplete")

    with PipelineStep(fail) as stage, pytest.raises(ValueError, match="incomplete"):
        stage.put(b"x")
        stage.finish()


def test_leaving_the_context_early_ends_the_thread() -> None:
    before = threading.active_count()
    with pytest.raises(ConnectionError), PipelineStep(b"".join) as stage:
        stage.put(b"x")
        raise ConnectionError
    assert threading.active_count() == before
