"""Print what `promote`, `verify`, `diff` and `bundle.*` did or would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.diff import SECTIONS, BundleDiff
from lyra_tasks.bundle.format.index import BundleIndex
from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, REPORT_FILE, SUMMARY_FILE
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.files import display_path

if TYPE_CHECKING:
    from lyra_tasks.bundle.pack.plan import PackPlan
    from lyra_tasks.bundle.pack.run import PackResult
    from lyra_tasks.bundle.promote.plan import PromotionPlan
    from lyra_tasks.bundle.promote.push import PushedTag
    from lyra_tasks.bundle.promote.run import PromotionResult
    from lyra_tasks.bundle.rehearse.plan import RehearsalPlan
    from lyra_tasks.bundle.rehearse.run import RehearsalResult
    from lyra_tasks.bundle.verify import VerifyReport


def print_promotion_plan(plan: PromotionPlan) -> None:
    """Print what a promotion would create."""
    if console.is_json_mode():
        return console.print_json(
            {
                "version": plan.version,
                "directory": str(plan.directory),
                "compression": plan.compression,
                "images": {image.build_name: image.record.config_digest for image in plan.images},
            }
        )
    console.print(f"would promote {plan.version} to {display_path(plan.directory)}:")
    for image in plan.images:
        console.print(f"  {image.file}  {image.record.config_digest[:19]}  for {', '.join(image.services)}")
    return None


def print_promotion(result: PromotionResult, pushed_tags: Sequence[PushedTag] = ()) -> None:
    """Print the bundle, what was pushed, and the next step."""
    directory, manifest = result.bundle.directory, result.bundle.manifest
    if console.is_json_mode():
        pushed = [asdict(tag) for tag in pushed_tags]
        return console.print_json(
            {"directory": str(directory), "is_new": result.is_new, "pushed": pushed}
            | manifest.model_dump(mode="json", by_alias=True)
        )
    for tag in pushed_tags:
        console.print(f"pushed {tag.reference}  {tag.digest[:19]}")
    if not result.is_new:
        return console.print(f"{manifest.version} is already promoted with the same digests: {display_path(directory)}")
    console.print(f"promoted {console.style(manifest.version, 'green')} to {display_path(directory)}:")
    for image in manifest.images:
        console.print(f"  {image.file}  {console.format_bytes(image.size)}  {image.config_digest[:19]}")
    console.print(f"  {SUMMARY_FILE}, deploy/, evidence/ of {manifest.tests.passed} passed checks, {CHECKSUMS_FILE}")
    console.print(f"  {REPORT_FILE}: everything on one page, for a browser")
    for version in result.removed_snapshots:
        console.print(f"removed the old snapshot {version}")
    console.print(f"next: `verify`, copy the directory to Proxima and follow its {SUMMARY_FILE}")
    if manifest.is_snapshot:
        console.info("This is a snapshot; only a clean tree on a version tag makes a release")
    return None


def print_verify_report(report: VerifyReport) -> None:
    """Print what was verified."""
    if console.is_json_mode():
        return console.print_json(
            {
                "path": str(report.path),
                "kind": report.kind,
                "project": report.project or None,
                "version": report.version or None,
                "since": report.since or None,
                "files": [{"name": name, "size": size} for name, size in report.file_sizes.items()],
                "images": {name: identity.config_digest for name, identity in report.images.items()},
                "signer": report.signer or None,
            }
        )
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
    return None


def _subject(report: VerifyReport) -> str:
    since = f" since {report.since}" if report.since else ""
    return {
        "bundle": f"{report.project} {report.version}",
        "pack": f"pack of {report.project} {report.version}{since}",
        "part": f"{next(iter(report.file_sizes))} of the pack of {report.project} {report.version}{since}",
        "archive": str(report.path),
    }[report.kind]


def print_diff(diff: BundleDiff) -> None:
    """Print the differences between two versions."""
    if console.is_json_mode():
        changes = {
            section: [
                {"name": change.name, "before": change.before, "after": change.after}
                for change in diff.changes
                if change.section == section
            ]
            for section in SECTIONS
        }
        return console.print_json({"before": diff.before, "after": diff.after, "changes": changes})
    if not diff.changes:
        return console.print(f"{diff.before} and {diff.after}: no differences")
    console.print(f"{diff.before} → {diff.after}")
    return console.print_table(("section", "name", "before", "after"), [change.row for change in diff.changes])


def print_bundles(index: BundleIndex) -> None:
    """Print the bundles of a project, newest first."""
    if console.is_json_mode():
        return console.print_json(index.model_dump(mode="json", by_alias=True))
    if not index.versions:
        return console.print("no bundles yet; run `build test promote`")
    return console.print_table(
        ("version", "date", "commit", "kind"),
        [
            (entry.version, entry.created, entry.commit[:7], "snapshot" if entry.is_snapshot else "release")
            for entry in index.versions
        ],
    )


def print_pack_plan(plan: PackPlan) -> None:
    """Print what a pack would contain, and the space that it needs."""
    facts, version = plan.facts, plan.facts.bundle.manifest.version
    if console.is_json_mode():
        return console.print_json(
            {
                "directory": str(plan.directory),
                "version": version,
                "since": facts.baseline.version if facts.baseline else None,
                "max_part_bytes": facts.max_part_bytes,
                "required_bytes": plan.required_bytes,
                "free_bytes": facts.free_bytes,
                "images": [
                    {
                        "image": delta.image.name,
                        "file": delta.image.file,
                        "size": delta.size,
                        "omitted_layers": list(delta.omitted_layers),
                        "required_image": delta.required_image and delta.required_image.model_dump(mode="json"),
                    }
                    for delta in plan.deltas
                ],
            }
        )
    console.print(f"would pack {version} to {display_path(plan.directory)}:")
    for delta in plan.deltas:
        size, full_size = console.format_bytes(delta.size), console.format_bytes(delta.image.size)
        console.print(f"  {delta.image.file}  {size} of {full_size}")
        if delta.required_image:
            console.print(f"    without {len(delta.omitted_layers)} layer(s) of {delta.required_image.reference}")
    required, free = console.format_bytes(plan.required_bytes), console.format_bytes(facts.free_bytes)
    return console.print(f"at most {required} needed, {free} free")


def print_pack(result: PackResult) -> None:
    """Print the pack, and the images that the receiver needs."""
    manifest = result.manifest
    if console.is_json_mode():
        files = [{"name": name, "size": size} for name, size in result.file_sizes.items()]
        return console.print_json(
            {"directory": str(result.directory), "size": result.size, "files": files}
            | manifest.model_dump(mode="json", by_alias=True)
        )
    console.print(
        f"packed {console.style(manifest.version, 'green')} to {display_path(result.directory)}: "
        f"{len(result.file_sizes)} files, {console.format_bytes(result.size)}"
    )
    for archive in manifest.images:
        parts = f" in {archive.parts} parts" if archive.parts else ""
        console.print(f"  {archive.file}  {console.format_bytes(archive.size)}{parts}")
    for name in sorted({archive.required_image.reference for archive in manifest.images if archive.required_image}):
        console.print(f"the receiver must have {name}; receive.sh checks that before it loads anything")
    return console.print("next: copy all files to one directory on Proxima and run `sh receive.sh` there")


def print_rehearsal_plan(plan: RehearsalPlan) -> None:
    """Print what would be rehearsed, without values of variables."""
    facts, manifest = plan.facts, plan.facts.bundle.manifest
    if console.is_json_mode():
        return console.print_json(
            {
                "version": manifest.version,
                "suite": plan.suite,
                "min_engine": manifest.proxima.min_engine,
                "memory": facts.memory,
                "cpus": facts.cpus,
                "env_variables": plan.env_variables,
            }
        )
    console.print(
        f"would receive {manifest.version} on a throwaway engine of {plan.suite} "
        f"(Proxima: {manifest.proxima.min_engine} or newer), start it and run the checks"
    )
    return console.print(f"would set {', '.join(plan.env_variables) or 'no variables'}")


def print_rehearsal(result: RehearsalResult) -> None:
    """Print the result; raise CheckFailedError if a check failed or none could be run."""
    failed = tuple(check.title for check in result.checks if check.outcome != "passed")
    count = len(result.checks)
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
            f"{count - len(failed)} of {count} checks passed; {steps}"
        )
    if not count:
        raise CheckFailedError(
            "No check can run against the received services", hint="Add a check of kind http, exec or tcp"
        )
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {count} checks failed on an engine like Proxima's",
            hint="Do not deploy this version; what passed here fails there",
            details=failed,
        )
