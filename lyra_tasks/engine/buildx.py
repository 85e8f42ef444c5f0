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
from lyra_tasks.engine.builder import Builder, bake_command, builder_environment
from lyra_tasks.engine.contexts import settings_folder
from lyra_tasks.errors import BuildError, NoSpaceError, PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

Ending = Callable[[Callable[[], None]], AbstractContextManager[Any]]

_TAIL = 25
_FULL = "no space left on device"
_FOREIGN = "exec format error"
_GRACE = 3.0
_PATIENCE = 60.0
_PLUGIN = "docker-buildx"
_SHARED = ("/usr/local/lib/docker", "/usr/local/libexec/docker", "/usr/lib/docker", "/usr/libexec/docker")
_EPOCH = "SOURCE_DATE_EPOCH"
# Attestations would make every build's digest another one; the entitlement check asks about contexts outside of the
# working directory, which are ours; a base that is only built on would stay in the engine as an image without a name;
# what git says of every context, in seven questions each, is for attestations.
ENVIRONMENT = {
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    "BUILDX_METADATA_PROVENANCE": "disabled",
    "BUILDX_BAKE_ENTITLEMENTS_FS": "0",
    "BUILDX_NO_DEFAULT_LOAD": "1",
    "BUILDX_GIT_INFO": "0",
}


def literal(definition: str) -> str:
    """A bake definition, written as JSON, that means what it says: `${` and `%{` would begin an expression in it."""
    return definition.replace("${", "$${").replace("%{", "%%{")


def destination(place: Path) -> str:
    """The `dest` of an output, which Buildx reads as a field of CSV: a path may hold a comma."""
    return '"dest={}"'.format(str(place).replace('"', '""'))


def bake(
    engine: Engine,
    definition: Path,
    *,
    metadata: Path,
    log: Path,
    epoch: int | None,
    masked: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    builder: Builder | None = None,
    ending: Ending = lambda _: nullcontext(),
    quiet: bool = False,
    held: tuple[int, ...] = (),
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
    chosen = engine.cli_environment if builder is None else builder_environment(engine)
    environment = {**os.environ, **ENVIRONMENT, **chosen}
    environment.pop(_EPOCH, None)
    if epoch is not None:
        environment[_EPOCH] = str(epoch)
    tail: deque[str] = deque(maxlen=_TAIL)
    with (
        log.open("a", encoding="utf-8", buffering=1) as file,
        _child(command, environment, held) as (process, lines),
        ending(lambda: _end(process)),
        nullcontext() if quiet else console.doing(f"building {', '.join(targets) or 'the images'}"),
    ):
        for line in lines:
            _pass_on(line, masked, file, tail, quiet=quiet)
        code = process.wait()
    if code != 0 and any(_FULL in line for line in tail):
        raise NoSpaceError(
            f"the build found {_FULL}: {_cause(tail)}", hint=f"free space there; the whole log is in {log}",
            details=tuple(tail),
        )  # fmt: skip
    if code != 0 and any(_FOREIGN in line for line in tail):
        raise BuildError(
            f"a step runs a program for another platform, which the engine does not: {_cause(tail)}",
            hint="cross-compile in a stage `FROM --platform=$BUILDPLATFORM …` and COPY from it, or set up emulation "
            f"(binfmt_misc) on the engine's machine; the whole log is in {log}",
            details=tuple(tail),
        )
    if code != 0:
        cause = _cause(tail)
        raise BuildError(f"the build failed: {cause}", hint=_advice(cause, log), details=tuple(tail))
    document: dict[str, Any] = json.loads(metadata.read_text())
    return document


@contextmanager
def _child(
    command: Sequence[str | Path], environment: Mapping[str, str], held: tuple[int, ...]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A program and what it prints, both streams together; it does not outlive the block, whatever ends that.

    python-on-whales would leave the child of an interrupted call running, and takes 0.1 s to import.
    """
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        pass_fds=held,
    ) as process:  # fmt: skip
        try:
            yield process, cast("IO[bytes]", process.stdout)
        finally:
            if process.poll() is None:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the docker command and its plugin, which otherwise waits for the step that runs, at once or soon after."""
    _signal(process, signal.SIGTERM)
    later = threading.Timer(_GRACE, _signal, (process, signal.SIGKILL))
    later.daemon = True
    later.start()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To all of the session that the program is the first of; its number is its own while anything of it runs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _pass_on(raw: bytes, masked: tuple[str, ...], log: IO[str], tail: deque[str], *, quiet: bool) -> None:
    line = raw.decode(errors="replace").rstrip("\n")
    for value in masked:
        line = line.replace(value, "***")
    log.write(line + "\n")
    tail.append(line)
    if line and not quiet:
        console.passthrough(line, _step(line))


def _step(line: str) -> str:
    """The step of a Dockerfile that a line is about, such as `[runtime 3/5] COPY . /app`; nothing for other lines."""
    match = re.match(r"#\d+ (\[.+\] .+)", line)
    return match[1] if match else ""


def _cause(tail: deque[str]) -> str:
    """BuildKit's own word for what failed, which it prints as the last `ERROR:` line."""
    for line in reversed(tail):
        if line.startswith("ERROR: "):
            return line.removeprefix("ERROR: ").removeprefix("target ")
    return "buildx gave no reason"


def _advice(cause: str, log: Path) -> str:
    where = f"the whole log is in {log}"
    if "failed to resolve" in cause and "docker/dockerfile" in cause:
        return f"delete the `# syntax=` line, so that the engine's own frontend reads the Dockerfile; {where}"
    return where


def require_buildx(engine: Engine) -> None:
    """PreconditionError if the `docker` CLI or its buildx plugin is missing; one in its place is not asked."""
    if shutil.which(engine.cli) and any(os.access(folder / _PLUGIN, os.X_OK) for folder in _plugin_folders(engine)):
        return
    buildx_version(engine)


def _plugin_folders(engine: Engine) -> tuple[Path, ...]:
    """Where the `docker` CLI looks for plugins, as long as its configuration names no other places."""
    settings = engine.cli_environment.get("DOCKER_CONFIG") or settings_folder()
    return tuple(Path(folder, "cli-plugins") for folder in (settings, *_SHARED))


def buildx_version(engine: Engine) -> str:
    """The version of the buildx plugin, as it says; PreconditionError if it, or the `docker` CLI, is missing."""
    if shutil.which(engine.cli) is None:
        raise PreconditionError(
            "the docker command is not installed", hint="install the Docker CLI and its buildx plugin"
        )
    environment = {**os.environ, **engine.cli_environment}
    command = [engine.cli, "buildx", "version"]
    found = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=_PATIENCE)
    if found.returncode != 0:
        raise PreconditionError(
            "docker buildx is not installed",
            hint="install Docker's buildx plugin (package docker-buildx or docker-buildx-plugin)",
        )
    # "github.com/docker/buildx v0.19.3 …", or without the v, as Debian writes it
    words = found.stdout.decode(errors="replace").split()
    return words[1].removeprefix("v") if len(words) > 1 else ""


def metadata_of(document: Mapping[str, Any], target: str) -> Mapping[str, Any]:
    """Buildx's metadata of one target; BuildError if it said nothing about it."""
    found = document.get(target)
    if not isinstance(found, dict) or "containerimage.digest" not in found:
        raise BuildError(f"buildx reported no digest for {target}", hint="update the buildx plugin to 0.10 or newer")
    return found
