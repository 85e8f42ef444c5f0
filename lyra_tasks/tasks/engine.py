"""`engine.*` and `bases.*`: the private engine, and where the images' bases come from."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.task import is_dry_run, task


@task("up")
def engine_up(c: Any, dry_run: bool = False) -> None:
    """Start this project's private Docker engine (Debian or Ubuntu, root; installs nothing)."""
    from lyra_tasks.engine.client.connect import start_sandbox
    from lyra_tasks.engine.workspace import SANDBOX_STARTED

    work = workspace()
    if is_dry_run(c):
        return console.print(f"would start a private engine from {work.config.engine.suite}'s packages")
    private_engine = start_sandbox(work.config, work.paths)
    work.journal.append(work.run, SANDBOX_STARTED, by="user")
    console.print(f"the engine is up; published ports answer at {private_engine.address}. For the docker command:")
    for name, value in private_engine.environment().items():
        console.print(f"  export {name}='{value}'")
    return None


@task("down")
def engine_down(c: Any, dry_run: bool = False) -> None:
    """Stop the private engine; its images stay on disk until `clean --all`."""
    from lyra_tasks.engine import sandbox

    work = workspace(allow_invalid=True)
    if is_dry_run(c):
        return console.print(
            "would stop the private engine" if sandbox.find_sandbox(work.paths.state) else "no engine to stop"
        )
    report = sandbox.shut_down_sandbox(work.paths.state)
    work.journal.append(work.run, "sandbox-stopped", was_running=report.was_running)
    sandbox.require_clean_stop(report)
    return console.print("the engine is down" if report.was_running else "the engine was not running")


@task("status")
def engine_status(c: Any, json: bool = False) -> None:
    """Which engine is used, and what it is."""
    from dataclasses import asdict

    from lyra_tasks.engine.client.connect import connect_running_engine

    work = workspace(allow_invalid=True)
    engine = connect_running_engine(work.config, work.paths)
    if engine is None:
        return _print_engine_status({}, "no engine runs; one is started when it is needed")
    facts = engine.facts
    kind = "sandbox engine" if facts.sandboxed else "engine"
    line = f"{kind} {facts.version}, {facts.store} image store, {facts.cpus} CPUs, {console.format_bytes(facts.memory)}"
    return _print_engine_status(asdict(facts) | {"reach_at": engine.host_address}, line)


@task("build")
def bases_build(c: Any, dry_run: bool = False) -> None:
    """Resolve and lock every base, and make those that are made here."""
    _resolve_bases(c, update=False)


@task("update")
def bases_update(c: Any, dry_run: bool = False) -> None:
    """Resolve every base anew and move the lock."""
    _resolve_bases(c, update=True)


def _resolve_bases(c: Any, *, update: bool) -> None:
    from lyra_tasks.builds.facts import prepare_bases
    from lyra_tasks.builds.show import print_bases

    print_bases(prepare_bases(workspace(), update=update, dry_run=is_dry_run(c)))


def _print_engine_status(engine_document: dict[str, Any], line: str) -> None:
    from lyra_tasks.tasks.task import command_line_options

    if "--json" in command_line_options():
        console.print_json(engine_document)
    else:
        console.print(line)
