"""What `promote`, `verify`, `diff` and `bundle.list` show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lyra_tasks import console
from lyra_tasks.bundle.diff import SECTIONS, BundleDiff, shorten_digests
from lyra_tasks.bundle.format.index import read_index
from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, REPORT_FILE, SUMMARY_FILE
from lyra_tasks.bundle.pack.plan import PackPlan
from lyra_tasks.bundle.pack.run import PackResult
from lyra_tasks.bundle.promote.plan import PromotionPlan
from lyra_tasks.bundle.promote.push import PushedTag
from lyra_tasks.bundle.promote.run import PromotionResult
from lyra_tasks.bundle.rehearse.plan import RehearsalPlan
from lyra_tasks.bundle.rehearse.run import RehearsalResult
from lyra_tasks.bundle.verify.bundle import VerifyReport
from lyra_tasks.config.discovery import display_path
from lyra_tasks.errors import BundleError, CheckFailedError, UsageError


def print_promotion_plan(plan: PromotionPlan) -> None:
    """What a promotion would make."""
    if console.is_json_mode():
        return console.print_json(
            {
                "version": plan.version,
                "folder": str(plan.directory),
                "compression": plan.compression,
                "images": {image.build_name: image.record.config_digest for image in plan.images},
            }
        )
    console.print(f"would promote {plan.version} to {display_path(plan.directory)}:")
    for image in plan.images:
        console.print(f"  {image.file}  {image.record.config_digest[:19]}  for {', '.join(image.services)}")
    return None


def print_promotion(result: PromotionResult, pushed_tags: Sequence[PushedTag] = ()) -> None:
    """Where the bundle is, what is in it, what a registry has of it now, and what to do next."""
    manifest = result.manifest
    if console.is_json_mode():
        return console.print_json(
            {"folder": str(result.directory), "made": result.is_new, "pushed": [asdict(tag) for tag in pushed_tags]}
            | manifest.model_dump(mode="json", by_alias=True)
        )
    for tag in pushed_tags:
        console.print(f"pushed {tag.reference}  {tag.digest[:19]}")
    if not result.is_new:
        console.print(
            f"{manifest.version} is promoted already, with the same digests: {display_path(result.directory)}"
        )
        return None
    console.print(f"promoted {console.style(manifest.version, 'green')} to {display_path(result.directory)}:")
    for image in manifest.images:
        console.print(f"  {image.file}  {console.format_bytes(image.size)}  {image.config_digest[:19]}")
    console.print(f"  {SUMMARY_FILE}, deploy/, evidence/ of {manifest.tests.passed} passed checks, {CHECKSUMS_FILE}")
    console.print(f"  {REPORT_FILE}: all of it on one page, for a browser")
    for version in result.removed_snapshots:
        console.print(f"removed the old snapshot {version}")
    console.print(f"next: `verify`, carry the folder to Proxima, and follow its {SUMMARY_FILE}")
    if manifest.is_snapshot:
        console.info("this is a snapshot: only a clean tree on a version tag makes a release")
    return None


def print_verify_report(report: VerifyReport) -> None:
    """That a bundle is whole, and what it carries."""
    total = sum(file.size for file in report.files)
    if console.is_json_mode():
        return console.print_json(
            {
                "path": str(report.path),
                "kind": report.kind,
                "project": report.project or None,
                "version": report.version or None,
                "since": report.since or None,
                "files": [{"name": file.name, "size": file.size} for file in report.files],
                "images": {name: identity.config_digest for name, identity in report.images},
                "signer": report.signer or None,
            }
        )
    count = len(report.files)
    files = f"{count} file{'s' * (count != 1)}, {console.format_bytes(total)}"
    signature_note = f", signed by {report.signer}" if report.signer else ""
    console.print(f"{_describe_subject(report)}: whole, {files}, every byte checked{signature_note}")
    if report.kind == "archive":
        for name, identity in report.images:
            console.print(f"  {name}  {identity.platform}  {identity.config_digest}")
        console.info("whether it is the image that was promoted, only the folder of its bundle can say")
    if report.has_signature and not report.signer:
        console.info("its signature was not checked: --allowed-signers FILE --signer NAME does")
    return None


def _describe_subject(report: VerifyReport) -> str:
    since = f" since {report.since}" if report.since else ""
    return {
        "bundle": f"{report.project} {report.version}",
        "pack": f"pack of {report.project} {report.version}{since}",
        "part": f"{report.files[0].name} of the pack of {report.project} {report.version}{since}",
        "archive": str(report.path),
    }[report.kind]


def print_diff(diff: BundleDiff) -> None:
    """What is different, section by section; nothing else where nothing is."""
    if console.is_json_mode():
        return console.print_json(
            {
                "before": diff.before,
                "after": diff.after,
                "changes": {
                    section: [
                        {"name": change.name, "before": change.before, "after": change.after}
                        for change in diff.changes
                        if change.section == section
                    ]
                    for section in SECTIONS
                },
            }
        )
    if not diff.changes:
        return console.print(f"{diff.before} and {diff.after}: no difference")
    console.print(f"{diff.before} → {diff.after}")
    return console.print_table(
        ("what", "which", "before", "after"),
        [
            (
                change.section,
                shorten_digests(change.name),
                shorten_digests(change.before),
                shorten_digests(change.after),
            )
            for change in diff.changes
        ],
    )


def find_newest_bundle(bundles: Path) -> Path:
    """The folder of the newest bundle; UsageError if there is none."""
    try:
        index = read_index(bundles, bundles.name)
    except BundleError as error:
        raise BundleError(error.message, hint="name the bundle to verify: `verify PATH`") from error
    if not index.versions:
        raise UsageError("there is no bundle yet", hint="run `promote`, or name one: `verify PATH`")
    return bundles / index.versions[0].version


def print_bundles(bundles: Path) -> None:
    """A line per bundle, newest first."""
    index = read_index(bundles, bundles.name)
    if console.is_json_mode():
        return console.print_json(index.model_dump(mode="json", by_alias=True))
    if not index.versions:
        return console.print("there is no bundle yet; `build test promote` makes one")
    return console.print_table(
        ("version", "of", "commit", "kind"),
        [
            (entry.version, entry.created, entry.commit[:7], "snapshot" if entry.is_snapshot else "release")
            for entry in index.versions
        ],
    )


def print_pack_plan(plan: PackPlan) -> None:
    """What a pack would hold, what it needs, and what is free."""
    facts = plan.facts
    if console.is_json_mode():
        return console.print_json(
            {
                "folder": str(plan.directory),
                "version": facts.manifest.version,
                "since": facts.baseline.version if facts.baseline else None,
                "split": facts.max_part_bytes,
                "needed": plan.required_bytes,
                "free": facts.free_bytes,
                "images": [_delta_json(plan, number) for number in range(len(plan.deltas))],
            }
        )
    console.print(f"would pack {facts.manifest.version} to {display_path(plan.directory)}:")
    for delta in plan.deltas:
        console.print(
            f"  {delta.image.file}  {console.format_bytes(delta.size)} of {console.format_bytes(delta.image.size)}"
        )
        if delta.required_image:
            console.print(f"    without {len(delta.omitted_layers)} layer(s) of {delta.required_image.reference}")
    console.print(
        f"at most {console.format_bytes(plan.required_bytes)} needed, {console.format_bytes(facts.free_bytes)} free"
    )
    return None


def print_pack(result: PackResult) -> None:
    """Where the pack is, how large it is, and what the receiver must hold."""
    manifest = result.manifest
    if console.is_json_mode():
        return console.print_json(
            {
                "folder": str(result.directory),
                "size": result.size,
                "files": [{"name": file.name, "size": file.size} for file in result.files],
            }
            | manifest.model_dump(mode="json", by_alias=True)
        )
    console.print(
        f"packed {console.style(manifest.version, 'green')} to {display_path(result.directory)}: "
        f"{len(result.files)} files, {console.format_bytes(result.size)}"
    )
    for archive in manifest.images:
        parts = f" in {archive.parts} parts" if archive.parts else ""
        console.print(f"  {archive.file}  {console.format_bytes(archive.size)}{parts}")
    for name in sorted({archive.required_image.reference for archive in manifest.images if archive.required_image}):
        console.print(f"the receiver must hold {name}; receive.sh checks that before it loads anything")
    console.print("next: carry the folder to Proxima, all parts into one, and run `sh receive.sh` there")
    return None


def _delta_json(plan: PackPlan, number: int) -> dict[str, Any]:
    delta = plan.deltas[number]
    return {
        "image": delta.image.name,
        "file": delta.image.file,
        "size": delta.size,
        "without": list(delta.omitted_layers),
        "held": delta.required_image.model_dump(mode="json") if delta.required_image else None,
    }


def print_rehearsal_plan(plan: RehearsalPlan) -> None:
    """What would be rehearsed, and on what; no value of a variable."""
    facts = plan.facts
    document = {
        "version": facts.manifest.version,
        "suite": plan.suite,
        "min_engine": facts.manifest.proxima.min_engine,
        "memory": facts.memory,
        "cpus": facts.cpus,
        "filled_in": sorted(plan.env_values),
    }
    if console.is_json_mode():
        return console.print_json(document)
    console.print(
        f"would receive {facts.manifest.version} on a throwaway engine of {plan.suite} "
        f"(Proxima: {facts.manifest.proxima.min_engine} or newer), start it, and make the project's checks"
    )
    return console.print(f"would fill in {', '.join(sorted(plan.env_values)) or 'nothing'}")


def print_rehearsal(result: RehearsalResult) -> None:
    """The verdict; VerdictError if a check failed, or there was none."""
    passed = sum(check.outcome == "passed" for check in result.checks)
    if console.is_json_mode():
        console.print_json(
            {
                "version": result.version,
                "engine": result.engine,
                "store": result.store,
                "services": list(result.services),
                "passed": result.passed,
                "checks": [check.model_dump(mode="json") for check in result.checks],
                "seconds": dict(result.seconds),
            }
        )
    else:
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
        console.print(
            f"{result.version} on Docker Engine {result.engine} ({result.store} image store): "
            f"{passed} of {len(result.checks)} checks passed; {steps}"
        )
    if not result.checks:
        raise CheckFailedError(
            "no check could be made of what was received", hint="write one of kind http, exec or tcp"
        )
    if not result.passed:
        failed = tuple(check.title for check in result.checks if check.outcome != "passed")
        raise CheckFailedError(
            f"{len(failed)} of {len(result.checks)} checks failed on an engine like Proxima's",
            hint="what was tested here does not work there; do not carry it",
            details=failed,
        )
