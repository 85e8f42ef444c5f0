"""The runbook's words: build, test, promote, clean."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.errors import UsageError
from lyra_tasks.tasks.development import prepare_dev_cleanup
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.task import command_line_options, is_dry_run, parse_count, suggest_next_command, task


@task(
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
    from lyra_tasks.builds.facts import collect_build_facts, select_builds
    from lyra_tasks.builds.plan import BuildFlags, plan_build
    from lyra_tasks.builds.run import run_build
    from lyra_tasks.builds.show import print_build_plan, print_build_results

    work = workspace()
    selection = select_builds(work, image or (), platform or ())
    build_facts = collect_build_facts(work, selection, dry_run=is_dry_run(c))
    build_plan = plan_build(work.config, build_facts, selection, BuildFlags(no_cache, pull))
    if is_dry_run(c):
        return print_build_plan(build_plan)
    print_build_results(
        run_build(build_plan, engine=work.engine, owner=work.owner, store=work.images, directory=work.run_directory)
    )
    return console.print_next_step(*suggest_next_command("build", "test", "to prove them"))


@task(
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
    from lyra_tasks.checks.group_runner import TestOptions
    from lyra_tasks.checks.runner import plan_test_run, run_tests
    from lyra_tasks.checks.show import print_test_plan, print_test_result
    from lyra_tasks.report.page import write_report_at_end

    options = TestOptions(fail_fast, parse_count(repeat, "--repeat"), keep_running)
    test_run = plan_test_run(workspace(), tuple(only or ()), options, is_dry_run=is_dry_run(c))
    if is_dry_run(c):
        return print_test_plan(test_run)
    with write_report_at_end(workspace().run_directory):
        print_test_result(run_tests(test_run))
    return console.print_next_step(*suggest_next_command("test", "promote", "to pack these very bytes into a bundle"))


@task(to="push the bundle's images there, too: oci://HOST[:PORT][/FOLDER]")
def promote(c: Any, to: str = "", dry_run: bool = False, json: bool = False) -> None:
    """Pack the tested images into a versioned, documented bundle; never builds, never tests."""
    from lyra_tasks.bundle.promote.plan import collect_promotion_facts, plan_promotion
    from lyra_tasks.bundle.promote.run import create_bundle
    from lyra_tasks.bundle.show import print_promotion, print_promotion_plan
    from lyra_tasks.report.page import preload_template, render_report

    work = workspace()
    push = _prepare_push(to) if to else None
    promotion = plan_promotion(work.config, collect_promotion_facts(work))
    if is_dry_run(c):
        return print_promotion_plan(promotion)
    preload_template()
    promoted_bundle = create_bundle(promotion, work, render_report)
    moving_tags = promotion.facts.moving_tags
    return print_promotion(
        promoted_bundle, push(promoted_bundle.directory, promoted_bundle.manifest, moving_tags) if push else ()
    )


def _prepare_push(to: str) -> Any:
    from lyra_tasks.bundle.promote.push import parse_destination, push_bundle

    destination = parse_destination(to)
    return lambda directory, manifest, moving_tags: push_bundle(directory, manifest, destination, moving_tags)


@task(
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
    from lyra_tasks.cleanup import run
    from lyra_tasks.cleanup.facts import collect_cleanup_facts, restore_engine_state
    from lyra_tasks.cleanup.plan import plan_cleanup, require_no_active_runs
    from lyra_tasks.cleanup.show import announce_cleanup, confirm_cleanup, print_cleanup_plan, print_cleanup_report
    from lyra_tasks.records.dev import DevStore

    if gone:
        return _clean_deleted_checkouts(c, has_other_options=all or cache)
    work = workspace(allow_invalid=True)
    with restore_engine_state(work):
        cleanup_facts, engine = collect_cleanup_facts(work)
        cleanup_plan = plan_cleanup(cleanup_facts, "all" if all else "cache" if cache else "objects")
        if is_dry_run(c):
            return print_cleanup_plan(cleanup_plan)
        confirm_cleanup(cleanup_plan, yes="--yes" in command_line_options())
        announce_cleanup(cleanup_plan)
        if engine is not None and not cleanup_facts.live_runs and DevStore(work.paths.state).exists:
            prepare_dev_cleanup(work)
        report = run.run_cleanup(cleanup_plan, work, engine)
        print_cleanup_report(report, run.save_report(report, work, removes_state=cleanup_plan.removes_state))
        run.require_clean(report)
        return require_no_active_runs(cleanup_plan)


def _clean_deleted_checkouts(c: Any, *, has_other_options: bool) -> None:
    from lyra_tasks.cleanup import run
    from lyra_tasks.cleanup.facts import collect_gone_facts, restore_engine_state
    from lyra_tasks.cleanup.plan import plan_gone_cleanup
    from lyra_tasks.cleanup.run import run_gone_cleanup
    from lyra_tasks.cleanup.show import confirm_gone_cleanup, print_gone_plan, print_gone_report

    if has_other_options:
        raise UsageError("`clean --gone` cleans other checkouts", hint="clean this one by a word of its own")
    work = workspace(allow_invalid=True)
    with restore_engine_state(work):
        checkout_facts, engine = collect_gone_facts(work)
        cleanup_plan = plan_gone_cleanup(checkout_facts)
        if is_dry_run(c) or cleanup_plan.is_empty:
            return print_gone_plan(cleanup_plan)
        confirm_gone_cleanup(cleanup_plan, yes="--yes" in command_line_options())
        report = run_gone_cleanup(cleanup_plan, work, engine)
        print_gone_report(report, run.save_report(report, work))
        return run.require_clean(report)
