"""The builder that the configuration names: any Buildx driver, and where its results come from.

A builder that is not the engine itself neither sees the engine's images nor puts its results there.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_tasks.engine.contexts import settings_folder
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_PATIENCE = 120.0  # seconds; ssh waits that long for a machine that is gone


@dataclass(frozen=True)
class Builder:
    """A named builder; `elsewhere` if it is not the engine's own, so that its results have to be loaded.

    One that is the engine of a Docker context is used by that `context`: Buildx knows it by no other way.
    """

    name: str
    driver: str
    elsewhere: bool
    context: str = ""


def find_builder(engine: Engine, name: str) -> Builder:
    """The builder of this name; PreconditionError if there is none, or if it cannot hand its results over."""
    done = _docker(engine, "buildx", "inspect", name)
    driver, endpoint = (_value(done.stdout, key) for key in ("Driver", "Endpoint"))
    if done.returncode != 0 or not driver:
        raise PreconditionError(
            f"there is no builder named {name!r}", hint="`docker buildx ls` shows those there are", details=_tail(done)
        )
    if driver != "docker":
        return Builder(name, driver, elsewhere=True)
    # the environment may say where `default` leads, and `--context default` would not ask it
    chosen = [] if endpoint == "default" else ["--context", endpoint]
    asked = _docker(engine, *chosen, "info", "--format", "{{.ID}} {{.DriverStatus}}")
    if asked.returncode != 0:
        raise PreconditionError(
            f"the engine behind the builder {name!r} does not answer",
            hint=f"see `docker --context {endpoint} info`", details=_tail(asked),
        )  # fmt: skip
    identity, _, status = asked.stdout.partition(" ")
    elsewhere = identity != engine.facts.id
    if elsewhere and "io.containerd.snapshotter" not in status:
        raise PreconditionError(
            f"the builder {name!r} is another engine with the classic image store, which hands nothing over",
            hint="let that engine use the containerd image store, or make a builder with another driver",
        )
    return Builder(name, driver, elsewhere, context=endpoint if elsewhere else "")


def bake_words(engine: Engine, builder: Builder | None) -> tuple[str, ...]:
    """What follows `docker` on the command line of a bake; without a builder, the engine itself builds.

    It is named, since somebody may have made another one the current one (`docker buildx use`).
    """
    if builder is not None and builder.context:
        return "--context", builder.context, "buildx", "bake"
    own = engine.cli_environment.get("DOCKER_CONTEXT") or "default"
    return "buildx", "bake", "--builder", builder.name if builder is not None and builder.elsewhere else own


def builder_environment(engine: Engine) -> dict[str, str]:
    """The variables for a named builder: it is the user's own, also where the engine's `docker` has other settings."""
    settings = os.environ.get("BUILDX_CONFIG") or f"{settings_folder()}/buildx"
    return {**engine.cli_environment, "BUILDX_CONFIG": settings}


def _docker(engine: Engine, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **builder_environment(engine)}
    try:
        return subprocess.run(
            [engine.cli, *words], env=environment, capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        said = " ".join(["docker", *words])
        raise PreconditionError(
            f"the builder's machine does not answer: `{said}` took longer than {_PATIENCE:g} s",
            hint="see that it runs and can be reached from here, or leave out [builder] name",
        ) from error


def _value(text: str, key: str) -> str:
    found = re.search(rf"(?m)^{key}:\s*(\S+)", text)
    return found[1] if found else ""


def _tail(done: subprocess.CompletedProcess[str]) -> tuple[str, ...]:
    return tuple(done.stderr.splitlines()[-3:])
