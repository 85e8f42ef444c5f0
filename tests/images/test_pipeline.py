"""Pipeline steps end whatever happens on either side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from lyra_tasks.images.stream.codec import PipelineStep
from lyra_tasks.images.stream.tar import Block


def test_step_consumes_blocks_in_order_and_returns_result() -> None:
    with PipelineStep(b"".join) as step:
        for number in range(100):
            step.put(bytes([number]))
        assert step.finish() == bytes(range(100))


def test_failing_consumer_with_full_queue_does_not_block() -> None:
    def fail(blocks: Iterator[Block]) -> None:
        time.sleep(0.2)
        raise ValueError("no more")

    errors: list[str] = []

    def produce() -> None:
        try:
            with PipelineStep(fail) as step:
                for _ in range(100):
                    step.put(b"x")
                step.finish()
        except ValueError as error:
            errors.append(str(error))

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    producer.join(5)
    assert errors == ["no more"]


def test_error_at_end_of_consumer_is_raised() -> None:
    def fail(blocks: Iterator[Block]) -> None:
        list(blocks)
        raise ValueError("incomplete")

    with PipelineStep(fail) as step, pytest.raises(ValueError, match="incomplete"):
        step.put(b"x")
        step.finish()


def test_leaving_context_early_ends_thread() -> None:
    before = threading.active_count()
    with pytest.raises(ConnectionError), PipelineStep(b"".join) as step:
        step.put(b"x")
        raise ConnectionError
    assert threading.active_count() == before
