"""What `promote`, `verify`, `diff` and `bundle.list` show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.bundle import layout
from lyra_tasks.bundle.difference import SECTIONS, Difference, short
from lyra_tasks.bundle.plan import PromotionPlan
from lyra_tasks.bundle.push import Pushed
from lyra_tasks.bundle.read import read_index
from lyra_tasks.bundle.run import Promotion
from lyra_tasks.bundle.verify import VerifyReport
from lyra_tasks.config.find import shown
from lyra_tasks.errors import BundleError, UsageError


def planned(plan: PromotionPlan) -> None:
    """What a promotion would make."""
    if console.is_json():
        return console.document(
            {
                "version": plan.version,
                "folder": str(plan.folder),
                "compression": plan.compression,
                "images": {each.key: each.record.config_digest for each in plan.archives},
            }
        )
    console.say(f"would promote {plan.version} to {shown(plan.folder)}:")
    for each in plan.archives:
        console.say(f"  {each.file}  {each.record.config_digest[:19]}  for {', '.join(each.services)}")
    return None


def promoted(result: Promotion, pushed: Sequence[Pushed] = ()) -> None:
    """Where the bundle is, what is in it, what a registry has of it now, and what to do next."""
    manifest = result.manifest
    if console.is_json():
        return console.document(
            {"folder": str(result.folder), "made": result.made, "pushed": [asdict(each) for each in pushed]}
            | manifest.model_dump(mode="json", by_alias=True)
        )
    for each in pushed:
        console.say(f"pushed {each.reference}  {each.digest[:19]}")
    if not result.made:
        console.say(f"{manifest.version} is promoted already, with the same digests: {shown(result.folder)}")
        return None
    console.say(f"promoted {console.style(manifest.version, 'green')} to {shown(result.folder)}:")
    for image in manifest.images:
        console.say(f"  {image.file}  {console.size(image.size)}  {image.config_digest[:19]}")
    console.say(f"  {layout.SUMMARY}, deploy/, evidence/ of {manifest.tests.passed} passed checks, {layout.CHECKSUMS}")
    console.say(f"  {layout.REPORT}: all of it on one page, for a browser")
    for version in result.removed_snapshots:
        console.say(f"removed the old snapshot {version}")
    console.say(f"next: `verify`, carry the folder to Proxima, and follow its {layout.SUMMARY}")
    if manifest.is_snapshot:
        console.note("this is a snapshot: only a clean tree on a version tag makes a release")
    return None


def verified(report: VerifyReport) -> None:
    """That a bundle is whole, and what it carries."""
    total = sum(file.size for file in report.files)
    if console.is_json():
        return console.document(
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
    files = f"{count} file{'s' * (count != 1)}, {console.size(total)}"
    by = f", signed by {report.signer}" if report.signer else ""
    console.say(f"{_what(report)}: whole, {files}, every byte checked{by}")
    if report.kind == "archive":
        for name, identity in report.images:
            console.say(f"  {name}  {identity.platform}  {identity.config_digest}")
        console.note("whether it is the image that was promoted, only the folder of its bundle can say")
    if report.has_signature and not report.signer:
        console.note("its signature was not checked: --allowed-signers FILE --signer NAME does")
    return None


def _what(report: VerifyReport) -> str:
    since = f" since {report.since}" if report.since else ""
    return {
        "bundle": f"{report.project} {report.version}",
        "pack": f"pack of {report.project} {report.version}{since}",
        "part": f"{report.files[0].name} of the pack of {report.project} {report.version}{since}",
        "archive": str(report.path),
    }[report.kind]


def differs(found: Difference) -> None:
    """What is different, section by section; nothing else where nothing is."""
    if console.is_json():
        return console.document(
            {
                "before": found.before,
                "after": found.after,
                "changes": {
                    section: [
                        {"name": each.name, "before": each.before, "after": each.after}
                        for each in found.changes
                        if each.section == section
                    ]
                    for section in SECTIONS
                },
            }
        )
    if not found.changes:
        return console.say(f"{found.before} and {found.after}: no difference")
    console.say(f"{found.before} → {found.after}")
    return console.table(
        ("what", "which", "before", "after"),
        [(each.section, short(each.name), short(each.before), short(each.after)) for each in found.changes],
    )


def newest(bundles: Path) -> Path:
    """The folder of the newest bundle; UsageError if there is none."""
    try:
        index = read_index(bundles, bundles.name)
    except BundleError as error:
        raise BundleError(error.message, hint="name the bundle to verify: `verify PATH`") from error
    if not index.versions:
        raise UsageError("there is no bundle yet", hint="run `promote`, or name one: `verify PATH`")
    return bundles / index.versions[0].version


def listed(bundles: Path) -> None:
    """A line per bundle, newest first."""
    index = read_index(bundles, bundles.name)
    if console.is_json():
        return console.document(index.model_dump(mode="json", by_alias=True))
    if not index.versions:
        return console.say("there is no bundle yet; `build test promote` makes one")
    return console.table(
        ("version", "of", "commit", "kind"),
        [
            (each.version, each.created, each.commit[:7], "snapshot" if each.is_snapshot else "release")
            for each in index.versions
        ],
    )
