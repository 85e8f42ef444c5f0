"""Builds through Buildx: one `bake` on a generated definition."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from lyra_tasks import console
from lyra_tasks.engine.buildx.builder import Builder, bake_command, builder_environment
from lyra_tasks.engine.client.contexts import docker_config_directory
from lyra_tasks.errors import BuildError, NoSpaceError, PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

CancelHook = Callable[[Callable[[], None]], AbstractContextManager[Any]]

_TAIL_LINES = 25
_NO_SPACE = "no space left on device"
_EXEC_FORMAT_ERROR = "exec format error"
_KILL_DELAY_S = 3.0
_VERSION_TIMEOUT_S = 60.0
_PLUGIN = "docker-buildx"
_PLUGIN_ROOTS = ("/usr/local/lib/docker", "/usr/local/libexec/docker", "/usr/lib/docker", "/usr/libexec/docker")
_EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"
# Attestations would make every build's digest another one; the entitlement check asks about contexts outside of the
# working directory, which are ours; a base that is only built on would stay in the engine as an image without a name;
# what git says of every context, in seven questions each, is for attestations.
BUILDX_ENVIRONMENT = {
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    "BUILDX_METADATA_PROVENANCE": "disabled",
    "BUILDX_BAKE_ENTITLEMENTS_FS": "0",
    "BUILDX_NO_DEFAULT_LOAD": "1",
    "BUILDX_GIT_INFO": "0",
}


def escape_bake_definition(definition: str) -> str:
    """A bake definition, written as JSON, that means what it says: `${` and `%{` would begin an expression in it."""
    return definition.replace("${", "$${").replace("%{", "%%{")


def format_destination(path: Path) -> str:
    """The `dest` of an output, which Buildx reads as a field of CSV: a path may hold a comma."""
    return '"dest={}"'.format(str(path).replace('"', '""'))


def bake_targets(
    engine: Engine,
    definition: Path,
    *,
    metadata: Path,
    log: Path,
    epoch: int | None,
    redacted_values: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    builder: Builder | None = None,
    cancel_hook: CancelHook = lambda _: nullcontext(),
    quiet: bool = False,
    lock_handles: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Build `targets` of `definition` (default: its default group) in parallel; returns Buildx's metadata by target.

    BuildKit's progress goes to `log` and, unless `quiet`, to stderr, values in `masked` blotted out. BuildError carries
    the last lines, NoSpaceError too. `epoch` is the time of what is made, in seconds since 1970; None leaves times as
    they are. `ending` is given how to end the build, and entered while it runs. Locks whose handles are in `held`
    stay held until Buildx has ended, though this process be killed.
    """
    command: list[str | Path] = [
        *bake_command(engine, builder), "--progress", "plain", "--file", definition,
        "--metadata-file", metadata, *targets,
    ]  # fmt: skip
    engine_environment = engine.cli_environment if builder is None else builder_environment(engine)
    environment = {**os.environ, **BUILDX_ENVIRONMENT, **engine_environment}
    environment.pop(_EPOCH_VARIABLE, None)
    if epoch is not None:
        environment[_EPOCH_VARIABLE] = str(epoch)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with (
        log.open("a", encoding="utf-8", buffering=1) as file,
        _running_process(command, environment, lock_handles) as (process, lines),
        cancel_hook(lambda: _terminate(process)),
        nullcontext() if quiet else console.progress(f"building {', '.join(targets) or 'the images'}"),
    ):
        for line in lines:
            _forward_line(line, redacted_values, file, tail, quiet=quiet)
        code = process.wait()
    if code != 0 and any(_NO_SPACE in line for line in tail):
        raise NoSpaceError(
            f"the build found {_NO_SPACE}: {_error_line(tail)}", hint=f"free space there; the whole log is in {log}",
            details=tuple(tail),
        )  # fmt: skip
    if code != 0 and any(_EXEC_FORMAT_ERROR in line for line in tail):
        raise BuildError(
            f"a step runs a program for another platform, which the engine does not: {_error_line(tail)}",
            hint="cross-compile in a stage `FROM --platform=$BUILDPLATFORM …` and COPY from it, or set up emulation "
            f"(binfmt_misc) on the engine's machine; the whole log is in {log}",
            details=tuple(tail),
        )
    if code != 0:
        cause = _error_line(tail)
        raise BuildError(f"the build failed: {cause}", hint=_hint(cause, log), details=tuple(tail))
    result: dict[str, Any] = json.loads(metadata.read_text())
    return result


@contextmanager
def _running_process(
    command: Sequence[str | Path], environment: Mapping[str, str], lock_handles: tuple[int, ...]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A program and what it prints, both streams together; it does not outlive the block, whatever ends that.

    python-on-whales would leave the child of an interrupted call running, and takes 0.1 s to import.
    """
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        pass_fds=lock_handles,
    ) as process:  # fmt: skip
        try:
            yield process, cast("IO[bytes]", process.stdout)
        finally:
            if process.poll() is None:
                _terminate(process)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """End the docker command and its plugin, which otherwise waits for the step that runs, at once or soon after."""
    _signal_session(process, signal.SIGTERM)
    timer = threading.Timer(_KILL_DELAY_S, _signal_session, (process, signal.SIGKILL))
    timer.daemon = True
    timer.start()


def _signal_session(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To all of the session that the program is the first of; its number is its own while anything of it runs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _forward_line(
    data: bytes, redacted_values: tuple[str, ...], log: IO[str], tail: deque[str], *, quiet: bool
) -> None:
    line = data.decode(errors="replace").rstrip("\n")
    for value in redacted_values:
        line = line.replace(value, "***")
    log.write(line + "\n")
    tail.append(line)
    if line and not quiet:
        console.print_raw(line, _parse_step(line))


def _parse_step(line: str) -> str:
    """The step of a Dockerfile that a line is about, such as `[runtime 3/5] COPY . /app`; nothing for other lines."""
    match = re.match(r"#\d+ (\[.+\] .+)", line)
    return match[1] if match else ""


def _error_line(tail: deque[str]) -> str:
    """BuildKit's own word for what failed, which it prints as the last `ERROR:` line."""
    for line in reversed(tail):
        if line.startswith("ERROR: "):
            return line.removeprefix("ERROR: ").removeprefix("target ")
    return "buildx gave no reason"


def _hint(error: str, log: Path) -> str:
    log_hint = f"the whole log is in {log}"
    if "failed to resolve" in error and "docker/dockerfile" in error:
        return f"delete the `# syntax=` line, so that the engine's own frontend reads the Dockerfile; {log_hint}"
    return log_hint


def require_buildx(engine: Engine) -> None:
    """PreconditionError if the `docker` CLI or its buildx plugin is missing; one in its place is not asked."""
    if shutil.which(engine.cli) and any(
        os.access(directory / _PLUGIN, os.X_OK) for directory in _plugin_directories(engine)
    ):
        return
    read_buildx_version(engine)


def _plugin_directories(engine: Engine) -> tuple[Path, ...]:
    """Where the `docker` CLI looks for plugins, as long as its configuration names no other places."""
    settings = engine.cli_environment.get("DOCKER_CONFIG") or docker_config_directory()
    return tuple(Path(root, "cli-plugins") for root in (settings, *_PLUGIN_ROOTS))


def read_buildx_version(engine: Engine) -> str:
    """The version of the buildx plugin, as it says; PreconditionError if it, or the `docker` CLI, is missing."""
    if shutil.which(engine.cli) is None:
        raise PreconditionError(
            "the docker command is not installed", hint="install the Docker CLI and its buildx plugin"
        )
    environment = {**os.environ, **engine.cli_environment}
    command = [engine.cli, "buildx", "version"]
    result = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=_VERSION_TIMEOUT_S)
    if result.returncode != 0:
        raise PreconditionError(
            "docker buildx is not installed",
            hint="install Docker's buildx plugin (package docker-buildx or docker-buildx-plugin)",
        )
    # "github.com/docker/buildx v0.19.3 …", or without the v, as Debian writes it
    words = result.stdout.decode(errors="replace").split()
    return words[1].removeprefix("v") if len(words) > 1 else ""


def select_target_metadata(document: Mapping[str, Any], target: str) -> Mapping[str, Any]:
    """Buildx's metadata of one target; BuildError if it said nothing about it."""
    metadata = document.get(target)
    if not isinstance(metadata, dict) or "containerimage.digest" not in metadata:
        raise BuildError(f"buildx reported no digest for {target}", hint="update the buildx plugin to 0.10 or newer")
    return metadata
