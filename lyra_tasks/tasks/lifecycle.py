"""The runbook's words: build, test, promote, clean."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.errors import UsageError
from lyra_tasks.tasks import development
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import dry, line_flags, next_words, number, word


@word(
    iterable=("image", "platform"),
    image="build this image only (repeatable)",
    platform="build for this platform only, such as linux/arm64 (repeatable, or several with commas)",
    no_cache="build every step anew",
    pull="look for newer base images, as Docker does; what the lock pins stays",
)
def build(
    c: Any,
    image: Any = None,
    platform: Any = None,
    no_cache: bool = False,
    pull: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Build the images in parallel, for all their platforms; says what is new."""
    from lyra_tasks.build import facts, plan, run, show

    work = workspace()
    chosen = facts.chosen(work, image or (), platform or ())
    gathered = facts.gather(work, chosen, dry=dry(c))
    planned = plan.plan(work.config, gathered, chosen, plan.BuildFlags(no_cache, pull))
    if dry(c):
        return show.planned(planned)
    show.built(run.run(planned, engine=work.engine, owner=work.owner, store=work.images, folder=work.folder))
    return console.next_step(*next_words("build", "test", "to prove them"))


@word(
    iterable=("only",),
    only="make only the check, or the group of checks, of this name (repeatable); leaves no evidence",
    fail_fast="stop at the first check that fails",
    repeat="make all checks this often, to find those that fail now and then",
    keep_running="leave the services running afterwards, until `clean`",
)
def test(
    c: Any,
    only: Any = None,
    fail_fast: bool = False,
    repeat: str = "1",
    keep_running: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Run the services in isolated, limited containers and make the checks; passes or exits with 5."""
    from lyra_tasks.lab import show, trial
    from lyra_tasks.lab.rounds import Conduct
    from lyra_tasks.report.run import reported

    conduct = Conduct(fail_fast, number(repeat, "--repeat"), keep_running)
    planned = trial.gather(workspace(), tuple(only or ()), conduct, dry=dry(c))
    if dry(c):
        return show.planned(planned)
    with reported(workspace().folder):
        show.verdict(trial.run(planned))
    return console.next_step(*next_words("test", "promote", "to pack these very bytes into a bundle"))


@word(to="push the bundle's images there, too: oci://HOST[:PORT][/FOLDER]")
def promote(c: Any, to: str = "", dry_run: bool = False, json: bool = False) -> None:
    """Pack the tested images into a versioned, documented bundle; never builds, never tests."""
    from lyra_tasks.bundle import facts, plan, run, show
    from lyra_tasks.report.page import page, prepare

    work = workspace()
    push = _pushing(to) if to else None
    planned = plan.plan(work.config, facts.gather(work))
    if dry(c):
        return show.planned(planned)
    prepare()
    promoted = run.run(planned, work, page)
    moving = planned.facts.moving_tags
    return show.promoted(promoted, push(promoted.folder, promoted.manifest, moving) if push else ())


def _pushing(to: str) -> Any:
    from lyra_tasks.bundle import push

    place = push.destination(to)
    return lambda folder, manifest, moving: push.run(folder, manifest, place, moving)


@word(
    cache="also empty the builder cache, where the builder is Lyra's own (the sandbox engine's)",
    all="also remove .lyra/, the builder cache and the sandbox engine's data; asks first",
    gone="instead, remove what checkouts left whose folder is not there any more, and their journals; asks first",
)
def clean(
    c: Any,
    cache: bool = False,
    all: bool = False,
    gone: bool = False,
    yes: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Remove every container, network, volume and image reference of this project; bundles and the journal stay."""
    from lyra_tasks.cleanup import facts, plan, run, show
    from lyra_tasks.records.dev import DevStore

    if gone:
        return _clean_gone(c, other=all or cache)
    work = workspace(in_part=True)
    with facts.as_before(work):
        found, engine = facts.gather(work)
        planned = plan.plan(found, "all" if all else "cache" if cache else "objects")
        if dry(c):
            return show.planned(planned)
        show.agreed(planned, yes="--yes" in line_flags())
        show.announced(planned)
        if engine is not None and not found.live and DevStore(work.paths.state).exists:
            development.before_cleaning(work)
        proof = run.run(planned, work, engine)
        show.cleaned(proof, run.keep(proof, work, forget=planned.forget))
        run.require_clean(proof)
        return plan.require_nobody(planned)


def _clean_gone(c: Any, *, other: bool) -> None:
    from lyra_tasks.cleanup import facts, gone, gone_facts, gone_plan, run, show_gone

    if other:
        raise UsageError("`clean --gone` cleans other checkouts", hint="clean this one by a word of its own")
    work = workspace(in_part=True)
    with facts.as_before(work):
        found, engine = gone_facts.gather(work)
        planned = gone_plan.plan_gone(found)
        if dry(c) or planned.empty:
            return show_gone.planned(planned)
        show_gone.agree(planned, yes="--yes" in line_flags())
        proof = gone.run(planned, work, engine)
        show_gone.cleaned(proof, run.keep(proof, work))
        return run.require_clean(proof)
