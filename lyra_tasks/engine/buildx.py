"""Builds through Buildx: one `bake` on a generated definition."""

from __future__ import annotations

import json
import os
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from lyra_tasks import console
from lyra_tasks.engine.builder import Builder, bake_words, builder_environment
from lyra_tasks.errors import BuildError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_TAIL = 25
_GRACE = 5.0
# Attestations would make every build's digest another one; the entitlement check asks about contexts outside of the
# working directory, which are ours; a base that is only built on would stay in the engine as an image without a name.
ENVIRONMENT = {
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    "BUILDX_METADATA_PROVENANCE": "disabled",
    "BUILDX_BAKE_ENTITLEMENTS_FS": "0",
    "BUILDX_NO_DEFAULT_LOAD": "1",
}


def bake(
    engine: Engine,
    definition: Path,
    *,
    metadata: Path,
    log: Path,
    epoch: int,
    masked: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    builder: Builder | None = None,
) -> dict[str, Any]:
    """Build `targets` of `definition` (default: its default group) in parallel; returns Buildx's metadata by target.

    BuildKit's progress goes to stderr and to `log`, values in `masked` blotted out. BuildError carries the last lines.
    """
    command: list[str | Path] = [
        *_docker(engine), *bake_words(engine, builder), "--progress", "plain", "--file", definition,
        "--metadata-file", metadata, *targets,
    ]  # fmt: skip
    chosen = engine.cli_environment if builder is None else builder_environment(engine)
    environment = {**os.environ, **ENVIRONMENT, **chosen, "SOURCE_DATE_EPOCH": str(epoch)}
    tail: deque[str] = deque(maxlen=_TAIL)
    with log.open("a", encoding="utf-8") as file, _child(command, environment) as (process, lines):
        for line in lines:
            _pass_on(line, masked, file, tail)
        code = process.wait()
    if code != 0:
        raise BuildError(f"the build failed: {_cause(tail)}", hint=f"the whole log is in {log}", details=tuple(tail))
    document: dict[str, Any] = json.loads(metadata.read_text())
    return document


def _docker(engine: Engine) -> list[str]:
    from python_on_whales import DockerClient
    from python_on_whales.client_config import ClientNotFoundError

    try:
        return [str(word) for word in DockerClient(client_call=[engine.cli]).client_config.docker_cmd]
    except ClientNotFoundError as error:
        raise BuildError("the docker command is not installed", hint="install the Docker CLI and buildx") from error


@contextmanager
def _child(
    command: Sequence[str | Path], environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A program and what it prints, both streams together; it does not outlive the block, whatever ends that.

    python-on-whales would leave the child of an interrupted call running.
    """
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield process, cast("IO[bytes]", process.stdout)
        finally:
            process.terminate()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


def _pass_on(raw: bytes, masked: tuple[str, ...], log: IO[str], tail: deque[str]) -> None:
    line = raw.decode(errors="replace").rstrip("\n")
    for value in masked:
        line = line.replace(value, "***")
    log.write(line + "\n")
    tail.append(line)
    if line:
        console.passthrough(line)


def _cause(tail: deque[str]) -> str:
    """BuildKit's own word for what failed, which it prints as the last `ERROR:` line."""
    for line in reversed(tail):
        if line.startswith("ERROR: "):
            return line.removeprefix("ERROR: ").removeprefix("target ")
    return "buildx gave no reason"


def metadata_of(document: Mapping[str, Any], target: str) -> Mapping[str, Any]:
    """Buildx's metadata of one target; BuildError if it said nothing about it."""
    found = document.get(target)
    if not isinstance(found, dict) or "containerimage.digest" not in found:
        raise BuildError(f"buildx reported no digest for {target}", hint="update the buildx plugin to 0.10 or newer")
    return found
