"""What `release`, `release.version` and `release.list` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.changelog import body
from lyra_tasks.config.forms import file_name, pep440
from lyra_tasks.config.git import GitFacts
from lyra_tasks.config.releases import Release
from lyra_tasks.config.version import Version
from lyra_tasks.release.plan import ReleasePlan
from lyra_tasks.release.run import Released


def planned(plan: ReleasePlan) -> None:
    """What will be released, and why this version."""
    decision = plan.decision
    after = f" after {decision.previous.version}" if decision.previous else ""
    console.say(
        f"release {console.style(plan.version, 'bold')}{after}: tag {plan.tag} on {plan.commit[:7]} ({decision.reason})"
    )
    for each in decision.decisive:
        mark = "!" if each.breaking else ""
        console.say(f"  {each.short} {each.kind}{mark}: {each.text}")
    console.say()
    console.say(body(plan.changes))


def would(plan: ReleasePlan) -> None:
    """A dry run: the plan, and what stands against it."""
    if console.is_json():
        return console.document({**_document(plan), "problems": list(plan.problems)})
    planned(plan)
    return console.say("nothing was tagged (dry run)")


def released(made: Released) -> None:
    """That the tag is there, and what to do with it."""
    plan = made.plan
    if console.is_json():
        return console.document({**_document(plan), "tag_id": made.tag_id, "pushed_to": plan.remote})
    pushed = f" and pushed it to {plan.remote}" if plan.remote else ""
    console.say(f"tagged {plan.commit[:7]} as {console.style(plan.tag, 'green')}{pushed}")
    if plan.changelog:
        console.say(f"{plan.changelog} has the new section; commit it: it belongs to the next version")
    return console.say("next: `promote`" if plan.remote else f"next: `promote`, and `git push REMOTE {plan.tag}`")


def version(found: Version, git: GitFacts) -> None:
    """The version of the tree, and why."""
    if git.shallow:
        console.warn("this clone is shallow, so the version may be wrong; git fetch --unshallow --tags")
    if console.is_json():
        forms = {"file_name": file_name(found.semver), "pep440": pep440(found.semver)}
        return console.document({**asdict(found), **forms, "commit": git.commit, "shallow": git.shallow})
    return console.say(f"{found.semver}  ({found.reason})")


def meant(text: str) -> None:
    """A version alone."""
    return console.document({"semver": text}) if console.is_json() else console.say(text)


def listed(releases: Sequence[Release], bundles: Mapping[str, str]) -> None:
    """A line per tagged version, highest first, and where its bundle is; `bundles` are the folders by version."""
    rows = [
        {"version": str(each.version), "tag": each.tag, "date": each.date, "commit": each.commit,
         "bundle": bundles.get(str(each.version))}
        for each in releases
    ]  # fmt: skip
    if console.is_json():
        return console.document(rows)
    if not rows:
        return console.say("nothing is released yet; `build test release promote` makes the first version")
    cells = [
        (str(each["version"]), str(each["date"]), str(each["commit"])[:7], each["bundle"] or "never promoted")
        for each in rows
    ]
    return console.table(("version", "tagged", "commit", "bundle"), cells)


def _document(plan: ReleasePlan) -> dict[str, Any]:
    decision = plan.decision
    return {
        "version": plan.version,
        "tag": plan.tag,
        "commit": plan.commit,
        "previous": str(decision.previous.version) if decision.previous else None,
        "reason": decision.reason,
        "decisive": [{"commit": each.id, "kind": each.kind, "subject": each.text} for each in decision.decisive],
        "changelog": body(plan.changes),
    }
