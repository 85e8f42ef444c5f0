"""Builds through Buildx: one `bake` on a generated definition, driven by python-on-whales."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.documents import parse_json_object, read_document, translate_failures
from lyra_tasks.engine.buildx.builder import Builder, builder_environment
from lyra_tasks.engine.buildx.contexts import BuildSources, name_contexts
from lyra_tasks.engine.buildx.docker_cli import CancelHook, call_docker_cli
from lyra_tasks.engine.buildx.references import forget_builds
from lyra_tasks.engine.client.contexts import docker_config_directory
from lyra_tasks.engine.client.errors import EXEC_FORMAT_ERROR
from lyra_tasks.errors import BuildError, NoSpaceError, PreconditionError
from lyra_tasks.processes import create_environment
from lyra_tasks.redaction import redact

if TYPE_CHECKING:
    from python_on_whales import DockerClient

    from lyra_tasks.engine.client.connect import Engine

_TAIL_LINES = 25
_NO_SPACE = "no space left on device"
_VERSION_TIMEOUT_S = 60.0
_PLUGIN = "docker-buildx"
_PLUGIN_ROOTS = ("/usr/local/lib/docker", "/usr/local/libexec/docker", "/usr/lib/docker", "/usr/libexec/docker")
_EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"
BUILDX_ENVIRONMENT = {
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",  # attestations give every build another digest
    "BUILDX_METADATA_PROVENANCE": "disabled",
    "BUILDX_BAKE_ENTITLEMENTS_FS": "0",  # it asks about contexts outside of the working directory, which are ours
    "BUILDX_NO_DEFAULT_LOAD": "1",  # a base that is only built on would stay in the engine as an unnamed image
    "BUILDX_GIT_INFO": "0",  # seven calls of git per context, for attestations
}


def format_destination(path: Path) -> str:
    """Return the `dest` field of an output. Buildx parses it as CSV, and a path may hold a comma."""
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
    sources: BuildSources | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Build targets in parallel and return Buildx's metadata by target.

    Args:
        engine: Builds, unless `builder` is a separate one.
        definition: A bake file in JSON.
        metadata: Where Buildx writes its metadata.
        log: BuildKit's progress is appended to it, and shown unless `quiet`; `redacted_values` are replaced in both.
        epoch: Time of everything that is built, in seconds since 1970; None keeps times as they are.
        redacted_values: Values that must not be shown.
        targets: Targets of `definition`; none means its default group.
        builder: A builder that the configuration names.
        cancel_hook: Gets a function that ends the build, and is entered while it runs.
        quiet: Whether progress is only logged.
        lock_handles: Handles of locks that stay held until Buildx has ended, even if this process is killed.
        sources: The build contexts as they were hashed; without them, the contexts are hashed and sent anew.
        on_start: Called once Buildx has written its first line: from then on, this process mostly waits.

    Raises:
        BuildError: The build failed; its details are the last lines of the log.
        NoSpaceError: The engine's disk is full.
        StaleError: A build context changed during the build.
    """
    environment = create_environment(BUILDX_ENVIRONMENT)
    environment |= engine.cli_environment if builder is None else builder_environment(engine)
    environment.pop(_EPOCH_VARIABLE, None)
    if epoch is not None:
        environment[_EPOCH_VARIABLE] = str(epoch)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    document: dict[str, Any] = {}
    started = time.time()
    with (
        name_contexts(definition, _identify_builder(engine, builder), sources) as named_definition,
        log.open("a", encoding="utf-8", buffering=1) as log_file,
        nullcontext() if quiet else console.progress(f"building {_name_targets(targets)}"),
    ):

        def bake(docker: DockerClient) -> bool:
            from python_on_whales.exceptions import DockerException

            lines = docker.buildx.bake(
                targets=list(targets),
                files=[named_definition],
                builder=_select_builder(engine, builder),
                progress="plain",
                metadata_file=metadata,
                stream_logs=True,
            )
            try:
                for number, line in enumerate(lines):
                    if number == 0:
                        on_start()
                    _forward_line(line, redacted_values, log_file, tail, quiet=quiet)
            except DockerException:  # its text is the command line; the reason is in the log
                return False
            return True

        try:
            has_succeeded = call_docker_cli(
                engine,
                bake,
                environment=environment,
                context=builder.context if builder else "",
                merge_output=True,
                lock_handles=lock_handles,
                cancel_hook=cancel_hook,
            )
            if not has_succeeded:
                raise _build_error(tail, log)
            with translate_failures(
                lambda problem: BuildError(f"Cannot read {metadata}, which Buildx wrote: {problem}")
            ):
                document = parse_json_object(read_document(metadata))
        finally:
            forget_builds(environment, named_definition.parent, document, started)
    return document


def _name_targets(targets: Sequence[str]) -> str:
    return ", ".join(target.removeprefix("image-") for target in targets) or "the images"


def _select_builder(engine: Engine, builder: Builder | None) -> str | None:
    """Name the builder always: somebody may have made another one the current one (`docker buildx use`)."""
    if builder is None or not builder.is_separate:
        return engine.cli_environment.get("DOCKER_CONTEXT") or "default"
    return None if builder.context else builder.name


def _identify_builder(engine: Engine, builder: Builder | None) -> str:
    if builder is None or not builder.is_separate:
        return engine.facts.id
    return f"{builder.name} {builder.driver} {builder.context}"


def _forward_line(line: str, redacted_values: Sequence[str], log: IO[str], tail: deque[str], *, quiet: bool) -> None:
    line = console.sanitize(redact(line.rstrip("\n"), redacted_values))
    log.write(line + "\n")
    tail.append(line)
    if line and not quiet:
        console.print_raw(line, _parse_step(line))


def _parse_step(line: str) -> str:
    """Return the Dockerfile step of a progress line, such as `[runtime 3/5] COPY . /app`, or ''."""
    match = re.match(r"#\d+ (\[.+\] .+)", line)
    return match[1] if match else ""


def _build_error(tail: Sequence[str], log: Path) -> BuildError | NoSpaceError:
    cause = _error_line(tail)
    log_hint = f"The whole log is in {log}"
    if any(_NO_SPACE in line for line in tail):
        return NoSpaceError(f"build failed: {cause}", hint=f"Free some space there. {log_hint}", details=tuple(tail))
    if any(EXEC_FORMAT_ERROR in line for line in tail):
        return BuildError(
            f"a step runs a program for another platform, which the engine cannot execute: {cause}",
            hint="Cross-compile in a stage `FROM --platform=$BUILDPLATFORM …` and COPY from it, or set up emulation "
            f"(binfmt_misc) on the engine's machine. {log_hint}",
            details=tuple(tail),
        )
    if "failed to resolve" in cause and "docker/dockerfile" in cause:
        log_hint = f"Delete the `# syntax=` line, so that the engine's own frontend reads the Dockerfile. {log_hint}"
    return BuildError(f"build failed: {cause}", hint=log_hint, details=tuple(tail))


def _error_line(tail: Sequence[str]) -> str:
    """Return BuildKit's own reason, which it prints as the last `ERROR:` line."""
    for line in reversed(tail):
        if line.startswith("ERROR: "):
            return line.removeprefix("ERROR: ").removeprefix("target ")
    return "Buildx gave no reason"


def require_buildx(engine: Engine) -> None:
    """Raise PreconditionError if the `docker` command or its Buildx plugin is missing. Neither is run."""
    if shutil.which(engine.cli) and any(
        os.access(directory / _PLUGIN, os.X_OK) for directory in _plugin_directories(engine)
    ):
        return
    read_buildx_version(engine)


def _plugin_directories(engine: Engine) -> tuple[Path, ...]:
    """Return where the `docker` command looks for plugins, unless its configuration names other places."""
    settings = engine.cli_environment.get("DOCKER_CONFIG") or docker_config_directory()
    return tuple(Path(root, "cli-plugins") for root in (settings, *_PLUGIN_ROOTS))


def read_buildx_version(engine: Engine) -> str:
    """Return the version of the Buildx plugin, such as 0.19.3.

    Raises:
        PreconditionError: It, or the `docker` command, is missing.
    """
    from python_on_whales.exceptions import DockerException

    environment = create_environment(engine.cli_environment)
    try:
        version = call_docker_cli(
            engine, lambda docker: docker.buildx.version(), environment=environment, timeout=_VERSION_TIMEOUT_S
        )
    except DockerException as error:
        raise PreconditionError(
            "Docker Buildx not found",
            hint="Install Docker's buildx plugin (package docker-buildx or docker-buildx-plugin)",
        ) from error
    except TimeoutError as error:
        raise PreconditionError(
            f"`docker buildx version` did not answer within {_VERSION_TIMEOUT_S:g} s",
            hint="Reinstall the buildx plugin",
        ) from error
    # "github.com/docker/buildx v0.19.3 …"; Debian writes it without the v
    fields = version.split()
    return fields[1].removeprefix("v") if len(fields) > 1 else ""


def select_target_metadata(document: Mapping[str, Any], target: str) -> Mapping[str, Any]:
    """Return Buildx's metadata of one target; BuildError if there is none."""
    metadata = document.get(target)
    if not isinstance(metadata, dict) or "containerimage.digest" not in metadata:
        raise BuildError(f"Buildx reported no digest for {target}", hint="Update the buildx plugin to 0.10 or newer")
    return metadata
