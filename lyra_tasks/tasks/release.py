"""`release` and `release.*`: versions, told by git, and made there."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.task import is_dry_run, task


@task(
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
    from lyra_tasks.release.facts import collect_release_facts
    from lyra_tasks.release.next_version import parse_release_request
    from lyra_tasks.release.plan import plan_release
    from lyra_tasks.release.run import create_release, require_releasable
    from lyra_tasks.release.show import print_release_dry_run, print_release_plan, print_release_result

    work = workspace()
    request = parse_release_request(work.root, bump=bump, pre=pre, version=version, push=push, changelog=changelog)
    release_plan = plan_release(work.config, collect_release_facts(work, request), request)
    if is_dry_run(c):
        print_release_dry_run(release_plan)
        return require_releasable(release_plan)
    if not console.is_json_mode():
        print_release_plan(release_plan)
    return print_release_result(create_release(release_plan, work))


@task("version", image_tag="the version that this image tag stands for, instead")
def release_version(c: Any, image_tag: str = "", json: bool = False) -> None:
    """The version of the tree as it is, and why."""
    from lyra_tasks.release.show import print_bare_version, print_version
    from lyra_tasks.versions.formats import version_from_image_tag

    if image_tag:
        return print_bare_version(version_from_image_tag(image_tag))
    work = workspace()
    return print_version(work.version, work.git)


@task("list")
def release_list(c: Any, json: bool = False) -> None:
    """The tagged versions, highest first: when, of which commit, and where the bundle is."""
    from lyra_tasks.bundle.format.index import read_index
    from lyra_tasks.config.discovery import display_path
    from lyra_tasks.release.show import print_releases
    from lyra_tasks.versions.version import list_releases

    work = workspace()
    index = read_index(work.bundles, work.config.project.name)
    bundles = {bundle.version: str(display_path(work.bundles / bundle.version)) for bundle in index.versions}
    print_releases(list_releases(work.root, work.config.release.tag), bundles)
