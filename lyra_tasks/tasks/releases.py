"""Tasks for versions, which are git tags: `release` and `release.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context

from lyra_tasks import console
from lyra_tasks.tasks.session import require_same_source, workspace
from lyra_tasks.tasks.task import task

if TYPE_CHECKING:
    from lyra_tasks.results import BareVersion, CreatedRelease, ReleaseEntry, ReleasePreview, VersionDetails


@task(
    "release",
    bump="major, minor, patch or auto (default: auto, from the commit messages)",
    pre="Create a pre-release: --pre rc gives 1.4.0-rc.1, then 1.4.0-rc.2",
    version="Use this version, for example 1.4.0",
    push="Push the tag and delete it again if the push fails",
    changelog="Also write the changes to FILE",
)
def release(
    c: Context,
    bump: str = "",
    pre: str = "",
    version: str = "",
    push: bool = False,
    changelog: str = "",
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> CreatedRelease | ReleasePreview:
    """Tag the tested commit as the next version."""
    from lyra_tasks.releases.facts import collect_release_facts
    from lyra_tasks.releases.next_version import parse_release_request
    from lyra_tasks.releases.plan import plan_release
    from lyra_tasks.releases.run import create_release, require_releasable
    from lyra_tasks.releases.show import print_release_plan, show_release_plan, show_release_result

    work = workspace()
    require_same_source()
    request = parse_release_request(work.root, bump=bump, pre=pre, version=version, push=push, changelog=changelog)
    release_plan = plan_release(work.config, collect_release_facts(work, request), request)
    if dry_run:
        preview = show_release_plan(release_plan)
        require_releasable(release_plan)
        return preview
    if not console.is_json_mode():
        print_release_plan(release_plan)
    return show_release_result(release_plan, create_release(release_plan, work))


@task("release.version", image_tag="Show the version that this image tag stands for instead")
def release_version(
    c: Context, image_tag: str = "", json: bool = False, quiet: bool = False
) -> VersionDetails | BareVersion:
    """Show the version of the checkout and its reason."""
    from lyra_tasks.releases.show import show_bare_version, show_version
    from lyra_tasks.versions.version import version_from_image_tag

    if image_tag:
        return show_bare_version(version_from_image_tag(image_tag))
    work = workspace()
    return show_version(work.version, work.git)


@task("release.list")
def release_list(c: Context, json: bool = False, quiet: bool = False) -> tuple[ReleaseEntry, ...]:
    """List tagged versions with date, commit and bundle."""
    from lyra_tasks.bundle.format.index import BundleStore
    from lyra_tasks.bundle.listing import list_bundles
    from lyra_tasks.releases.show import show_releases
    from lyra_tasks.versions.version import list_releases

    work = workspace()
    bundles = {bundle.version: bundle for bundle in list_bundles(BundleStore(work.bundles)).versions}
    return show_releases(list_releases(work.root, work.config.release.tag), bundles)
