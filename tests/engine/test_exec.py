"""Output and exit code of commands in containers are complete, however the bytes arrive."""

from __future__ import annotations

import re
import struct
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.client.exec import exec_command, exec_with_stdio, split_frames
from tests.engine.relay import relayed
from tests.engine.sandboxes import IMAGE, client_of, import_busybox


@pytest.fixture(scope="module")
def sleeper(box: sandbox.Sandbox, busybox: Path) -> Iterator[str]:
    """A container to run commands in."""
    import_busybox(box, busybox)
    container = client_of(box).containers.run(IMAGE, ["/bin/busybox", "sleep", "60"], detach=True)
    yield str(container.id)
    container.remove(force=True)
    client_of(box).images.remove(IMAGE, force=True)


def test_output_sent_with_response_header_is_kept(
    engine: Engine, box: sandbox.Sandbox, sleeper: str, tmp_path: Path
) -> None:
    with relayed(box.socket, tmp_path, response_delay_s=0.5) as relay:
        client = docker.DockerClient(base_url=relay.address)
        slow = replace(engine, client=client, stream_api=client.api)
        assert exec_command(slow, sleeper, ["/bin/busybox", "echo", "hello"]) == (0, "hello\n")
        client.close()


def test_exit_code_is_awaited_after_output_ends(
    engine: Engine, sleeper: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    early = [{"Running": True, "ExitCode": None}, {"Running": False, "ExitCode": None}]
    pending: list[dict[str, Any]] = []
    inspect = engine.api.exec_inspect
    monkeypatch.setattr(engine.api, "exec_inspect", lambda exec_id: pending.pop(0) if pending else inspect(exec_id))
    command = ["/bin/busybox", "sh", "-c", "echo done; exit 3"]
    pending += early
    assert exec_command(engine, sleeper, command) == (3, "done\n")
    pending += early
    assert exec_with_stdio(engine, sleeper, command, directory="", pass_input=False) == 3
    assert capfd.readouterr().out == "done\n"


def test_missing_program_has_its_own_exit_codes(engine: Engine, sleeper: str) -> None:
    code, _ = exec_command(engine, sleeper, ["/nowhere", "-c", ":"])
    assert code in {126, 127}
    assert exec_command(engine, sleeper, ["/bin/busybox", "sh", "-c", "exit 9"]) == (9, "")


@pytest.mark.parametrize("script", ["yes", "trap '' TERM; while :; do sleep 1; done"])
def test_endless_command_ends_in_time_and_memory(engine: Engine, sleeper: str, script: str) -> None:
    tracemalloc.start()
    try:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            exec_command(engine, sleeper, ["/bin/busybox", "sh", "-c", script], timeout=1.5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 3
    assert peak < 20 << 20


def test_beginning_and_end_of_long_output_are_kept(engine: Engine, sleeper: str) -> None:
    script = "echo first; yes | head -c 5000000; echo last; exit 4"
    code, output = exec_command(engine, sleeper, ["/bin/busybox", "sh", "-c", script])
    assert code == 4
    assert output.startswith("first\ny\n") and output.endswith("y\nlast\n")
    assert re.search(r"\n\[lyra: \d{7} bytes left out\]\n", output)
    assert len(output) < 3_000_000


@pytest.mark.parametrize("size", [1, 3, 8, 13, 1000])
def test_frames_are_split_however_they_arrive(size: int) -> None:
    stream = b"".join(
        struct.pack(">BxxxL", kind, len(data)) + data for kind, data in [(1, b"one"), (2, b""), (2, b"two"), (1, b"!")]
    )
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    frames = list(split_frames(chunks))
    assert b"".join(data for kind, data in frames if kind == 1) == b"one!"
    assert b"".join(data for kind, data in frames if kind == 2) == b"two"
