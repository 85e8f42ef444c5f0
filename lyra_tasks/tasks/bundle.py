"""`verify` and `bundle.*`: bundles that exist."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.task import is_dry_run, task


@task(
    positional=("path",),
    path="a bundle, a pack, a part of one, or an archive; default: the newest bundle of this project",
    allowed_signers="whom to trust, in ssh-keygen's format; then an unsigned bundle is refused",
    signer="the principal in that file who must have signed",
    revoked="a list of keys, or a KRL, that are trusted no more",
)
def verify(
    c: Any, path: str = "", allowed_signers: str = "", signer: str = "", revoked: str = "", json: bool = False
) -> None:
    """Rehash every byte of a bundle or pack; missing, changed and extra files are refused with 6."""
    from pathlib import Path

    from lyra_tasks.bundle.format.signature import parse_trust_options
    from lyra_tasks.bundle.show import find_newest_bundle, print_verify_report
    from lyra_tasks.bundle.verify.detect import verify_path

    trust = parse_trust_options(allowed_signers, signer, revoked)
    bundle = Path(path) if path else find_newest_bundle(workspace().bundles)
    with console.progress(f"checking every byte of {bundle.name}"):
        report = verify_path(bundle, trust)
    print_verify_report(report)


@task(
    positional=("before", "after"),
    before="a version of this project, or the folder of a bundle",
    after="another one",
)
def diff(c: Any, before: str, after: str, json: bool = False) -> None:
    """What is different between two bundles: images, packages, variables, volumes, limits, tests, deviations, sizes."""
    from lyra_tasks.bundle.diff import compare_bundles
    from lyra_tasks.bundle.format.documents import read_bundle_documents, resolve_bundle
    from lyra_tasks.bundle.show import print_diff

    bundles = workspace().bundles
    print_diff(
        compare_bundles(*(read_bundle_documents(resolve_bundle(bundles, version)) for version in (before, after)))
    )


@task("list")
def bundle_list(c: Any, json: bool = False) -> None:
    """The bundles of this project, newest first."""
    from lyra_tasks.bundle.show import print_bundles

    print_bundles(workspace().bundles)


@task(
    positional=("version",),
    version="the bundle to pack, one of bundle.list",
    to="the folder, on the medium that is carried, in which the pack is made",
    since="leave out the layers that this older version has: the receiver must hold it",
    split="no file larger than this, such as 2g: larger ones come in numbered parts",
)
def bundle_pack(
    c: Any, version: str, to: str = "", since: str = "", split: str = "", dry_run: bool = False, json: bool = False
) -> None:
    """Make what travels of a bundle: whole, or what an older version lacks; in parts where the medium needs it."""
    from lyra_tasks.bundle.pack.plan import collect_pack_facts, plan_pack
    from lyra_tasks.bundle.pack.run import create_pack
    from lyra_tasks.bundle.show import print_pack, print_pack_plan

    work = workspace()
    pack_plan = plan_pack(collect_pack_facts(work.bundles, version, to=to, since=since, split=split))
    if is_dry_run(c):
        return print_pack_plan(pack_plan)
    return print_pack(create_pack(pack_plan, work))


@task(positional=("version",), version="the bundle to rehearse, one of bundle.list")
def bundle_rehearse(c: Any, version: str, dry_run: bool = False, json: bool = False) -> None:
    """Receive and start a bundle on a throwaway engine like Proxima's, and make the project's checks there."""
    from lyra_tasks.bundle.rehearse.plan import collect_rehearsal_facts, plan_rehearsal
    from lyra_tasks.bundle.rehearse.run import run_rehearsal
    from lyra_tasks.bundle.show import print_rehearsal, print_rehearsal_plan
    from lyra_tasks.checks.deployed import check_deployed_services, collect_test_values

    work = workspace()
    config, root = work.config, work.root
    rehearsal_plan = plan_rehearsal(config, collect_rehearsal_facts(work, version), collect_test_values(config))
    if is_dry_run(c):
        return print_rehearsal_plan(rehearsal_plan)

    def check_services(services: Any) -> Any:
        return check_deployed_services(services, config, rehearsal_plan.service_values, root)

    return print_rehearsal(run_rehearsal(rehearsal_plan, work, check_services))
