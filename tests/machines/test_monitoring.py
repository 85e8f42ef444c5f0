"""Following the logs of containers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lyra_tasks.engine.client.monitoring import LogFollower, read_log_lines


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
    assert sorted(line.split(" ", 1)[1] for line in follower.last_lines(5)) == ["err failure", "out output"]


def test_endless_line_is_split_with_its_time_and_without_parts_of_secrets() -> None:
    secret = "known-to-nobody"

    def read_logs(_container: str, **_options: Any) -> Iterator[bytes]:
        yield b"2026-01-01T00:00:00Z "
        for _ in range(300):
            yield b"." * (16384 - 20)
            yield secret.encode()[:7]
            yield secret.encode()[7:]
        yield b"\n2026-01-01T00:00:01Z end\n"

    engine: Any = SimpleNamespace(stream_api=SimpleNamespace(logs=read_logs))
    *pieces, last = read_log_lines(engine, "web", redacted_values=[secret])
    assert last == ("2026-01-01T00:00:01Z", "end")
    assert len(pieces) > 3 and {timestamp for timestamp, _ in pieces} == {"2026-01-01T00:00:00Z"}
    assert "".join(text for _, text in pieces) == ("." * (16384 - 20) + "***") * 300
