"""From the engine to images whose layers lie at hand: of a containerd store what is missing, of others one stream."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.plan import PromotionPlan
from lyra_tasks.engine.export import BLOBS, Exported, export, exportable
from lyra_tasks.engine.save import saved
from lyra_tasks.errors import BuildError, BundleError, NoSpaceError
from lyra_tasks.files import STAGING
from lyra_tasks.images.cache import CacheMissError, LayerCache
from lyra_tasks.images.pack import PackedImage, Wanted, pack, pack_blobs
from lyra_tasks.images.packages import known_packages

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


@contextmanager
def packed(
    plan: PromotionPlan, work: Workspace, stage: Path, cache: LayerCache, lock: int
) -> Iterator[dict[str, PackedImage]]:
    """All images of the plan, the very ones that were tested; their layers lie at hand while the block runs.

    `lock` is the handle of the lock over `stage`, which the Buildx of a promotion that is killed goes on to hold.
    BundleError if the engine gives another image than was tested.
    """
    aside = Path(tempfile.mkdtemp(dir=stage.parent, prefix=f"{STAGING}export-"))
    spool = stage / "spool"
    try:
        spool.mkdir()
        found = _exported(plan, work, aside, cache, lock) or _saved(plan, work, spool, cache)
        _require_tested(plan, found)
        yield found
        shutil.rmtree(spool)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _require_tested(plan: PromotionPlan, found: Mapping[str, PackedImage]) -> None:
    for each in plan.archives:
        identity = found[each.key].identity
        if identity.config_digest != each.record.config_digest:
            raise BundleError(
                f"{each.key}: the engine gave {identity.config_digest}, tested was {each.record.config_digest}",
                hint="run `build test` again",
            )


def _exported(
    plan: PromotionPlan, work: Workspace, folder: Path, cache: LayerCache, lock: int
) -> dict[str, PackedImage] | None:
    """The images out of a containerd store, where only what the cache lacks is sent; None where that cannot be done."""
    wanted = {each.key: each.record.manifest_digest or "" for each in plan.archives}
    images = [Exported(each.record.reference, each.record.engine_id, each.record.platform) for each in plan.archives]
    if not exportable(work.engine, images):
        return None
    layout = folder / "layout"
    blobs = layout / BLOBS
    blobs.mkdir(parents=True)
    send = partial(export, work.engine, images, layout, folder, lock)
    try:
        with console.doing(f"packing {', '.join(wanted)}"):
            known = cache.complete(blobs, send)
            return pack_blobs(wanted, blobs, plan.compression, known, cache, packages=_asked(plan, work))
    except (BuildError, BundleError, NoSpaceError) as error:
        cache.forget()
        shutil.rmtree(layout, ignore_errors=True)
        console.note(f"the images are saved whole, since BuildKit did not export them: {error.message}")
        return None


def _saved(plan: PromotionPlan, work: Workspace, spool: Path, cache: LayerCache) -> dict[str, PackedImage]:
    """All images out of one stream of the engine: layers that they share are sent once."""
    try:
        return _from_stream(plan, work, spool, cache)
    except CacheMissError:  # an entry that was damaged, or about another layer that looks alike
        cache.distrust()
        return _from_stream(plan, work, spool, cache)


def _from_stream(plan: PromotionPlan, work: Workspace, spool: Path, cache: LayerCache) -> dict[str, PackedImage]:
    names = [each.record.engine_id for each in plan.archives]
    wanted = {each.key: Wanted(each.record.engine_id, each.record.platform) for each in plan.archives}
    with console.doing(f"packing {', '.join(wanted)}") as now, saved(work.engine, names, now.count) as stream:
        return pack(stream, wanted, spool, plan.compression, cache, packages=_asked(plan, work), read_back=True)


def _asked(plan: PromotionPlan, work: Workspace) -> bool:
    """Whether the packages of any layer are still to be read; the rules of the test read them, too."""
    diff_ids = {diff_id for each in plan.archives for diff_id in each.record.diff_ids}
    return any(known_packages(work.paths.cache, each) is None for each in diff_ids)
