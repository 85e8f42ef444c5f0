"""`release` and `release.*`: versions, told by git, and made there."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import dry, word


@word(
    bump="how far to go: major, minor, patch, or auto (default), which reads the commits' messages",
    pre="make a pre-release: --pre rc gives 1.4.0-rc.1, then 1.4.0-rc.2",
    version="this very version, such as 1.4.0",
    push="push the tag; if that fails, there is no tag",
    changelog="write the changes into this file of the project, too",
)
def release(
    c: Any,
    bump: str = "",
    pre: str = "",
    version: str = "",
    push: bool = False,
    changelog: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Tag the tested commit as the next version, with what changed as message; lists all that stands against it."""
    from lyra_tasks.release import facts, plan, run, show
    from lyra_tasks.release.wanted import wanted

    work = workspace()
    asked = wanted(work.root, bump=bump, pre=pre, version=version, push=push, changelog=changelog)
    planned = plan.plan(work.config, facts.gather(work, asked), asked)
    if dry(c):
        show.would(planned)
        return run.require_possible(planned)
    if not console.is_json():
        show.planned(planned)
    return show.released(run.run(planned, work))


@word("version", image_tag="the version that this image tag stands for, instead")
def current(c: Any, image_tag: str = "", json: bool = False) -> None:
    """The version of the tree as it is, and why."""
    from lyra_tasks.config.forms import version_of_image_tag
    from lyra_tasks.release import show

    if image_tag:
        return show.meant(version_of_image_tag(image_tag))
    work = workspace()
    return show.version(work.version, work.git)


@word("list")
def listing(c: Any, json: bool = False) -> None:
    """The tagged versions, highest first: when, of which commit, and where the bundle is."""
    from lyra_tasks.bundle.read import read_index
    from lyra_tasks.config.find import shown
    from lyra_tasks.config.releases import releases
    from lyra_tasks.release import show

    work = workspace()
    index = read_index(work.bundles, work.config.project.name)
    bundles = {each.version: str(shown(work.bundles / each.version)) for each in index.versions}
    show.listed(releases(work.root, work.config.release.tag), bundles)
