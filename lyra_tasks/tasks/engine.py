"""Tasks for the engine and the base images: `engine.*` and `bases.*`."""

from __future__ import annotations

from invoke.context import Context

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.task import task


@task("engine.up")
def engine_up(c: Context, dry_run: bool = False, quiet: bool = False) -> None:
    """Start this project's private engine (Debian or Ubuntu, as root)."""
    from lyra_tasks.engine.client.connect import start_sandbox
    from lyra_tasks.engine.workspace import SANDBOX_STARTED

    work = workspace()
    if dry_run:
        return console.print(f"Would start a private engine from {work.config.engine.suite} packages")
    sandbox = start_sandbox(work.config, work.paths)
    work.journal.append(work.run, SANDBOX_STARTED, by="user")
    console.print(f"The private engine runs; published ports are at {sandbox.address}. For the docker command:")
    for name, value in sandbox.environment().items():
        console.print_verbatim(f"  export {name}='{value}'")
    return None


@task("engine.down")
def engine_down(c: Context, dry_run: bool = False, quiet: bool = False) -> None:
    """Stop the private engine; its images stay on disk until `clean --all`."""
    from lyra_tasks.engine.sandbox import find_sandbox, require_clean_stop, shut_down_sandbox

    work = workspace(allow_invalid=True)
    if dry_run:
        return console.print(
            "Would stop the private engine" if find_sandbox(work.paths.state) else "No private engine to stop"
        )
    report = shut_down_sandbox(work.paths.state)
    work.journal.append(work.run, "sandbox-stopped", was_running=report.was_running)
    require_clean_stop(report)
    return console.print("Stopped the private engine" if report.was_running else "The private engine was not running")


@task("engine.status")
def engine_status(c: Context, json: bool = False, quiet: bool = False) -> None:
    """Show which engine is used."""
    from dataclasses import asdict

    from lyra_tasks.engine.client.connect import connect_running_engine

    work = workspace(allow_invalid=True)
    engine = connect_running_engine(work.config, work.paths)
    document, line = {}, "No engine runs; a private engine is started when needed"
    if engine is not None:
        facts, memory = engine.facts, console.format_bytes(engine.facts.memory)
        document = asdict(facts) | {"host_address": engine.host_address}
        kind = "private engine" if facts.sandboxed else "engine"
        line = f"{kind} {facts.version}, {facts.store} image store, {facts.cpus} CPUs, {memory}"
    if console.is_json_mode():
        return console.print_json(document)
    return console.print(line)


@task("bases.build")
def bases_build(c: Context, dry_run: bool = False, quiet: bool = False) -> None:
    """Resolve and lock all base images, and build the local ones."""
    _resolve_bases(update=False, dry_run=dry_run)


@task("bases.update")
def bases_update(c: Context, dry_run: bool = False, quiet: bool = False) -> None:
    """Resolve all base images again and update the lock file."""
    _resolve_bases(update=True, dry_run=dry_run)


def _resolve_bases(*, update: bool, dry_run: bool) -> None:
    from lyra_tasks.builds.facts import prepare_bases
    from lyra_tasks.builds.show import print_bases

    print_bases(prepare_bases(workspace(), update=update, dry_run=dry_run))
