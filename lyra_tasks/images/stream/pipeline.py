"""Pipeline steps in threads: hashing, compressing and reading at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Generic, TypeVar

T = TypeVar("T")

Block = bytes | bytearray
_QUEUE_LENGTH = 3


class PipelineStep(Generic[T]):
    """Runs `consume` in a thread on the blocks given to `put`; leaving the context ends the thread."""

    def __init__(self, consume: Callable[[Iterator[Block]], T]) -> None:
        self._consume = consume
        self._queue: Queue[Block | None] = Queue(_QUEUE_LENGTH)
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PipelineStep[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def put(self, block: Block) -> None:
        """Hand over a block, which must not be changed afterwards; an error of the thread is raised here."""
        if self._error:
            raise self._error
        self._queue.put(block)

    def finish(self) -> T:
        """Return the result of `consume` after the last block; an error of the thread is raised here."""
        self._close()
        if self._error:
            raise self._error
        return self._result[0]

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _blocks(self) -> Iterator[Block]:
        while (block := self._queue.get()) is not None:
            yield block

    def _run(self) -> None:
        blocks = self._blocks()
        try:
            self._result.append(self._consume(blocks))
        except BaseException as error:
            self._error = error
        for _ in blocks:  # a full queue would block the other side forever
            pass
