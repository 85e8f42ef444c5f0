"""Remove the images of earlier builds that nothing needs any more, after a build."""

from __future__ import annotations

from collections.abc import Iterator

from lyra_tasks import console
from lyra_tasks.cleanup.facts import find_live_runs, find_shared_images, list_own_journals, list_project_journals
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.inventory import LABEL_TITLE, EngineObject, list_images, list_used_image_ids
from lyra_tasks.engine.objects.ownership import OwnedObject, OwnershipIndex, load_ownership_index
from lyra_tasks.engine.objects.removal import remove_objects
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.records.checkouts import list_other_checkouts
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.images import ImageStore
from lyra_tasks.records.retention import StoredReference, select_expired_references

_MAX_NAMES = 3


def remove_expired_images(work: Workspace) -> tuple[OwnedObject, ...]:
    """Remove references beyond `resources.keep_images`, and own images without one; return what was removed.

    What the latest builds are recorded with, a container uses or another checkout created stays. Nothing is removed
    while another run of this checkout is active, for it may be about to use any of them.
    """
    engine, limit = work.engine, work.config.resources.keep_images
    ownership = load_ownership_index(work.paths, engine.facts.id)
    unused = find_expired_images(work, engine, ownership)
    if not unused or find_live_runs(work, list_own_journals(work)):
        return ()
    others = [list_project_journals(names) for names in list_other_checkouts(work.paths) if not names[0].is_missing]
    shared = find_shared_images(others, engine, unused, ownership)
    owned = (item for image in unused if (item := ownership.match(image)) is not None)
    removed = remove_objects(engine, work.owner, [item for item in owned if item not in shared]).removed
    if removed:
        names = sorted(item.name if item.name != item.id else f"{item.id[:19]} without a name" for item in removed)
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        console.info(f"Removed old images beyond keep_images = {limit}: {', '.join(names[:_MAX_NAMES])}{more}")
    return tuple(removed)


def find_expired_images(work: Workspace, engine: Engine, ownership: OwnershipIndex) -> list[EngineObject]:
    """Return the images beyond the limit that no container uses."""
    candidates = _find_candidates(work, engine, ownership)
    used_ids = list_used_image_ids(engine) if candidates else frozenset()
    return [image for image in candidates if image.id not in used_ids]


def _find_candidates(work: Workspace, engine: Engine, ownership: OwnershipIndex) -> list[EngineObject]:
    """Return the images in the engine that are expired by the journal and the records alone."""
    records = [*work.images.list_records(), *ImageStore(DevStore(work.paths.state).images_directory).list_records()]
    recorded_ids = {record.image_id for record in records}
    prefix = f"{work.config.project.name}/"
    references = [StoredReference(name, run) for name, (_, run) in ownership.images.items() if name.startswith(prefix)]
    needed = {record.reference for record in records}
    expired = select_expired_references(references, needed, work.config.resources.keep_images)
    names = {reference.name for reference in expired}
    images = list_images(engine, {"reference": sorted(names)}) if names else ()
    candidates = [image for image in images if image.name in names]
    return candidates + [image for image in _find_unnamed(engine, ownership, prefix) if image.id not in recorded_ids]


def _find_unnamed(engine: Engine, ownership: OwnershipIndex, prefix: str) -> Iterator[EngineObject]:
    """Yield the images that were built for this project, and whose reference names a later one by now."""
    if ownership.runs_by_image_id.keys() - {image_id for image_id, _ in ownership.images.values()}:
        for image in list_images(engine, {"dangling": True, "label": LABEL_TITLE}):
            is_unnamed = image.name == image.id and image.title.startswith(prefix)
            if is_unnamed and image.id in ownership.runs_by_image_id:
                yield image
