"""Create the tag of a release; a failure or an interruption rolls everything back."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import write_file
from lyra_tasks.locks import file_lock
from lyra_tasks.releases.plan import ReleasePlan
from lyra_tasks.versions.changelog import add_changelog_section
from lyra_tasks.versions.git import run_git
from lyra_tasks.versions.version import list_releases

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_LOCK_FILE_NAME = "release.lock"
_TAG_EXISTS_MESSAGES = ("already exists", "cannot lock ref")
"""Git's messages for a tag that exists or is being created."""


def require_releasable(plan: ReleasePlan) -> None:
    """Raise a PreconditionError with all problems of a release, if there are any."""
    if plan.problems:
        raise PreconditionError(
            f"Cannot release {plan.version}: {len(plan.problems)} problem(s)",
            hint="Fix them and rerun `release`; --dry-run shows the plan",
            details=plan.problems,
        )


def create_release(plan: ReleasePlan, work: Workspace) -> str:
    """Create a release and return git's id of the tag object."""
    require_releasable(plan)
    with file_lock(work.paths.state / _LOCK_FILE_NAME, resource="the release of this checkout"):
        current_tags = {release.tag for release in list_releases(work.root, work.config.release.tag)}
        if new_tags := current_tags - plan.existing_tags:
            raise _concurrent_release_error(", ".join(sorted(new_tags)))
        work.journal.append(work.run, "releasing", version=plan.version, tag=plan.tag, commit=plan.commit)
        with _changelog_section(plan, work.root):
            tag_id = _create_tag(plan, work.root)
    work.journal.append(
        work.run, "released", version=plan.version, tag=plan.tag, tag_id=tag_id, commit=plan.commit,
        pushed_to=plan.remote,
    )  # fmt: skip
    work.refresh_git(*([plan.changelog] if plan.changelog else []))
    return tag_id


@contextmanager
def _changelog_section(plan: ReleasePlan, root: Path) -> Iterator[None]:
    """Add the section to the project's changelog, and restore the file if the block fails."""
    if not plan.changelog:
        yield
        return
    path = root / plan.changelog
    original = path.read_bytes() if path.exists() else None
    mode = stat.S_IMODE(path.stat().st_mode) if original is not None else 0o644
    text = (original or b"").decode(errors="surrogateescape")
    write_file(path, add_changelog_section(text, plan.changes).encode(errors="surrogateescape"), mode)
    try:
        yield
    except BaseException:
        if original is None:
            path.unlink()
        else:
            write_file(path, original, mode)
        raise


def _create_tag(plan: ReleasePlan, root: Path) -> str:
    """Create the tag, push it if requested, and return its id; on failure the tag is deleted."""
    is_created = False
    try:
        run_git(
            root,
            "tag", "--annotate", "--cleanup=verbatim", "--file=-", plan.tag, plan.commit,
            stdin=plan.message,
        )  # fmt: skip
        is_created = True
        if plan.remote:
            run_git(root, "push", "--quiet", plan.remote, f"refs/tags/{plan.tag}")
    except PreconditionError as error:
        # a tag that git refused to create belongs to another process, even if it is equal
        if is_created:
            _delete_tag(plan, root)
        if any(message in line for line in error.details for message in _TAG_EXISTS_MESSAGES):
            raise _concurrent_release_error(plan.tag, error.details) from error
        raise
    except BaseException:
        _delete_tag(plan, root)
        raise
    return _find_tag_id(plan, root)


def _concurrent_release_error(tags: str, details: tuple[str, ...] = ()) -> PreconditionError:
    return PreconditionError(
        f"Another process created {tags} at the same time",
        hint="Check `release.list` and rerun `release` if needed",
        details=details,
    )


def _delete_tag(plan: ReleasePlan, root: Path) -> None:
    """Delete the tag of this release, unless the remote already accepted it."""
    tag_id = _find_tag_id(plan, root)
    if not tag_id:
        return None
    if plan.remote:
        with suppress(PreconditionError):
            if run_git(root, "ls-remote", "--tags", plan.remote, f"refs/tags/{plan.tag}").startswith(tag_id):
                return console.warn(f"{plan.remote} already accepted {plan.tag}: it stays released")
    run_git(root, "update-ref", "-d", f"refs/tags/{plan.tag}", tag_id)
    return None


def _find_tag_id(plan: ReleasePlan, root: Path) -> str:
    """Return the id of the plan's tag; empty if the tag does not exist or has another commit or message."""
    fields = "%(objectname)%00%(*objectname)%00%(contents)"
    output = run_git(root, "for-each-ref", f"--format={fields}", f"refs/tags/{plan.tag}")
    if not output:
        return ""
    tag_id, commit, message = output.split("\0")
    return tag_id if commit == plan.commit and message.startswith(plan.message.strip()) else ""
