"""What a promotion depends on, found out: only a set that was tested, and is what the files say, goes on."""

from __future__ import annotations

import datetime

from semver import Version

from lyra_tasks.bundle.plan import PromotionFacts
from lyra_tasks.config import changelog
from lyra_tasks.config.commits import commits_since
from lyra_tasks.config.releases import floating, previous, releases
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.rules.deviations import rejudge
from lyra_tasks.rules.promotion import promotion_results
from lyra_tasks.rules.tested import tested_set


def gather(work: Workspace) -> PromotionFacts:
    """The facts of a promotion; StaleError with the word to run first where the set is stale or untested.

    VerdictError where a deviation that it rests on has expired since.
    """
    config = work.config
    tested = tested_set(work)
    judgement = rejudge(config, tested.evidence.rules, datetime.date.today())
    judgement.require()
    return PromotionFacts(
        version=work.version,
        moving_tags=_moving_tags(work),
        commit=work.git.commit,
        dirty=work.git.dirty,
        source=config.project.source or _elsewhere(work.git.remote),
        epoch=work.git.time,
        changes=_changes(work),
        key=tested.key,
        evidence=tested.evidence,
        evidence_folder=work.evidence.folder(tested.key.digest),
        records=tested.records,
        image_configs=tested.image_configs,
        rules=(*judgement.results, *promotion_results(work.git)),
        deviations=judgement.used,
        bundles=work.bundles,
    )


def _moving_tags(work: Workspace) -> tuple[str, ...]:
    """The tags beside the version's own that a release gives its images, by what is tagged in the repository now."""
    if not work.version.is_release:
        return ()
    tagged = (each.version for each in releases(work.root, work.config.release.tag))
    return floating(Version.parse(work.version.semver), tagged)


def _changes(work: Workspace) -> changelog.Changes:
    """The changes since the version before this one."""
    reachable = releases(work.root, work.config.release.tag, reachable=True)
    before = previous(Version.parse(work.version.semver), reachable)
    return changelog.Changes(
        version=work.version.semver,
        day=work.git.day,
        previous=str(before.version) if before else "",
        commits=commits_since(work.root, before.tag if before else ""),
        source=work.config.project.source or _elsewhere(work.git.remote),
    )


def _elsewhere(remote: str) -> str:
    """A remote that others can reach, too; a path on this machine is nobody else's business."""
    host, colon, _ = remote.partition(":")
    return remote if colon and "/" not in host and host != "file" else ""
