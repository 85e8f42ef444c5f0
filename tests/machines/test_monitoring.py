"""Following the logs of containers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lyra_tasks.engine.client.monitoring import LogFollower


def test_resumed_log_labels_lines_with_their_stream(tmp_path: Path) -> None:
    both_requested = threading.Event()

    def read_logs(container: str, *, stdout: bool, **options: Any) -> Iterator[bytes]:
        def wait_and_send() -> Iterator[bytes]:
            both_requested.wait(10)
            yield b"output\n" if stdout else b"failure\n"

        if not stdout:
            both_requested.set()
        return wait_and_send()

    engine: Any = SimpleNamespace(stream_api=SimpleNamespace(logs=read_logs))
    follower = LogFollower(engine, "web", tmp_path / "web.log")
    follower.resume(0.0)
    follower.finish()
    assert sorted(line.split(" ", 1)[1] for line in follower.lines()) == ["err failure", "out output"]
