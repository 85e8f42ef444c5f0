"""`create` and `dev.*`: a lab to develop in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import dry, line_flags, remainder, word

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace
    from lyra_tasks.records.dev import DevLab

_SERVICE = "the service that is meant; may be left out where only one has a dev table"
_SHELL = ["/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec /bin/sh; fi"]


@word(
    iterable=("service",),
    service="create only this service and what it depends on (repeatable)",
    watch="carry later changes of the source in, until Ctrl-C; the lab stays",
)
def create(
    c: Any, service: Any = None, watch: bool = False, dry_run: bool = False, yes: bool = False, json: bool = False
) -> None:
    """Start services to develop in, the source in a temporary volume; called again, changes only what must change."""
    from lyra_tasks.build import development as building
    from lyra_tasks.lab import dev, show_dev

    work = workspace()
    profile = _profile(work, tuple(service or ()), connect=not dry(c))
    if dry(c):
        return show_dev.planned(profile)
    with dev.alone(work):
        creation = dev.gather(profile, building.build(profile))
        created = dev.run(creation, yes="--yes" in line_flags())
    show_dev.created(created, work)
    if watch:
        _watch(work, created.lab, "")
    return None


@word("shell", service=_SERVICE)
def shell(c: Any, service: str = "") -> None:
    """A shell in a service of the development lab, in a real terminal; ends with the shell's exit code."""
    from lyra_tasks.engine.terminal import attach_terminal

    work, lab, name = _entered(service)
    _end_with(attach_terminal(work.engine, lab.services[name].id, _SHELL, folder=_folder(lab, name)))


@word("exec", service=_SERVICE)
def execute(c: Any, service: str = "") -> None:
    """Run the command after `--` in a service of the development lab; ends with the command's exit code."""
    import sys

    from lyra_tasks.engine.terminal import execute as run
    from lyra_tasks.errors import InterruptedRunError, UsageError

    command = remainder()
    if not command:
        raise UsageError("there is no command", hint="write it after two dashes: dev.exec -- ls -l")
    work, lab, name = _entered(service)
    pass_input = not sys.stdin.isatty()
    try:
        code = run(work.engine, lab.services[name].id, command, folder=_folder(lab, name), pass_input=pass_input)
    except KeyboardInterrupt as error:
        console.note("interrupted; the command may run on inside: `dev.shell` has a terminal that Ctrl-C reaches")
        raise Exit(code=InterruptedRunError.exit_code) from error
    _end_with(code)


@word(
    "sync",
    iterable=("back",),
    service="only this service's source",
    watch="carry later changes in too, until Ctrl-C",
    back="bring this file or folder out instead, unless it is newer here (repeatable)",
)
def sync(c: Any, service: str = "", watch: bool = False, back: Any = None, json: bool = False) -> None:
    """Carry what changed in the source into the development lab, or bring files out."""
    from lyra_tasks.lab import show_dev
    from lyra_tasks.lab.back import bring_back
    from lyra_tasks.lab.dev import lab_of, mirrors_of
    from lyra_tasks.lab.sync import carry_in

    work = workspace()
    lab = lab_of(work)
    if back:
        work, lab, name = _entered(service)
        mirror = mirrors_of(work, lab, (name,))[name]
        return show_dev.brought_back([file for path in back for file in bring_back(mirror, path)])
    if watch:
        return _watch(work, lab, service)
    mirrors = mirrors_of(work, lab, (service,) if service else ())
    return show_dev.synced([carry_in(mirror) for mirror in mirrors.values()])


@word("stop")
def stop(c: Any, yes: bool = False, dry_run: bool = False, json: bool = False) -> None:
    """Remove the development lab; asks if there are edits that exist only inside. Its logs are kept."""
    from lyra_tasks.lab import dev, dev_stop, show_dev

    work = workspace(in_part=True)
    with dev.alone(work):
        ending = dev_stop.plan(work)
        if ending is None:
            return show_dev.nothing_to_stop()
        if dry(c):
            return show_dev.would_stop(ending)
        show_dev.agreed_to_lose(ending, yes="--yes" in line_flags())
        dev_stop.run(work, ending)
        return show_dev.stopped(work, ending)


def before_cleaning(work: Workspace) -> None:
    """Warn of edits that `clean` will take away, and keep the development lab's logs."""
    from lyra_tasks.errors import PreconditionError
    from lyra_tasks.lab import dev_stop, show_dev
    from lyra_tasks.records.dev import DevStore

    try:
        DevStore(work.paths.state).read()
    except PreconditionError as error:
        console.warn(f"{error.message}; what the lab printed, and edits inside, cannot be kept")
        return
    ending = dev_stop.plan(work)
    if ending is not None:
        show_dev.warned(ending)
        dev_stop.keep_logs(work, ending)


def _profile(work: Workspace, chosen: tuple[str, ...], *, connect: bool) -> Workspace:
    """The workspace with the development profile of the chosen services as its configuration.

    Of images for several platforms it has those for the engine's own, which only an engine says for certain.
    """
    from lyra_tasks.config.development import development
    from lyra_tasks.config.platforms import variants
    from lyra_tasks.engine.workspace import selected

    names = selected(chosen, list(work.config.services), "service")
    several = len(variants(work.config)) > len(work.config.images)
    engine = work.engine.facts.platform if several and connect else work.build_platform
    return replace(work, loaded=replace(work.loaded, config=development(work.config, names, engine)))


def _entered(service: str) -> tuple[Workspace, DevLab, str]:
    from lyra_tasks.config.development import entered
    from lyra_tasks.lab.dev import lab_of

    work = workspace()
    lab = lab_of(work)
    return work, lab, entered({name: each.developed for name, each in lab.services.items()}, service)


def _folder(lab: DevLab, name: str) -> str:
    source = lab.services[name].source
    return source.path if source else ""


def _watch(work: Workspace, lab: DevLab, service: str) -> None:
    from lyra_tasks.lab import show_dev
    from lyra_tasks.lab.dev import mirrors_of
    from lyra_tasks.lab.watch import follow

    mirrors = mirrors_of(work, lab, (service,) if service else ())
    show_dev.watching(list(mirrors.values()))
    work.mark_ended()
    try:
        follow(list(mirrors.values()), show_dev.carried)
    except KeyboardInterrupt:
        show_dev.watched()


def _end_with(code: int) -> None:
    if code:
        raise Exit(code=code)
