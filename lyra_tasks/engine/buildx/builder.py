"""The builder that the configuration names: any Buildx driver, and where its results come from.

A builder that is not the engine itself neither sees the engine's images nor puts its results there.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_tasks.engine.client.contexts import docker_config_directory
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_BUILDER_TIMEOUT_S = 120.0  # seconds; ssh waits that long for a machine that is gone


@dataclass(frozen=True)
class Builder:
    """A named builder; `elsewhere` if it is not the engine's own, so that its results have to be loaded.

    One that is the engine of a Docker context is used by that `context`: Buildx knows it by no other way.
    """

    name: str
    driver: str
    is_separate: bool
    context: str = ""


def find_builder(engine: Engine, name: str) -> Builder:
    """The builder of this name; PreconditionError if there is none, or if it cannot hand its results over."""
    inspection = _run_docker(engine, *_docker_command(engine), "buildx", "inspect", name)
    driver, endpoint = (_parse_field(inspection.stdout, key) for key in ("Driver", "Endpoint"))
    if inspection.returncode != 0 or not driver:
        raise PreconditionError(
            f"there is no builder named {name!r}",
            hint="`docker buildx ls` shows those there are",
            details=_last_error_lines(inspection),
        )
    if driver != "docker":
        return Builder(name, driver, is_separate=True)
    # the environment may say where `default` leads, and `--context default` would not ask it
    docker_command = _docker_command(engine, context="" if endpoint == "default" else endpoint)
    engine_info = _run_docker(engine, *docker_command, "info", "--format", "{{.ID}} {{.DriverStatus}}")
    if engine_info.returncode != 0:
        raise PreconditionError(
            f"the engine behind the builder {name!r} does not answer",
            hint=f"see `docker --context {endpoint} info`", details=_last_error_lines(engine_info),
        )  # fmt: skip
    engine_id, _, status = engine_info.stdout.partition(" ")
    is_separate = engine_id != engine.facts.id
    if is_separate and "io.containerd.snapshotter" not in status:
        raise PreconditionError(
            f"the builder {name!r} is another engine with the classic image store, which hands nothing over",
            hint="let that engine use the containerd image store, or make a builder with another driver",
        )
    return Builder(name, driver, is_separate, context=endpoint if is_separate else "")


def bake_command(engine: Engine, builder: Builder | None) -> list[str]:
    """The command line of a bake, up to its options; without a builder elsewhere, the engine itself builds.

    It is named, since somebody may have made another one the current one (`docker buildx use`).
    """
    if builder is None or not builder.is_separate:
        engine_builder = engine.cli_environment.get("DOCKER_CONTEXT") or "default"
        return [engine.cli, "buildx", "bake", "--builder", engine_builder]
    if builder.context:
        return [*_docker_command(engine, context=builder.context), "buildx", "bake"]
    return [*_docker_command(engine), "buildx", "bake", "--builder", builder.name]


def builder_environment(engine: Engine) -> dict[str, str]:
    """The variables for a named builder: it is the user's own, also where the engine's `docker` has other settings."""
    settings = os.environ.get("BUILDX_CONFIG") or f"{docker_config_directory()}/buildx"
    return {**engine.cli_environment, "BUILDX_CONFIG": settings}


def _docker_command(engine: Engine, *, context: str = "") -> list[str]:
    """The docker command, for the engine of a context if one is named; its import takes 0.1 s."""
    from python_on_whales import DockerClient

    return [str(argument) for argument in DockerClient(client_call=[engine.cli], context=context or None).docker_cmd]


def _run_docker(engine: Engine, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **builder_environment(engine)}
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_BUILDER_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        command_line = " ".join(["docker", *command[1:]])
        raise PreconditionError(
            f"the builder's machine does not answer: `{command_line}` took longer than {_BUILDER_TIMEOUT_S:g} s",
            hint="see that it runs and can be reached from here, or leave out [builder] name",
        ) from error


def _parse_field(text: str, key: str) -> str:
    match = re.search(rf"(?m)^{key}:\s*(\S+)", text)
    return match[1] if match else ""


def _last_error_lines(result: subprocess.CompletedProcess[str]) -> tuple[str, ...]:
    return tuple(result.stderr.splitlines()[-3:])
