"""The lock file as a whole: show it, or resolve its images again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lyra_tasks import console
from lyra_tasks.dockerfile.lock_file import LOCK_FILE_NAME, LockFile, pin_digest, read_lock_file, write_lock_file
from lyra_tasks.engine.bases.inputs import BaseRequest, list_requests
from lyra_tasks.engine.bases.resolve import lock_images
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import UsageError
from lyra_tasks.images.third_party.prepare import warn_about_unused_bases
from lyra_tasks.references import strip_tag
from lyra_tasks.results.engine import LockedImageEntry, LockedImages
from lyra_tasks.suggest import did_you_mean

_DIGEST_LENGTH = 19


def list_locked_images(work: Workspace) -> LockedImages:
    """Return the lock file's content and what is not locked yet; no engine is asked."""
    return _list_entries(read_lock_file(work.root / LOCK_FILE_NAME), list_requests(work))


def update_lock(work: Workspace, name: str, *, dry_run: bool) -> LockedImages:
    """Resolve the images with a name again, or all; without a name, forget those that nothing uses.

    A name is a key of the lock file, a reference with or without its tag, or the name of a service.
    """
    path = work.root / LOCK_FILE_NAME
    client = work.engine.client  # connect first, since the platforms depend on the engine
    requests = list_requests(work)
    warn_about_unused_bases(work, requests)
    selected = _select_requests(requests, name)
    lock = read_lock_file(path)
    moved = frozenset(request.key for request in selected)
    updated = lock_images(selected, lock, client=client, root=work.root, cache=work.paths.cache, moved=moved)
    if not name:
        updated = LockFile(bases={key: pin for key, pin in updated.bases.items() if key in moved})
    if not dry_run and (updated.bases or path.exists()):
        write_lock_file(path, updated)
    return _list_entries(updated, requests)


def _select_requests(requests: Sequence[BaseRequest], name: str) -> tuple[BaseRequest, ...]:
    selected = tuple(request for request in requests if not name or name in _list_names(request))
    if name and not selected:
        known = [known_name for request in requests for known_name in _list_names(request)]
        hint = did_you_mean(name, known, "`lock.show` shows all keys")
        raise UsageError(f"Nothing named {name!r} is used here", hint=hint)
    return selected


def _list_names(request: BaseRequest) -> list[str]:
    """Return the names of an image: its keys, the references that it is named by, and its services."""
    services = [location.split(".")[1] for location in request.locations if location.startswith("services.")]
    return [request.key, request.name, *request.references, *map(strip_tag, request.references), *services]


def _list_entries(lock: LockFile, requests: Iterable[BaseRequest]) -> LockedImages:
    locations = {request.key: request.locations for request in requests}
    keys = sorted({*lock.bases, *locations})
    return LockedImages(
        {
            key: LockedImageEntry(
                source=lock.bases[key].source if key in lock.bases else "",
                digest=pin_digest(lock.bases[key]) if key in lock.bases else "",
                used_by=locations.get(key, ()),
            )
            for key in keys
        }
    )


def show_locked_images(locked: LockedImages) -> LockedImages:
    """Show source, digest and use of each image."""
    if not console.print_result(locked):
        rows = [
            (
                key,
                image.source or "-",
                image.digest[:_DIGEST_LENGTH] or "not locked yet",
                ", ".join(image.used_by) or "nothing",
            )
            for key, image in locked.images.items()
        ]
        console.print_table(("image", "source", "digest", "used by"), rows)
    return locked
