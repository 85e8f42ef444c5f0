"""`engine.*` and `bases.*`: the private engine, and where the images' bases come from."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import dry, word


@word("up")
def up(c: Any, dry_run: bool = False) -> None:
    """Start this project's private Docker engine (Debian or Ubuntu, root; installs nothing)."""
    from lyra_tasks.engine.connect import start_sandbox
    from lyra_tasks.engine.workspace import SANDBOX_STARTED

    work = workspace()
    if dry(c):
        return console.say(f"would start a private engine from {work.config.engine.suite}'s packages")
    box = start_sandbox(work.config, work.paths)
    work.journal.append(work.run, SANDBOX_STARTED, by="user")
    console.say(f"the engine is up; published ports answer at {box.address}. For the docker command:")
    for name, value in box.environment().items():
        console.say(f"  export {name}='{value}'")
    return None


@word("down")
def down(c: Any, dry_run: bool = False) -> None:
    """Stop the private engine; its images stay on disk until `clean --all`."""
    from lyra_tasks.engine import sandbox

    work = workspace(in_part=True)
    if dry(c):
        return console.say("would stop the private engine" if sandbox.find(work.paths.state) else "no engine to stop")
    report = sandbox.down(work.paths.state)
    work.journal.append(work.run, "sandbox-stopped", was_running=report.was_running)
    sandbox.require_nothing_left(report)
    return console.say("the engine is down" if report.was_running else "the engine was not running")


@word("status")
def status(c: Any, json: bool = False) -> None:
    """Which engine is used, and what it is."""
    from dataclasses import asdict

    from lyra_tasks.engine.connect import connect_running

    work = workspace(in_part=True)
    engine = connect_running(work.config, work.paths)
    if engine is None:
        return _show({}, "no engine runs; one is started when it is needed")
    facts = engine.facts
    kind = "sandbox engine" if facts.sandboxed else "engine"
    line = f"{kind} {facts.version}, {facts.store} image store, {facts.cpus} CPUs, {console.size(facts.memory)}"
    return _show(asdict(facts) | {"reach_at": engine.reach_at}, line)


@word("build")
def bases_build(c: Any, dry_run: bool = False) -> None:
    """Resolve and lock every base, and make those that are made here."""
    _bases(c, update=False)


@word("update")
def bases_update(c: Any, dry_run: bool = False) -> None:
    """Resolve every base anew and move the lock."""
    _bases(c, update=True)


def _bases(c: Any, *, update: bool) -> None:
    from lyra_tasks.build import facts, show

    show.bases(facts.bases(workspace(), update=update, dry=dry(c)))


def _show(document: dict[str, Any], line: str) -> None:
    from lyra_tasks.tasks.word import line_flags

    if "--json" in line_flags():
        console.document(document)
    else:
        console.say(line)
