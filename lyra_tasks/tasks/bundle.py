"""Tasks for existing bundles: `verify`, `diff` and `bundle.*`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from lyra_tasks import console
from lyra_tasks.tasks.session import user_path, workspace
from lyra_tasks.tasks.task import task

if TYPE_CHECKING:
    from lyra_tasks.results import (
        BundleComparison,
        BundleList,
        PackedBundle,
        PackPreview,
        Rehearsal,
        RehearsalPreview,
        RemovedBundle,
        RemovePreview,
        Verification,
    )


@task(
    "verify",
    positional=("path",),
    path="A version, bundle, pack, part of a pack or archive; default: the newest",
    allowed_signers="Trust only the signers in FILE (ssh-keygen's format); rejects unsigned bundles",
    signer="Require the signature of this principal in FILE",
    revoked="Reject the keys in this list or KRL",
)
def verify(
    c: Context,
    path: str = "",
    allowed_signers: str = "",
    signer: str = "",
    revoked: str = "",
    json: bool = False,
    quiet: bool = False,
) -> Verification:
    """Verify every byte of a bundle or pack.

    Exits with 6 if anything differs.
    """
    from lyra_tasks.bundle.format.signature import parse_trust_options
    from lyra_tasks.bundle.show import show_verification
    from lyra_tasks.bundle.verify import verify_path

    trust = parse_trust_options(user_path(allowed_signers), signer, user_path(revoked))
    bundle = _find_bundle(path)
    with console.progress(f"verifying {bundle.name}"):
        report = verify_path(bundle, trust)
    return show_verification(report)


def _find_bundle(name: str) -> Path:
    """Return what is at a path, or else the bundle of a version; without a name, the newest one."""
    from lyra_tasks.bundle.format.index import BundleStore

    path = Path(user_path(name))
    if name and ("/" in name or path.is_symlink() or path.exists()):
        return path
    store = BundleStore(workspace().bundles)
    return store.find(name) if name else store.find_newest()


@task(
    "diff",
    positional=("before", "after"),
    before="A version of this project, or the directory of a bundle",
    after="Another version or directory",
)
def diff(c: Context, before: str, after: str, json: bool = False, quiet: bool = False) -> BundleComparison:
    """Compare two bundles.

    Shows images, packages, settings, tests, deviations and sizes.
    """
    from lyra_tasks.bundle.diff import compare_bundles
    from lyra_tasks.bundle.format.documents import read_bundle_documents
    from lyra_tasks.bundle.format.index import BundleStore
    from lyra_tasks.bundle.format.manifest import open_bundle
    from lyra_tasks.bundle.show import show_diff

    store = BundleStore(workspace().bundles)
    bundles = [open_bundle(store.resolve(user_path(name) if "/" in name else name)) for name in (before, after)]
    return show_diff(compare_bundles(*(read_bundle_documents(bundle) for bundle in bundles)))


@task("bundle.list")
def bundle_list(c: Context, json: bool = False, quiet: bool = False) -> BundleList:
    """List the bundles of this project, newest first."""
    from lyra_tasks.bundle.format.index import BundleStore
    from lyra_tasks.bundle.listing import list_bundles, show_bundles

    return show_bundles(list_bundles(BundleStore(workspace().bundles)))


@task(
    "bundle.pack",
    positional=("version",),
    version="The version to pack; `bundle.list` shows all",
    to="Create the pack in this directory, for example on a USB disk",
    since="Omit the layers of this older version, which the receiver must have",
    split="Split files larger than SIZE, for example 2g, into numbered parts",
)
def bundle_pack(
    c: Context,
    version: str,
    to: str = "",
    since: str = "",
    split: str = "",
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> PackedBundle | PackPreview:
    """Pack a bundle for transport, whole or as a difference."""
    from lyra_tasks.bundle.format.index import BundleStore
    from lyra_tasks.bundle.pack.plan import collect_pack_facts, plan_pack
    from lyra_tasks.bundle.pack.run import create_pack
    from lyra_tasks.bundle.show import show_pack, show_pack_plan

    work = workspace()
    store = BundleStore(work.bundles)
    pack_plan = plan_pack(collect_pack_facts(store, version, to=user_path(to), since=since, split=split))
    if dry_run:
        return show_pack_plan(pack_plan)
    return show_pack(create_pack(pack_plan, work))


@task("bundle.remove", positional=("version",), version="The version to remove; `bundle.list` shows all")
def bundle_remove(
    c: Context, version: str, yes: bool = False, dry_run: bool = False, json: bool = False, quiet: bool = False
) -> RemovedBundle | RemovePreview:
    """Remove a bundle, a snapshot or a release (asks first)."""
    from lyra_tasks.bundle import removal
    from lyra_tasks.bundle.format.index import BundleStore

    work = workspace()
    removal_plan = removal.plan_removal(BundleStore(work.bundles), version, work.journal)
    if dry_run:
        return removal.show_removal_plan(removal_plan)
    removal.print_removal_notes(removal_plan)
    removal.confirm_removal(removal_plan, yes=yes)
    removal.remove_bundle(removal_plan, work)
    return removal.show_removal(removal_plan)


@task(
    "bundle.rehearse",
    positional=("version",),
    iterable=("write", "read"),
    version="The version to rehearse; `bundle.list` shows all",
    from_="Start this older version first, upgrade with a pack, roll back",
    write="With --from: run this check on the older version first (repeatable)",
    read="With --from: this check must pass before and after (repeatable)",
)
def bundle_rehearse(
    c: Context,
    version: str,
    from_: str = "",
    write: str | Sequence[str] | None = None,
    read: str | Sequence[str] | None = None,
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> Rehearsal | RehearsalPreview:
    """Follow the page of a bundle on a throwaway engine.

    Exits with 5 if a command of the page or a check fails.
    """
    from lyra_tasks.bundle.rehearse.plan import collect_rehearsal_facts, plan_rehearsal
    from lyra_tasks.bundle.rehearse.run import run_rehearsal
    from lyra_tasks.bundle.show import show_rehearsal, show_rehearsal_plan
    from lyra_tasks.checks.deployed import check_deployed_services, collect_test_values

    work = workspace()
    config, root = work.config, work.root
    facts = collect_rehearsal_facts(work, version, from_)
    values = collect_test_values(config)
    rehearsal_plan = plan_rehearsal(config, facts, values, write=tuple(write or ()), read=tuple(read or ()))
    if dry_run:
        return show_rehearsal_plan(rehearsal_plan)

    def check_services(services: Any, tests: Any) -> Any:
        checked = config.model_copy(update={"tests": tests})
        return check_deployed_services(services, checked, rehearsal_plan.service_values, root)

    return show_rehearsal(run_rehearsal(rehearsal_plan, work, check_services))
