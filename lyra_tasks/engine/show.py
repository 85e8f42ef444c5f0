"""Show the results of `engine.*`."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.results.engine import (
    EngineProperties,
    EngineStartPreview,
    EngineStatus,
    EngineStopPreview,
    NoEngine,
    StartedEngine,
    StoppedEngine,
)

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.sandbox import Sandbox


def show_start_plan(suite: str) -> EngineStartPreview:
    """Show what `engine.up` would start."""
    preview = EngineStartPreview(suite)
    if not console.print_result(preview):
        console.print(f"Would start a private engine from {suite} packages")
    return preview


def show_started_engine(sandbox: Sandbox) -> StartedEngine:
    """Show the address of the private engine, and print the variables for the docker command for a shell to eval."""
    started = StartedEngine(sandbox.address, sandbox.environment())
    if not console.print_result(started):
        console.info(f"The private engine runs; published ports are at {started.address}. For the docker command:")
        for name, value in started.environment.items():
            console.print_verbatim(f"export {name}={shlex.quote(value)}")
    return started


def show_stop_plan(*, is_running: bool) -> EngineStopPreview:
    """Show whether `engine.down` would stop an engine."""
    preview = EngineStopPreview(is_running)
    if not console.print_result(preview):
        console.print("Would stop the private engine" if is_running else "No private engine to stop")
    return preview


def show_stopped_engine(*, was_running: bool) -> StoppedEngine:
    """Show whether an engine was stopped."""
    stopped = StoppedEngine(was_running)
    if not console.print_result(stopped):
        console.print("Stopped the private engine" if was_running else "The private engine was not running")
    return stopped


def _describe_engine(engine: Engine) -> EngineStatus:
    properties = {field.name: getattr(engine.facts, field.name) for field in fields(EngineProperties)}
    return EngineStatus(**properties, host_address=engine.host_address)


def show_engine_status(engine: Engine | None) -> EngineStatus | NoEngine:
    """Show the engine that is used, if one runs."""
    status = _describe_engine(engine) if engine else NoEngine()
    if console.print_result(status):
        return status
    if isinstance(status, NoEngine):
        console.print("No engine runs; a private engine is started when needed")
    else:
        kind, memory = "private engine" if status.sandboxed else "engine", console.format_bytes(status.memory)
        console.print(
            f"{kind} {status.version}, {status.store} image store, {console.format_count(status.cpus, 'CPU')}, {memory}"
        )
    return status
