"""The `docker` command, called through python-on-whales.

python-on-whales leaves the child of an interrupted call running, has no time limit, and gives its children no handles.
So the command runs below a small launcher, in a session of its own that can be ended as a whole.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import private_directory
from lyra_tasks.processes import signal_session

if TYPE_CHECKING:
    from python_on_whales import DockerClient

    from lyra_tasks.engine.client.connect import Engine

ResultT = TypeVar("ResultT")
CancelHook = Callable[[Callable[[], None]], AbstractContextManager[Any]]
"""Given how to end the command; entered while it runs."""

_LAUNCHER = Path(__file__).with_name("launcher.py")
_KILL_DELAY_S = 3.0
_START_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.01


def preload_docker_cli() -> None:
    """Import python-on-whales in the background, which takes 0.1 s, while the engine and git are asked."""
    threading.Thread(target=_import_client, daemon=True).start()


def _import_client() -> type[DockerClient]:
    from python_on_whales import DockerClient

    return DockerClient


def call_docker_cli(
    engine: Engine,
    call: Callable[[DockerClient], ResultT],
    *,
    environment: Mapping[str, str],
    context: str = "",
    merge_output: bool = False,
    timeout: float | None = None,
    lock_handles: tuple[int, ...] = (),
    cancel_hook: CancelHook = lambda _: nullcontext(),
) -> ResultT:
    """Return what `call` makes of python-on-whales' client.

    Args:
        engine: Its `docker` command is used.
        call: Runs in a thread of its own, so that Ctrl-C reaches the one that waits for it.
        environment: The whole environment of the command.
        context: A Docker context to use instead of what the environment says.
        merge_output: Whether standard error joins standard output, in the order of writing.
        timeout: Seconds after which the command is ended.
        lock_handles: Handles of locks that stay held until the command has ended, even if this process is killed.
        cancel_hook: Gets a function that ends the command.

    Raises:
        PreconditionError: There is no `docker` command.
        TimeoutError: The command took longer than `timeout`.
        DockerException: The command failed (python-on-whales' own exception).
    """
    program = shutil.which(engine.cli)
    if program is None:
        raise PreconditionError("Docker CLI not found", hint="Install the Docker CLI and its buildx plugin")
    with private_directory("docker") as control, ThreadPoolExecutor(1) as executor:
        scratch = control / "tmp"  # Buildx leaves a directory here for each Dockerfile that is part of a definition
        scratch.mkdir()
        _write_environment(control / "environment", {**environment, "TMPDIR": str(scratch)})
        (control / "parent").write_text(str(os.getpid()))
        command = [
            sys.executable,
            "-I",
            "-S",
            str(_LAUNCHER),
            str(control),
            *(["--merge-output"] if merge_output else []),
            program,
        ]
        with _lifetime(control / "lifetime", lock_handles):
            future = executor.submit(lambda: call(_import_client()(client_call=command, context=context or None)))
            try:
                with cancel_hook(lambda: _end_session(control, future)):
                    return future.result(timeout)
            finally:
                if not future.done():
                    _end_session(control, future)
                    future.exception()


def _write_environment(path: Path, environment: Mapping[str, str]) -> None:
    path.touch(mode=0o600)
    path.write_bytes(b"\0".join(os.fsencode(f"{name}={value}") for name, value in environment.items()))


@contextmanager
def _lifetime(fifo: Path, lock_handles: tuple[int, ...]) -> Iterator[None]:
    """Keep locks held by a process that ends when nobody has `fifo` open for writing any more.

    It can be given the handles, unlike the children of python-on-whales.
    """
    os.mkfifo(fifo, 0o600)
    # opened here, since a process that opens a FIFO waits for its other end, which a killed one never opens
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    writer = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
    os.set_blocking(reader, True)
    holder = None
    try:
        if lock_handles:
            holder = subprocess.Popen(
                ["cat"], stdin=reader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=lock_handles,
                start_new_session=True,
            )  # fmt: skip
        yield
    finally:
        os.close(writer)
        os.close(reader)
        if holder is not None:
            with suppress(subprocess.TimeoutExpired):
                holder.wait(_START_TIMEOUT_S)
            holder.kill()
            holder.wait()


def _end_session(control: Path, future: Future[Any]) -> None:
    """End the docker command and its plugin, which otherwise waits for the step that runs, at once or soon after."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not (control / "pid").exists():
        if future.done() or time.monotonic() > deadline:
            return
        time.sleep(_POLL_INTERVAL_S)
    session = int((control / "pid").read_text())
    _signal_session(session, signal.SIGTERM, future)
    timer = threading.Timer(_KILL_DELAY_S, _signal_session, (session, signal.SIGKILL, future))
    timer.daemon = True
    timer.start()


def _signal_session(session: int, number: signal.Signals, future: Future[Any]) -> None:
    """Signal every process of the session; its number is its own until its first process has been waited for."""
    if not future.done():
        signal_session(session, number)
