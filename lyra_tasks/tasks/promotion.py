"""`verify` and `bundle.*`: bundles that exist."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import dry, word


@word(
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

    from lyra_tasks.bundle import show
    from lyra_tasks.bundle.signature import trust_of
    from lyra_tasks.bundle.verify_any import verify_any

    trust = trust_of(allowed_signers, signer, revoked)
    bundle = Path(path) if path else show.newest(workspace().bundles)
    with console.doing(f"checking every byte of {bundle.name}"):
        report = verify_any(bundle, trust)
    show.verified(report)


@word(
    positional=("before", "after"),
    before="a version of this project, or the folder of a bundle",
    after="another one",
)
def diff(c: Any, before: str, after: str, json: bool = False) -> None:
    """What is different between two bundles: images, packages, variables, volumes, limits, tests, deviations, sizes."""
    from lyra_tasks.bundle import show
    from lyra_tasks.bundle.described import bundle_at, described
    from lyra_tasks.bundle.difference import difference

    bundles = workspace().bundles
    show.differs(difference(*(described(bundle_at(bundles, each)) for each in (before, after))))


@word("list")
def listing(c: Any, json: bool = False) -> None:
    """The bundles of this project, newest first."""
    from lyra_tasks.bundle import show

    show.listed(workspace().bundles)


@word(
    positional=("version",),
    version="the bundle to pack, one of bundle.list",
    to="the folder, on the medium that is carried, in which the pack is made",
    since="leave out the layers that this older version has: the receiver must hold it",
    split="no file larger than this, such as 2g: larger ones come in numbered parts",
)
def pack(
    c: Any, version: str, to: str = "", since: str = "", split: str = "", dry_run: bool = False, json: bool = False
) -> None:
    """Make what travels of a bundle: whole, or what an older version lacks; in parts where the medium needs it."""
    from lyra_tasks.bundle.packs import facts, plan, run, show

    work = workspace()
    planned = plan.plan(facts.gather(work.bundles, version, to=to, since=since, split=split))
    if dry(c):
        return show.planned(planned)
    return show.packed(run.run(planned, work))


@word(positional=("version",), version="the bundle to rehearse, one of bundle.list")
def rehearse(c: Any, version: str, dry_run: bool = False, json: bool = False) -> None:
    """Receive and start a bundle on a throwaway engine like Proxima's, and make the project's checks there."""
    from lyra_tasks.bundle.rehearsal import facts, plan, run, show
    from lyra_tasks.lab import elsewhere

    work = workspace()
    config, root = work.config, work.root
    planned = plan.plan(config, facts.gather(work, version), elsewhere.values(config))
    if dry(c):
        return show.planned(planned)

    def checks(services: Any) -> Any:
        return elsewhere.check_deployed(services, config, planned.values, root)

    return show.rehearsed(run.run(planned, work, checks))
