"""The tasks of the runbook: `build`, `test`, `promote` and `clean`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from lyra_tasks.errors import UsageError
from lyra_tasks.tasks.development import prepare_dev_cleanup
from lyra_tasks.tasks.session import (
    is_followed_by,
    read_only_workspace,
    remember_source,
    require_same_source,
    suggest_next_command,
    workspace,
)
from lyra_tasks.tasks.task import task

_postponed: dict[str, Callable[[], None]] = {}
"""What `build` leaves to the test of its run, which has time for it while it waits for services."""

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace
    from lyra_tasks.results import (
        BakeDefinition,
        BuiltImages,
        CleanupPreview,
        CleanupReport,
        GoneCleanupPreview,
        PromotedBundle,
        PromotionPreview,
        TestPreview,
        TestResults,
    )


@task(
    "build",
    iterable=("image", "platform"),
    image="Build only this image (repeatable)",
    platform="Build only this platform, for example linux/arm64 (repeatable)",
    no_cache="Do not use the build cache",
    pull="Check for newer base images; locked bases are not changed",
)
def build(
    c: Context,
    image: str | Sequence[str] | None = None,
    platform: str | Sequence[str] | None = None,
    no_cache: bool = False,
    pull: bool = False,
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> BuiltImages | BakeDefinition:
    """Build all images for all configured platforms.

    Third-party images are locked and fetched.
    """
    from lyra_tasks import console
    from lyra_tasks.builds.facts import collect_build_facts, select_builds
    from lyra_tasks.builds.plan import plan_build
    from lyra_tasks.builds.run import fetch_images, run_build
    from lyra_tasks.builds.show import show_build_plan, show_build_results, show_fetch_plan
    from lyra_tasks.engine.bases.sources import MissingImages
    from lyra_tasks.images.third_party.prepare import plan_fetches
    from lyra_tasks.lab.build_slots import find_slots_directory

    work = workspace()
    own, third_party = select_builds(work, image or (), platform or ())
    missing = MissingImages()
    with missing.collect():
        if dry_run:
            show_fetch_plan(work, plan_fetches(work, third_party))
        results = fetch_images(work, () if dry_run else third_party)
    with missing.collect():
        build_facts = collect_build_facts(work, own, work.snapshots, dry_run=dry_run) if own else None
    missing.require_none()
    build_plan = plan_build(work.config, build_facts, own, no_cache=no_cache, pull=pull) if build_facts else None
    if dry_run:
        from lyra_tasks.cleanup.storage import list_expired

        for line in list_expired(work, work.engine):
            console.info(f"would go by itself: {line}")
        return show_build_plan(build_plan)
    if build_plan is not None:
        built_images = run_build(
            build_plan,
            engine=work.engine,
            owner=work.owner,
            store=work.images,
            directory=work.run_directory,
            slots=find_slots_directory(work),
            meanwhile=partial(_preload_next_steps, work, precedes_test=is_followed_by("test")),
        )
        results = (*built_images, *results)
    from lyra_tasks.cleanup.limits import keep_limits
    from lyra_tasks.overview.doctor_facts import warn_about_low_disks

    keep = partial(keep_limits, work, has_built=any(result.is_new for result in results))
    if is_followed_by("test"):
        _postponed[work.run] = keep
    else:
        keep()
    warn_about_low_disks(work)
    remember_source()
    built = show_build_results(results)
    suggest_next_command("test", "to test them")
    return built


@contextmanager
def _keep_limits_of_build(work: Workspace) -> Iterator[None]:
    """Do in the background what a `build` before this test has left to it, and wait for that at the end."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        postponed = _postponed.pop(work.run, None)
        future = pool.submit(postponed) if postponed is not None else None
        yield
        if future is not None:
            future.result()


def _preload_next_steps(work: Workspace, *, precedes_test: bool) -> None:
    """Import what is needed once the images are built, while this process only waits for that."""
    import lyra_tasks.cleanup.limits
    import lyra_tasks.overview.doctor_facts  # noqa: F401

    if precedes_test:
        from lyra_tasks.checks.preload import preload_test

        preload_test(work)


@task(
    "test",
    iterable=("only",),
    only="Run only this check or group (repeatable); the result cannot be promoted",
    fail_fast="Stop at the first check that fails",
    repeat="Repeat all checks N times to find flaky ones",
    keep_running="Keep services running until `clean`",
    fresh="Run again what has passed with the same inputs",
    failed_first="Start with the groups that failed in the last test",
    watch="Build and test again after each change, until Ctrl-C",
)
def test(
    c: Context,
    only: str | Sequence[str] | None = None,
    fail_fast: bool = False,
    repeat: int = 1,
    keep_running: bool = False,
    fresh: bool = False,
    failed_first: bool = False,
    watch: bool = False,
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> TestResults | TestPreview | None:
    """Start the services in isolated containers; run the checks.

    Exits with 5 if a check or a rule fails.
    """
    from lyra_tasks.checks.context import TestOptions
    from lyra_tasks.checks.runner import plan_test_run, run_tests
    from lyra_tasks.checks.show import show_test_plan, show_test_results
    from lyra_tasks.cleanup.limits import keep_file_limits
    from lyra_tasks.report.page import write_report_at_end

    if watch and not dry_run:
        _watch_tests(tuple(only or ()), fail_fast=fail_fast, repeat=repeat, fresh=fresh, others=keep_running)
        return None
    options = TestOptions(fail_fast, repeat, keep_running, fresh, failed_first)
    test_run = plan_test_run(workspace(), tuple(only or ()), options, is_dry_run=dry_run)
    if dry_run:
        return show_test_plan(test_run)
    with write_report_at_end(workspace().run_directory):
        with _keep_limits_of_build(workspace()):
            outcome = run_tests(test_run)
        remember_source()
        keep_file_limits(workspace())
        results = show_test_results(outcome)
    suggest_next_command("promote", "to create a bundle of these images")
    return results


def _watch_tests(only: Sequence[str], *, fail_fast: bool, repeat: int, fresh: bool, others: bool) -> None:
    from lyra_tasks import console
    from lyra_tasks.checks.watch import watch_tests

    if others or console.is_json_mode():
        raise UsageError(
            "`test --watch` takes neither --keep-running nor --json",
            hint="Leave them out; the results of each round are in .lyra/runs",
        )
    options = [*(f"--only={name}" for name in only), f"--repeat={repeat}"]
    options += [name for name, is_given in (("--fail-fast", fail_fast), ("--fresh", fresh)) if is_given]
    try:
        watch_tests(read_only_workspace(), options)
    except KeyboardInterrupt:
        console.print("stopped watching")


@task("promote", to="Also push the images to oci://HOST[:PORT][/PATH]")
def promote(
    c: Context, to: str = "", dry_run: bool = False, json: bool = False, quiet: bool = False
) -> PromotedBundle | PromotionPreview:
    """Create a versioned bundle from the tested images."""
    from lyra_tasks.bundle.content.sbom_process import start_sbom_process
    from lyra_tasks.bundle.promote.plan import collect_promotion_facts, plan_promotion
    from lyra_tasks.bundle.promote.run import create_bundle
    from lyra_tasks.bundle.show import show_promotion, show_promotion_plan
    from lyra_tasks.report.page import preload_template, render_report

    work = workspace()
    require_same_source()
    push = _prepare_push(to) if to else None
    if dry_run:
        return show_promotion_plan(plan_promotion(work.config, collect_promotion_facts(work)))
    with start_sbom_process() as sboms:
        promotion = plan_promotion(work.config, collect_promotion_facts(work))
        preload_template()
        result = create_bundle(promotion, work, render_report, sboms)
    return show_promotion(result, push(result.bundle, promotion.facts.moving_tags) if push else ())


def _prepare_push(to: str) -> Any:
    from lyra_tasks.bundle.promote.push import parse_destination, push_bundle

    destination = parse_destination(to)
    return lambda bundle, moving_tags: push_bundle(bundle, destination, moving_tags)


@task(
    "clean",
    cache="Also prune the build cache of the private engine",
    all="Also remove .lyra/, evidence, build cache, private engine (asks first)",
    gone="Remove leftovers of deleted checkouts instead (asks first)",
)
def clean(
    c: Context,
    cache: bool = False,
    all: bool = False,
    gone: bool = False,
    yes: bool = False,
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> CleanupReport | CleanupPreview | GoneCleanupPreview:
    """Remove everything of this project from the engine.

    Bundles and the journal stay.
    """
    from lyra_tasks import console
    from lyra_tasks.cleanup import facts, plan, show
    from lyra_tasks.cleanup.limits import keep_file_limits
    from lyra_tasks.cleanup.report import require_clean, save_report
    from lyra_tasks.cleanup.run import run_cleanup
    from lyra_tasks.cleanup.storage import describe_caches, list_expired
    from lyra_tasks.records.dev import DevStore

    if gone and (all or cache):
        raise UsageError("`clean --gone` cleans other checkouts only", hint="Clean this one with a separate `clean`")
    work = workspace(allow_invalid=True)
    with facts.restore_engine_state(work):
        if gone:
            checkouts, engine = facts.collect_gone_facts(work)
            plans = plan.plan_gone_cleanup(checkouts)
            if dry_run or not any(checkout_plan.parts for checkout_plan in plans):
                return show.show_gone_plan(plans, checkouts)
            show.confirm_gone_cleanup(plans, checkouts, yes=yes)
        else:
            own_facts, engine = facts.collect_cleanup_facts(work)
            own_plan = plan.plan_cleanup(own_facts, "all" if all else "cache" if cache else "objects")
            if dry_run:
                return show.show_cleanup_plan(own_plan, list_expired(work, None))
            show.confirm_cleanup(own_plan, yes=yes)
            show.announce_cleanup(own_plan)
            if engine is not None and not own_facts.live_runs and DevStore(work.paths.state).exists:
                prepare_dev_cleanup(work)
            plans = [own_plan]
        report = run_cleanup(plans, work, engine)
        keep_file_limits(work, is_due=True)
        show.show_cleanup_report(report, save_report(report, work))
        if cache:
            console.info(describe_caches(work))
        require_clean(report)
        for checkout_plan in plans:
            plan.require_no_active_runs(checkout_plan)
    return report
