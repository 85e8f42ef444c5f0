"""Show what `promote`, `verify`, `diff` and `bundle.*` did or would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from lyra_tasks import console
from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, REPORT_FILE, SUMMARY_FILE
from lyra_tasks.bundle.format.manifest import Manifest
from lyra_tasks.bundle.format.pack import PackManifest
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.files import display_path
from lyra_tasks.results.bundle import (
    BundleComparison,
    BundleFile,
    ChangedValue,
    PackPreview,
    PlannedArchive,
    Rehearsal,
    RehearsalPreview,
    Verification,
)
from lyra_tasks.results.lifecycle import PromotionPreview, PushedTag

if TYPE_CHECKING:
    from lyra_tasks.bundle.diff import BundleDiff
    from lyra_tasks.bundle.pack.plan import PackPlan
    from lyra_tasks.bundle.pack.run import PackResult
    from lyra_tasks.bundle.promote.plan import PromotionPlan
    from lyra_tasks.bundle.promote.run import PromotionResult
    from lyra_tasks.bundle.rehearse.plan import RehearsalPlan
    from lyra_tasks.bundle.verify import VerifyReport


class PromotedBundle(Manifest):
    """The manifest of a bundle that `promote` has created, its directory, and what was pushed."""

    directory: str
    is_new: bool = Field(description="false if the version was promoted before with the same digests")
    pushed: tuple[PushedTag, ...]


class PackedBundle(PackManifest):
    """The description of a pack that `bundle.pack` has created, its directory, files and size in bytes."""

    directory: str
    size: int
    files: tuple[BundleFile, ...]


def show_promotion_plan(plan: PromotionPlan) -> PromotionPreview:
    """Show what a promotion would create."""
    digests = {image.build_name: image.record.config_digest for image in plan.images}
    preview = PromotionPreview(plan.version, str(plan.directory), plan.compression, digests, plan.test_doubles)
    if console.print_result(preview):
        return preview
    console.print(f"would promote {plan.version} to {display_path(plan.directory)}:")
    for file, images in plan.images_by_archive.items():
        console.print(f"  {file}")
        for image in images:
            console.print(
                f"    {image.references[0]}  {image.record.config_digest[:19]}  for {', '.join(image.services)}"
            )
    for service, reference in plan.test_doubles.items():
        _print_test_double(service, reference)
    return preview


def _print_test_double(service: str, reference: str) -> None:
    console.print(f"  not included: {service} ({reference}), which only tests run")


def show_promotion(result: PromotionResult, pushed_tags: Sequence[PushedTag] = ()) -> PromotedBundle:
    """Show the bundle, what was pushed, and the next step."""
    directory, manifest = result.bundle.directory, result.bundle.manifest
    promoted = PromotedBundle(
        **dict(manifest), directory=str(directory), is_new=result.is_new, pushed=tuple(pushed_tags)
    )
    if console.print_result(promoted):
        return promoted
    for tag in pushed_tags:
        console.print(f"pushed {tag.reference}  {tag.digest[:19]}")
    if not result.is_new:
        console.print(f"{manifest.version} is already promoted with the same digests: {display_path(directory)}")
        return promoted
    console.print(f"promoted {console.style(manifest.version, 'green')} to {display_path(directory)}:")
    for archive in manifest.archives:
        console.print(f"  {archive.file}  {console.format_bytes(archive.size)}")
        for image in manifest.images_for(archive.platform):
            console.print(f"    {image.references[0]}  {image.config_digest[:19]}")
    for double in manifest.test_doubles:
        _print_test_double(double.service, double.reference)
    checks = console.format_count(manifest.tests.passed, "passed check")
    console.print(f"  {SUMMARY_FILE}, deploy/, evidence/ of {checks}, {CHECKSUMS_FILE}")
    console.print(f"  everything on one page: {(directory / REPORT_FILE).absolute().as_uri()}")
    for version in result.removed_snapshots:
        console.print(f"removed the old snapshot {version}")
    console.print(f"next: `verify`, copy the directory to Proxima and follow its {SUMMARY_FILE}")
    if manifest.is_snapshot:
        console.info("This is a snapshot; only a clean tree on a version tag makes a release")
    return promoted


def show_verification(report: VerifyReport) -> Verification:
    """Show what was verified."""
    verification = Verification(
        path=str(report.path),
        kind=report.kind,
        project=report.project or None,
        version=report.version or None,
        since=report.since or None,
        files=tuple(BundleFile(name, size) for name, size in report.file_sizes.items()),
        images={name: identity.config_digest for name, identity in report.images.items()},
        signer=report.signer or None,
    )
    if console.print_result(verification):
        return verification
    count = len(report.file_sizes)
    size = console.format_bytes(sum(report.file_sizes.values()))
    signature_note = f", signed by {report.signer}" if report.signer else ""
    console.print(f"{_subject(report)}: intact, {count} file{'s' * (count != 1)}, {size}{signature_note}")
    if report.kind == "archive":
        for name, identity in report.images.items():
            console.print(f"  {name}  {identity.platform}  {identity.config_digest}")
        console.info("Verify the directory of its bundle to see whether this image was promoted")
    if report.has_signature and not report.signer:
        console.info("Signature not checked; add --allowed-signers FILE --signer NAME")
    return verification


def _subject(report: VerifyReport) -> str:
    since = f" since {report.since}" if report.since else ""
    return {
        "bundle": f"{report.project} {report.version}",
        "pack": f"pack of {report.project} {report.version}{since}",
        "part": f"{next(iter(report.file_sizes))} of the pack of {report.project} {report.version}{since}",
        "archive": str(report.path),
    }[report.kind]


def show_diff(diff: BundleDiff) -> BundleComparison:
    """Show the differences between two versions."""
    from lyra_tasks.bundle.diff import SECTIONS

    changes: dict[str, tuple[ChangedValue, ...]] = dict.fromkeys(SECTIONS, ())
    for change in diff.changes:
        changes[change.section] += (ChangedValue(change.name, change.before, change.after),)
    comparison = BundleComparison(diff.before, diff.after, changes)
    if console.print_result(comparison):
        return comparison
    if diff.changes:
        console.print(f"{diff.before} → {diff.after}")
        console.print_table(("section", "name", "before", "after"), [change.row for change in diff.changes])
    else:
        console.print(f"{diff.before} and {diff.after}: no differences")
    return comparison


def show_pack_plan(plan: PackPlan) -> PackPreview:
    """Show what a pack would contain, and the space that it needs."""
    facts, version = plan.facts, plan.facts.bundle.manifest.version
    preview = PackPreview(
        directory=str(plan.directory),
        version=version,
        since=facts.baseline.version if facts.baseline else None,
        max_part_bytes=facts.max_part_bytes,
        required_bytes=plan.required_bytes,
        free_bytes=facts.free_bytes,
        archives=tuple(
            PlannedArchive(
                delta.archive.platform, delta.archive.file, delta.size, delta.omitted_layers, delta.required_images
            )
            for delta in plan.deltas
        ),
    )
    if console.print_result(preview):
        return preview
    console.print(f"would pack {version} to {display_path(plan.directory)}:")
    for delta in plan.deltas:
        size, full_size = console.format_bytes(delta.size), console.format_bytes(delta.archive.size)
        console.print(f"  {delta.archive.file}  {size} of {full_size}")
        if delta.omitted_layers:
            references = ", ".join(image.reference for image in delta.required_images)
            console.print(f"    without {len(delta.omitted_layers)} layer(s) of {references}")
    required, free = console.format_bytes(plan.required_bytes), console.format_bytes(facts.free_bytes)
    console.print(f"at most {required} needed, {free} free")
    return preview


def show_pack(result: PackResult) -> PackedBundle:
    """Show the pack, and the images that the receiver needs."""
    pack = PackedBundle(
        **dict(result.manifest),
        directory=str(result.directory),
        size=result.size,
        files=tuple(BundleFile(name, size) for name, size in result.file_sizes.items()),
    )
    if console.print_result(pack):
        return pack
    console.print(
        f"packed {console.style(pack.version, 'green')} to {display_path(result.directory)}: "
        f"{console.format_count(len(pack.files), 'file')}, {console.format_bytes(pack.size)}"
    )
    for archive in pack.archives:
        parts = f" in {console.format_count(archive.parts, 'part')}" if archive.parts else ""
        console.print(f"  {archive.file}  {console.format_bytes(archive.size)}{parts}")
    for name in sorted({image.reference for archive in pack.archives for image in archive.required_images}):
        console.print(f"the receiver must have {name}; receive.sh checks that before it loads anything")
    console.print("next: copy all files to one directory on Proxima and run `sh receive.sh` there")
    return pack


def show_rehearsal_plan(plan: RehearsalPlan) -> RehearsalPreview:
    """Show what would be rehearsed, without values of variables."""
    facts, manifest = plan.facts, plan.facts.newer.bundle.manifest
    preview = RehearsalPreview(
        version=manifest.version,
        older=facts.older.version if facts.older else None,
        suites=plan.suites,
        min_engine=manifest.proxima.min_engine,
        memory=facts.memory,
        cpus=facts.cpus,
        env_variables=tuple(plan.env_variables),
    )
    if not console.print_result(preview):
        journey = f"upgrade {preview.older} to it and roll back" if preview.older else "start it"
        console.print(
            f"would receive {preview.version} on a throwaway engine of {' and of '.join(preview.suites)} "
            f"(Proxima: {preview.min_engine} or newer), {journey} and run the checks"
        )
        console.print(f"would set {', '.join(preview.env_variables) or 'no variables'}")
    return preview


def show_rehearsal(result: Rehearsal) -> Rehearsal:
    """Show the result; raise CheckFailedError if a check failed or none could be run."""
    checks = [check for engine in result.engines for check in engine.checks]
    failed = tuple(check.title for check in checks if check.outcome != "passed")
    if not console.print_result(result):
        for engine in result.engines:
            passed_count = sum(check.outcome == "passed" for check in engine.checks)
            journey = f"from {result.older} and back, data kept, " if result.older else ""
            console.print(
                f"{result.version} on Docker Engine {engine.engine} ({engine.store} image store): {journey}"
                f"{len(engine.steps)} steps of PROMOTION.md in {sum(step.seconds for step in engine.steps):.0f} s, "
                f"{passed_count} of {len(engine.checks)} checks passed"
            )
    if not all(engine.checks for engine in result.engines):
        raise CheckFailedError(
            "No check can run against the received services", hint="Add a check of kind http, exec or tcp"
        )
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(checks)} checks failed on an engine like Proxima's",
            hint="Do not deploy this version; what passed here fails there",
            details=failed,
        )
    return result
