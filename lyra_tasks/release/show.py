"""What `release`, `release.version` and `release.list` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lyra_tasks import console
from lyra_tasks.release.plan import ReleasePlan
from lyra_tasks.release.run import ReleaseResult
from lyra_tasks.versions.changelog import render_changes
from lyra_tasks.versions.formats import version_to_file_name, version_to_pep440
from lyra_tasks.versions.git import GitFacts
from lyra_tasks.versions.version import CheckoutVersion, Release


def print_release_plan(plan: ReleasePlan) -> None:
    """What will be released, and why this version."""
    decision = plan.decision
    after = f" after {decision.previous.version}" if decision.previous else ""
    console.print(
        f"release {console.style(plan.version, 'bold')}{after}: tag {plan.tag} on {plan.commit[:7]} ({decision.reason})"
    )
    for commit in decision.decisive_commits:
        mark = "!" if commit.breaking_change else ""
        console.print(f"  {commit.short_id} {commit.type}{mark}: {commit.summary}")
    console.print()
    console.print(render_changes(plan.changes))


def print_release_dry_run(plan: ReleasePlan) -> None:
    """A dry run: the plan, and what stands against it."""
    if console.is_json_mode():
        return console.print_json({**_plan_document(plan), "problems": list(plan.problems)})
    print_release_plan(plan)
    return console.print("nothing was tagged (dry run)")


def print_release_result(result: ReleaseResult) -> None:
    """That the tag is there, and what to do with it."""
    plan = result.plan
    if console.is_json_mode():
        return console.print_json({**_plan_document(plan), "tag_id": result.tag_id, "pushed_to": plan.remote})
    push_note = f" and pushed it to {plan.remote}" if plan.remote else ""
    console.print(f"tagged {plan.commit[:7]} as {console.style(plan.tag, 'green')}{push_note}")
    if plan.changelog:
        console.print(f"{plan.changelog} has the new section; commit it: it belongs to the next version")
    return console.print("next: `promote`" if plan.remote else f"next: `promote`, and `git push REMOTE {plan.tag}`")


def print_version(version: CheckoutVersion, git_facts: GitFacts) -> None:
    """The version of the tree, and why."""
    if git_facts.is_shallow:
        console.warn("this clone is shallow, so the version may be wrong; git fetch --unshallow --tags")
    if console.is_json_mode():
        formats = {"file_name": version_to_file_name(version.semver), "pep440": version_to_pep440(version.semver)}
        return console.print_json(
            {**asdict(version), **formats, "commit": git_facts.commit, "shallow": git_facts.is_shallow}
        )
    return console.print(f"{version.semver}  ({version.reason})")


def print_bare_version(text: str) -> None:
    """A version alone."""
    return console.print_json({"semver": text}) if console.is_json_mode() else console.print(text)


def print_releases(releases: Sequence[Release], bundles: Mapping[str, str]) -> None:
    """A line per tagged version, highest first, and where its bundle is; `bundles` are the folders by version."""
    rows = [
        {"version": str(release.version), "tag": release.tag, "date": release.date, "commit": release.commit,
         "bundle": bundles.get(str(release.version))}
        for release in releases
    ]  # fmt: skip
    if console.is_json_mode():
        return console.print_json(rows)
    if not rows:
        return console.print("nothing is released yet; `build test release promote` makes the first version")
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
        "decisive": [
            {"commit": commit.id, "kind": commit.type, "subject": commit.summary}
            for commit in decision.decisive_commits
        ],
        "changelog": render_changes(plan.changes),
    }
