"""Making a release: the tag is the last thing that is made, and what fails or is interrupted is taken back."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.config.changelog import merged
from lyra_tasks.config.git import git
from lyra_tasks.config.releases import releases
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import write_file
from lyra_tasks.release.plan import ReleasePlan
from lyra_tasks.run import locked

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_LOCK = "release.lock"
_TAKEN = ("already exists", "cannot lock ref")
"""How git says that a tag is there, or is being made."""


@dataclass(frozen=True)
class Released:
    """A release that was made; `tag_id` is the id of the tag in git."""

    plan: ReleasePlan
    tag_id: str


def require_possible(plan: ReleasePlan) -> None:
    """PreconditionError that lists everything that stands against a release."""
    if plan.problems:
        raise PreconditionError(
            f"{plan.version} cannot be released: {len(plan.problems)} problem(s)",
            hint="mend them, then release again; --dry-run shows the plan",
            details=plan.problems,
        )


def run(plan: ReleasePlan, work: Workspace) -> Released:
    """Make the release; PreconditionError in git's words if it refuses, LockedError while another one is made here."""
    require_possible(plan)
    with locked(work.paths.state / _LOCK, what="the release of this checkout"):
        _require_same_tags(plan, work)
        work.journal.append(work.run, "releasing", version=plan.version, tag=plan.tag, commit=plan.commit)
        with _section(plan, work.root):
            tag_id = _tagged(plan, work.root)
    work.journal.append(
        work.run, "released", version=plan.version, tag=plan.tag, tag_id=tag_id, commit=plan.commit,
        pushed_to=plan.remote,
    )  # fmt: skip
    work.reread_git(*([plan.changelog] if plan.changelog else []))
    return Released(plan, tag_id)


def _require_same_tags(plan: ReleasePlan, work: Workspace) -> None:
    """Between plan and lock another release may have been made."""
    now = {each.tag for each in releases(work.root, work.config.release.tag)}
    if new := now - plan.tagged:
        raise _lost(", ".join(sorted(new)))


@contextmanager
def _section(plan: ReleasePlan, root: Path) -> Iterator[None]:
    """The section in the project's own changelog, which is as it was if the release fails."""
    if not plan.changelog:
        yield
        return
    path = root / plan.changelog
    before = path.read_bytes() if path.exists() else None
    mode = stat.S_IMODE(path.stat().st_mode) if before is not None else 0o644
    text = (before or b"").decode(errors="surrogateescape")
    write_file(path, merged(text, plan.changes).encode(errors="surrogateescape"), mode)
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink()
        else:
            write_file(path, before, mode)
        raise


def _tagged(plan: ReleasePlan, root: Path) -> str:
    """Make the tag, and push it if asked to; the id of the tag. Taken back unless all of it was done."""
    made = False
    try:
        git(
            root,
            "tag", "--annotate", "--cleanup=verbatim", "--file=-", plan.tag, plan.commit,
            text=plan.message,
        )  # fmt: skip
        made = True
        if plan.remote:
            git(root, "push", "--quiet", plan.remote, f"refs/tags/{plan.tag}")
    except PreconditionError as error:
        # A tag that git refused to make is another's, even where it says the same
        if made:
            _take_back(plan, root)
        if any(sign in line for line in error.details for sign in _TAKEN):
            raise _lost(plan.tag, error.details) from error
        raise
    except BaseException:
        _take_back(plan, root)
        raise
    return _tag_id(plan, root)


def _lost(tags: str, details: tuple[str, ...] = ()) -> PreconditionError:
    return PreconditionError(
        f"another process tags {tags} at the same time",
        hint="look at `release.list`, and release again if there is still something to release",
        details=details,
    )


def _take_back(plan: ReleasePlan, root: Path) -> None:
    """Remove the tag that this release has made; one that the remote has taken stays, for then the release is made."""
    tag_id = _tag_id(plan, root)
    if not tag_id:
        return None
    if plan.remote:
        with suppress(PreconditionError):
            if git(root, "ls-remote", "--tags", plan.remote, f"refs/tags/{plan.tag}").startswith(tag_id):
                return console.warn(f"{plan.remote} has taken {plan.tag}: the release is made")
    git(root, "update-ref", "-d", f"refs/tags/{plan.tag}", tag_id)
    return None


def _tag_id(plan: ReleasePlan, root: Path) -> str:
    """The id of the tag if it is the one of this plan: the same commit and message. Empty for another's, or none."""
    fields = "%(objectname)%00%(*objectname)%00%(contents)"
    found = git(root, "for-each-ref", f"--format={fields}", f"refs/tags/{plan.tag}")
    if not found:
        return ""
    tag_id, commit, message = found.split("\0")
    return tag_id if commit == plan.commit and message.startswith(plan.message.strip()) else ""
