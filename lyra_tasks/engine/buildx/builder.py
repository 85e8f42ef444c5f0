"""The builder that the configuration names: any Buildx driver, and where its results come from.

A builder that is not the engine itself neither sees the engine's images nor puts its results there.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lyra_tasks.engine.buildx.docker_cli import call_docker_cli
from lyra_tasks.engine.client.contexts import docker_config_directory
from lyra_tasks.errors import PreconditionError
from lyra_tasks.processes import create_environment

if TYPE_CHECKING:
    from python_on_whales import DockerClient

    from lyra_tasks.engine.client.connect import Engine

ResultT = TypeVar("ResultT")
_BUILDER_TIMEOUT_S = 120.0  # ssh waits that long for a machine that is gone


@dataclass(frozen=True)
class Builder:
    """A named builder. One that `is_separate` is not the engine's own, so its results have to be loaded.

    One that is the engine of a Docker context is used by that `context`: Buildx knows it by no other way.
    """

    name: str
    driver: str
    is_separate: bool
    context: str = ""


def find_builder(engine: Engine, name: str) -> Builder:
    """Return the builder of this name.

    Raises:
        PreconditionError: It does not exist, does not answer, or cannot hand its results over.
    """
    driver, endpoint = _call(
        engine, name, _inspect(name), f"Unknown builder {name!r}", "Run `docker buildx ls` to see the existing ones"
    )
    if driver != "docker":
        return Builder(name, driver, is_separate=True)
    # the environment may say where `default` leads, and `--context default` would not ask it
    context = "" if endpoint == "default" else endpoint
    engine_id, storage = _call(
        engine,
        name,
        lambda docker: ((info := docker.system.info()).id or "", str(info.driver_status)),
        f"The engine of builder {name!r} does not answer",
        f"Run `docker --context {shlex.quote(endpoint)} info` to see why",
        context=context,
    )
    is_separate = engine_id != engine.facts.id
    if is_separate and "io.containerd.snapshotter" not in storage:
        raise PreconditionError(
            f"Builder {name!r} is another engine with the classic image store, which cannot export images",
            hint="Switch that engine to the containerd image store, or create a builder with another driver",
        )
    return Builder(name, driver, is_separate, context=endpoint if is_separate else "")


def builder_environment(engine: Engine) -> dict[str, str]:
    """Return the variables for a named builder: the user's own, also where the engine's `docker` has other settings."""
    settings = os.environ.get("BUILDX_CONFIG") or f"{docker_config_directory()}/buildx"
    return {**engine.cli_environment, "BUILDX_CONFIG": settings}


def _inspect(name: str) -> Callable[[DockerClient], tuple[str, str]]:
    def inspect(docker: DockerClient) -> tuple[str, str]:
        builder = docker.buildx.inspect(name)
        nodes = builder.nodes or ()
        return builder.driver or "", next((node.endpoint or "" for node in nodes), "")

    return inspect


def _call(
    engine: Engine,
    name: str,
    call: Callable[[DockerClient], ResultT],
    message: str,
    hint: str,
    *,
    context: str = "",
) -> ResultT:
    from python_on_whales.exceptions import DockerException

    environment = create_environment(builder_environment(engine))
    try:
        return call_docker_cli(engine, call, environment=environment, context=context, timeout=_BUILDER_TIMEOUT_S)
    except DockerException as error:
        raise PreconditionError(message, hint=hint, details=_last_lines(error.stderr or "")) from error
    except ValueError as error:  # python-on-whales lists all builders after it has inspected one
        raise PreconditionError(message, hint=hint) from error
    except TimeoutError as error:
        raise PreconditionError(
            f"Builder {name!r} did not answer within {_BUILDER_TIMEOUT_S:g} s",
            hint="Check that its machine runs and can be reached from here, or remove [builder] name",
        ) from error


def _last_lines(text: str) -> tuple[str, ...]:
    return tuple(text.splitlines()[-3:])
