"""Get the tested images out of the engine: from its store of blobs if that can be read, or by a save of all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.promote.plan import PromotionPlan
from lyra_tasks.digests import hex_part
from lyra_tasks.engine.buildx.content_store import find_blobs
from lyra_tasks.engine.buildx.oci_export import BLOBS_PATH, ExportRequest, can_export, export_layout
from lyra_tasks.engine.buildx.save_stream import open_save_stream
from lyra_tasks.errors import BuildError, BundleError, NoSpaceError, is_disk_full
from lyra_tasks.files import STAGING_PREFIX, link_or_copy
from lyra_tasks.images.stream.cache import CacheMissError, LayerCache
from lyra_tasks.images.stream.pack import ImageRequest, PackedImage, pack_saved_images, pack_spooled_images
from lyra_tasks.images.stream.packages import load_layer_packages

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.workspace import Workspace


@contextmanager
def pack_images(
    plan: PromotionPlan, work: Workspace, stage: Path, cache: LayerCache, lock: int
) -> Iterator[dict[str, PackedImage]]:
    """Yield the tested images by build name; their layers exist on disk while the block runs.

    Buildx inherits the file descriptor `lock`, so that it holds the lock even if this process is killed. Raises
    BundleError if the engine returns another image than the tested one.
    """
    export_directory = Path(tempfile.mkdtemp(dir=stage.parent, prefix=f"{STAGING_PREFIX}export-"))
    spool = stage / "spool"
    try:
        spool.mkdir()
        packed_images = _export_images(plan, work, export_directory, cache, lock)
        try:
            packed_images = packed_images or _save_images(plan, work, spool, cache)
        except CacheMissError:  # a damaged entry, or one of a similar layer
            cache.distrust()
            packed_images = _save_images(plan, work, spool, cache)
        for image in plan.images:
            digest, tested_digest = packed_images[image.build_name].identity.config_digest, image.record.config_digest
            if digest != tested_digest:
                raise BundleError(
                    f"{image.build_name}: the engine returned {digest}, tested was {tested_digest}",
                    hint="Run `build test`",
                )
        yield packed_images
        shutil.rmtree(spool)
    finally:
        shutil.rmtree(export_directory, ignore_errors=True)


def _export_images(
    plan: PromotionPlan, work: Workspace, directory: Path, cache: LayerCache, lock: int
) -> dict[str, PackedImage] | None:
    """Link the blobs of a private engine, or export those that the cache lacks.

    Return None if the image store or BuildKit cannot do that.
    """
    manifest_digests = {image.build_name: image.record.manifest_digest or "" for image in plan.images}
    export_sources = [
        ExportRequest(image.record.reference, image.record.image_id, image.record.platform) for image in plan.images
    ]
    oci_layout = directory / "layout"
    blobs = oci_layout / BLOBS_PATH
    blobs.mkdir(parents=True)
    is_complete = _link_stored_blobs(work.engine, manifest_digests.values(), blobs)
    if not is_complete and not can_export(work.engine, export_sources):
        return None
    cache.keeps_engine_blobs = not is_complete
    export_missing = partial(export_layout, work.engine, export_sources, oci_layout, directory, lock)
    try:
        with console.progress(f"packing {', '.join(manifest_digests)}"):
            known_layers = {}
            if not is_complete:
                known_layers = cache.fill_spool(blobs, export_missing)
                _add_fetched_documents(plan, work, blobs)
            scan = _needs_package_scan(plan, work)
            return pack_spooled_images(
                manifest_digests, blobs, plan.compression, known_layers, cache,
                read_packages=scan, verified_later=is_complete,
            )  # fmt: skip
    except (BuildError, BundleError, NoSpaceError) as error:
        cache.discard_pending()
        shutil.rmtree(oci_layout, ignore_errors=True)
        console.info(f"Saving the complete images, since they cannot be exported: {error.message}")
        return None


def _link_stored_blobs(engine: Engine, manifest_digests: Iterable[str], blobs: Path) -> bool:
    """Link all blobs of images from the store of a private engine; return False if it has not all of them.

    An engine never changes a blob. They are hashed when the archive is read back, or before if they are unpacked first.
    """
    paths = find_blobs(engine.blobs, manifest_digests) if engine.blobs is not None else None
    try:
        for path in paths or ():
            link_or_copy(path, blobs / path.name)
    except OSError as error:
        if is_disk_full(error):
            raise
        return False
    return paths is not None


def _add_fetched_documents(plan: PromotionPlan, work: Workspace, blobs: Path) -> None:
    """Add manifests and configs of third-party images, for which BuildKit has written others."""
    for record in (image.record for image in plan.images if image.record.origin is not None):
        for digest in (record.config_digest, record.manifest_digest or ""):
            if (document := work.images.read_document(digest)) is not None:
                path = blobs / hex_part(digest)
                path.unlink(missing_ok=True)  # it may be a link to that of the engine
                path.write_bytes(document)


def _save_images(plan: PromotionPlan, work: Workspace, spool: Path, cache: LayerCache) -> dict[str, PackedImage]:
    """Save all images in one stream, in which shared layers occur once."""
    engine_ids = [image.record.image_id for image in plan.images]
    requested_images = {
        image.build_name: ImageRequest(image.record.image_id, image.record.platform) for image in plan.images
    }
    with (
        console.progress(f"packing {', '.join(requested_images)}"),
        open_save_stream(work.engine, engine_ids) as stream,
    ):
        scan = _needs_package_scan(plan, work)
        return pack_saved_images(
            stream, requested_images, spool, plan.compression, cache, read_packages=scan, verified_later=True
        )


def _needs_package_scan(plan: PromotionPlan, work: Workspace) -> bool:
    """Return whether the packages of any layer are unknown; the rule checks of a test usually read them."""
    diff_ids = {diff_id for image in plan.images for diff_id in image.record.diff_ids}
    return any(load_layer_packages(work.paths.cache, diff_id) is None for diff_id in diff_ids)
