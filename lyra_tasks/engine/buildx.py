"""Builds through Buildx: one `bake` on a generated definition."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.errors import BuildError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_TAIL = 25
# Attestations would make every build's digest another one; the entitlement check asks about contexts outside of the
# working directory, which are ours.
_ENVIRONMENT = {
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    "BUILDX_METADATA_PROVENANCE": "disabled",
    "BUILDX_BAKE_ENTITLEMENTS_FS": "0",
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
) -> dict[str, Any]:
    """Build `targets` of `definition` (default: its default group) in parallel; returns Buildx's metadata by target.

    BuildKit's progress goes to stderr and to `log`, values in `masked` blotted out. BuildError carries the last lines.
    """
    from python_on_whales.client_config import ClientNotFoundError
    from python_on_whales.exceptions import DockerException
    from python_on_whales.utils import stream_stdout_and_stderr

    command: list[Any] = [
        engine.cli, "buildx", "bake", "--progress", "plain", "--file", definition, "--metadata-file", metadata,
        *targets,
    ]  # fmt: skip
    environment = {**os.environ, **_ENVIRONMENT, **engine.cli_environment, "SOURCE_DATE_EPOCH": str(epoch)}
    tail: deque[str] = deque(maxlen=_TAIL)
    try:
        with log.open("a", encoding="utf-8") as file:
            for _, line in stream_stdout_and_stderr(command, environment):
                _pass_on(line, masked, file, tail)
    except DockerException as error:
        raise BuildError(
            f"the build failed: {_cause(tail)}", hint=f"the whole log is in {log}", details=tuple(tail)
        ) from error
    except ClientNotFoundError as error:
        raise BuildError("the docker command is not installed", hint="install the Docker CLI and buildx") from error
    document: dict[str, Any] = json.loads(metadata.read_text())
    return document


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
