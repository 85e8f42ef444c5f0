"""What a project takes on the disk, within which limits, and what of it would go by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.cleanup.cache_limits import measure_caches
from lyra_tasks.cleanup.expired_images import find_expired_images
from lyra_tasks.cleanup.journal_limits import MAX_ENTRIES
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.disk_usage import owns_builder, read_disk_usage
from lyra_tasks.engine.objects.inventory import list_images
from lyra_tasks.engine.objects.ownership import load_ownership_index
from lyra_tasks.engine.sandbox import find_sandbox_at
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.files import measure_size, quote_path
from lyra_tasks.records.evidence_store import EVIDENCE_DIRECTORY
from lyra_tasks.results.overview import StorageRow


def measure_storage(work: Workspace, engine: Engine | None, *, with_caches: bool) -> tuple[StorageRow, ...]:
    """Measure everything that has a limit in `[resources]`; caches, which have many files, only if asked for."""
    rows = [*_measure_images(work, engine)] if engine is not None else []
    rows += [_measure_evidence(work), _measure_run_directories(work), _measure_journal(work)]
    return (*rows, *(_measure_caches(work) if with_caches else ()))


def measure_cures(work: Workspace, engine: Engine | None, disk: Path) -> tuple[tuple[str, int], ...]:
    """Return what can be run or removed for want of space on the disk of a directory.

    Each with the bytes that it frees there at most, the most first.
    """

    def measure(directory: Path) -> int:
        return measure_size(directory) if _is_on_disk(directory, disk) else 0

    cures = {
        "run `clean --all`": measure(work.paths.state / EVIDENCE_DIRECTORY) + measure(work.paths.work),
        "remove bundles by `bundle.remove`": measure(work.bundles),
        f"delete {quote_path(work.paths.cache)}, the cache of all your projects": measure(work.paths.cache),
    }
    if engine is not None and _may_fill_disk(engine, disk):
        with translate_errors("listing images"):
            images = engine.api.images(filters={"reference": [f"{work.config.project.name}/*"]})
        cures["run `clean`"] = sum({image["Id"]: int(image["Size"]) for image in images}.values())
        usage = read_disk_usage(engine) if owns_builder(engine) else None
        cures["run `clean --cache`"] = usage.cache_size if usage is not None else 0
    return tuple(sorted(((cure, size) for cure, size in cures.items() if size), key=lambda item: -item[1]))


def _may_fill_disk(engine: Engine, disk: Path) -> bool:
    """Return whether images of an engine may lie on the disk of a directory; those in a virtual machine may."""
    if engine.is_remote:
        return False
    if box := find_sandbox_at(engine.host):
        return _is_on_disk(box.state, disk)
    with translate_errors("asking for its directory"):
        directory = Path(engine.api.info().get("DockerRootDir") or "/")
    return not directory.is_dir() or _is_on_disk(directory, disk)


def _is_on_disk(directory: Path, disk: Path) -> bool:
    """Return whether a directory exists, and on the same disk as another one."""
    return directory.is_dir() and directory.stat().st_dev == disk.stat().st_dev


def describe_caches(work: Workspace) -> str:
    """Return what the caches of all projects take, and how to remove them."""
    size, place = console.format_bytes(sum(usage.size for usage in measure_caches(work))), quote_path(work.paths.cache)
    return f"The caches of all your projects take {size}; `rm -r {place}` removes them while no private engine runs"


def describe_expired(row: StorageRow) -> str:
    """Return what of a row would go, or an empty string."""
    if not row.expired:
        return ""
    size = f" ({console.format_bytes(row.expired_size)})" if row.expired_size else ""
    return f"{len(row.expired)} of {row.title}{size}"


def list_expired(work: Workspace, engine: Engine | None) -> tuple[str, ...]:
    """Return a line for everything that would go by itself, for a dry run."""
    rows = measure_storage(work, engine, with_caches=True)
    return tuple(f"{row.title}: {name}" for row in rows for name in row.expired)


def _measure_images(work: Workspace, engine: Engine) -> Iterator[StorageRow]:
    images = list_images(engine, {"reference": [f"{work.config.project.name}/*"]})
    ownership = load_ownership_index(work.paths, engine.facts.id)
    names = [image.name for image in images if ownership.match(image) is not None]
    expired = tuple(image.name for image in find_expired_images(work, engine, ownership))
    yield StorageRow("image references", len(names), 0, f"{work.config.resources.keep_images} per image", expired)


def _measure_evidence(work: Workspace) -> StorageRow:
    runs, expired, resources = work.evidence.list_runs(), work.evidence.find_expired(), work.config.resources
    limit = f"{resources.keep_tests}, {console.format_bytes(resources.evidence)}"
    size, expired_size = sum(run.size for run in runs), sum(run.size for run in expired)
    return StorageRow("tests with evidence", len(runs), size, limit, tuple(run.name for run in expired), expired_size)


def _measure_run_directories(work: Workspace) -> StorageRow:
    directories = sorted(work.paths.runs.iterdir()) if work.paths.runs.is_dir() else []
    sizes = {path.name: measure_size(path) for path in directories}
    expired = tuple(path.name for path in directories[: -work.config.resources.keep_runs])
    expired_size = sum(sizes[name] for name in expired)
    limit = str(work.config.resources.keep_runs)
    return StorageRow("run directories", len(sizes), sum(sizes.values()), limit, expired, expired_size)


def _measure_journal(work: Workspace) -> StorageRow:
    archived = sum(archive.path.stat().st_size for archive in work.journal.archives)
    limit = f"{MAX_ENTRIES} and {console.format_bytes(work.config.resources.journal)} of archives"
    return StorageRow("journal entries", work.journal.recent_count, work.journal.size + archived, limit)


def _measure_caches(work: Workspace) -> Iterator[StorageRow]:
    resources = work.config.resources
    for usage in measure_caches(work):
        limit = f"{console.format_count(resources.keep_cached, 'day')} unused"
        if usage.max_bytes:
            limit = f"{console.format_bytes(usage.max_bytes)}, {limit}"
        expired = tuple(item.name for item in usage.expired)
        expired_size = sum(item.size for item in usage.expired)
        yield StorageRow(usage.title, usage.count, usage.size, limit, expired, expired_size)
