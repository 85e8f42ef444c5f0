"""Show the results of `release`, `release.version` and `release.list`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.files import display_path
from lyra_tasks.releases.plan import ReleasePlan
from lyra_tasks.results.bundle import ListedBundle
from lyra_tasks.results.releases import (
    BareVersion,
    CreatedRelease,
    DecisiveCommit,
    PlannedRelease,
    ReleaseEntry,
    ReleasePreview,
    VersionDetails,
)
from lyra_tasks.versions.changelog import render_changes
from lyra_tasks.versions.git import GitFacts
from lyra_tasks.versions.version import CheckoutVersion, Release, version_to_file_name, version_to_pep440


def print_release_plan(plan: ReleasePlan) -> None:
    """Print the version to release, its reason and its changes."""
    decision = plan.decision
    after = f" after {decision.previous.version}" if decision.previous else ""
    console.print(
        f"Release {console.style(plan.version, 'bold')}{after}: tag {plan.tag} on {plan.commit[:7]} ({decision.reason})"
    )
    for commit in decision.decisive_commits:
        mark = "!" if commit.breaking_change else ""
        console.print_verbatim(f"  {commit.short_id} {commit.type}{mark}: {console.escape(commit.summary)}")
    console.print()
    console.print_verbatim(render_changes(plan.changes))


def show_release_plan(plan: ReleasePlan) -> ReleasePreview:
    """Show the plan of a dry run."""
    preview = ReleasePreview(**vars(_describe_plan(plan)), problems=plan.problems)
    if not console.print_result(preview):
        print_release_plan(plan)
        console.print("Dry run: no tag created")
    return preview


def show_release_result(plan: ReleasePlan, tag_id: str) -> CreatedRelease:
    """Show the created tag and the suggested next command."""
    created = CreatedRelease(**vars(_describe_plan(plan)), tag_id=tag_id, pushed_to=plan.remote)
    if console.print_result(created):
        return created
    push_note = f" and pushed it to {plan.remote}" if plan.remote else ""
    console.print(f"Tagged {plan.commit[:7]} as {console.style(plan.tag, 'green')}{push_note}")
    if plan.changelog:
        console.print(f"Added a section to {plan.changelog}: commit it with the next version")
    console.print("Next: `promote`" if plan.remote else f"Next: `promote`, and `git push REMOTE {plan.tag}`")
    return created


def _describe_plan(plan: ReleasePlan) -> PlannedRelease:
    decision = plan.decision
    return PlannedRelease(
        version=plan.version,
        tag=plan.tag,
        commit=plan.commit,
        previous=str(decision.previous.version) if decision.previous else None,
        reason=decision.reason,
        decisive_commits=tuple(
            DecisiveCommit(commit.id, commit.type, commit.summary) for commit in decision.decisive_commits
        ),
        changelog=render_changes(plan.changes),
    )


def show_version(version: CheckoutVersion, git_facts: GitFacts) -> VersionDetails:
    """Show the version of the checkout and its reason."""
    if git_facts.is_shallow:
        console.warn("The clone is shallow, so the version may be wrong: run `git fetch --unshallow --tags`")
    details = VersionDetails(
        **vars(version),
        file_name=version_to_file_name(version.semver),
        pep440=version_to_pep440(version.semver),
        commit=git_facts.commit,
        shallow=git_facts.is_shallow,
    )
    if not console.print_result(details):
        console.print(f"{version.semver}  ({version.reason})")
    return details


def show_bare_version(version: str) -> BareVersion:
    """Show a version without a reason."""
    result = BareVersion(version)
    if not console.print_result(result):
        console.print(version)
    return result


def show_releases(releases: Sequence[Release], bundles: Mapping[str, ListedBundle]) -> tuple[ReleaseEntry, ...]:
    """Show the tagged versions, highest first, with their bundles by version."""
    entries = tuple(_describe_release(release, bundles.get(str(release.version))) for release in releases)
    if console.print_result(entries):
        return entries
    if entries:
        rows = [_format_row(entry, bundles.get(entry.version)) for entry in entries]
        console.print_table(("version", "tagged", "commit", "size", "signed", "checks", "bundle"), rows)
    else:
        console.print("No releases yet; create the first with `build test release promote`")
    return entries


def _describe_release(release: Release, bundle: ListedBundle | None) -> ReleaseEntry:
    return ReleaseEntry(
        version=str(release.version),
        tag=release.tag,
        date=release.date,
        commit=release.commit,
        bundle=str(display_path(Path(bundle.directory))) if bundle else None,
        size=bundle.size if bundle else None,
        is_signed=bundle.is_signed if bundle else None,
        passed=bundle.passed if bundle else None,
        failed=bundle.failed if bundle else None,
    )


def _format_row(entry: ReleaseEntry, bundle: ListedBundle | None) -> tuple[str, ...]:
    head = (entry.version, entry.date, entry.commit[:7])
    if bundle is None:
        return (*head, "", "", "", "never promoted")
    if bundle.state == "missing":
        return (*head, "", "", "", f"{entry.bundle} (missing)")
    signed = "yes" if bundle.is_signed else "no"
    return (*head, console.format_bytes(bundle.size), signed, bundle.checks_summary, str(entry.bundle))
