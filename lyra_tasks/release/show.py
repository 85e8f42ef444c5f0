"""Print the output of `release`, `release.version` and `release.list`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lyra_tasks import console
from lyra_tasks.release.plan import ReleasePlan
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
        console.print_verbatim(f"  {commit.short_id} {commit.type}{mark}: {commit.summary}")
    console.print()
    console.print_verbatim(render_changes(plan.changes))


def print_release_dry_run(plan: ReleasePlan) -> None:
    """Print the plan of a dry run."""
    if console.is_json_mode():
        return console.print_json({**_plan_document(plan), "problems": list(plan.problems)})
    print_release_plan(plan)
    return console.print("Dry run: no tag created")


def print_release_result(plan: ReleasePlan, tag_id: str) -> None:
    """Print the created tag and the suggested next command."""
    if console.is_json_mode():
        return console.print_json({**_plan_document(plan), "tag_id": tag_id, "pushed_to": plan.remote})
    push_note = f" and pushed it to {plan.remote}" if plan.remote else ""
    console.print(f"Tagged {plan.commit[:7]} as {console.style(plan.tag, 'green')}{push_note}")
    if plan.changelog:
        console.print(f"Added a section to {plan.changelog}: commit it with the next version")
    return console.print("Next: `promote`" if plan.remote else f"Next: `promote`, and `git push REMOTE {plan.tag}`")


def print_version(version: CheckoutVersion, git_facts: GitFacts) -> None:
    """Print the version of the checkout and its reason."""
    if git_facts.is_shallow:
        console.warn("The clone is shallow, so the version may be wrong: run `git fetch --unshallow --tags`")
    if console.is_json_mode():
        formats = {"file_name": version_to_file_name(version.semver), "pep440": version_to_pep440(version.semver)}
        return console.print_json(
            {**asdict(version), **formats, "commit": git_facts.commit, "shallow": git_facts.is_shallow}
        )
    return console.print(f"{version.semver}  ({version.reason})")


def print_bare_version(version: str) -> None:
    """Print a version without a reason."""
    return console.print_json({"semver": version}) if console.is_json_mode() else console.print(version)


def print_releases(releases: Sequence[Release], bundles: Mapping[str, str]) -> None:
    """Print the tagged versions, highest first; `bundles` maps versions to bundle directories."""
    rows = [
        {"version": str(release.version), "tag": release.tag, "date": release.date, "commit": release.commit,
         "bundle": bundles.get(str(release.version))}
        for release in releases
    ]  # fmt: skip
    if console.is_json_mode():
        return console.print_json(rows)
    if not rows:
        return console.print("No releases yet; create the first with `build test release promote`")
    table_rows = [
        (str(row["version"]), str(row["date"]), str(row["commit"])[:7], row["bundle"] or "never promoted")
        for row in rows
    ]
    return console.print_table(("version", "tagged", "commit", "bundle"), table_rows)


def _plan_document(plan: ReleasePlan) -> dict[str, Any]:
    decision = plan.decision
    return {
        "version": plan.version,
        "tag": plan.tag,
        "commit": plan.commit,
        "previous": str(decision.previous.version) if decision.previous else None,
        "reason": decision.reason,
        "decisive_commits": [
            {"commit": commit.id, "type": commit.type, "subject": commit.summary}
            for commit in decision.decisive_commits
        ],
        "changelog": render_changes(plan.changes),
    }
