"""`verify` and `bundle.*`: bundles that exist."""

from __future__ import annotations

from typing import Any

from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import word


@word(
    positional=("path",),
    path="the folder of one version; default: the newest bundle of this project",
    allowed_signers="whom to trust, in ssh-keygen's format; then an unsigned bundle is refused",
    signer="the principal in that file who must have signed",
    revoked="a list of keys, or a KRL, that are trusted no more",
)
def verify(
    c: Any, path: str = "", allowed_signers: str = "", signer: str = "", revoked: str = "", json: bool = False
) -> None:
    """Rehash every byte of a bundle; missing, changed and extra files are refused with 6."""
    from pathlib import Path

    from lyra_tasks.bundle import show
    from lyra_tasks.bundle.signature import trust_of
    from lyra_tasks.bundle.verify import verify

    trust = trust_of(allowed_signers, signer, revoked)
    show.verified(verify(Path(path) if path else show.newest(workspace().bundles), trust))


@word("list")
def listing(c: Any, json: bool = False) -> None:
    """The bundles of this project, newest first."""
    from lyra_tasks.bundle import show

    show.listed(workspace().bundles)
