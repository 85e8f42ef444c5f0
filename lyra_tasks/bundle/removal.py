"""Plan and run the removal of a bundle, and show both."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.bundle.format.index import (
    BundleEntry,
    BundleStore,
    build_entry,
    hide_version,
    lock_bundles,
    measure_directory,
    unregister_version,
)
from lyra_tasks.bundle.format.layout import INDEX_FILE
from lyra_tasks.bundle.format.manifest import open_bundle
from lyra_tasks.errors import BundleError, LeftoverError, PreconditionError, UsageError
from lyra_tasks.files import display_path, quote_path
from lyra_tasks.results.bundle import DependentPack, RemovedBundle, RemovePreview

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace
    from lyra_tasks.records.journal import Journal


@dataclass(frozen=True)
class RemovalPlan:
    """A bundle to remove: its directory of `size` bytes, or its entry in the index, or both.

    `packs` are those that omit layers of this version.
    """

    entry: BundleEntry
    directory: Path
    size: int
    has_directory: bool
    is_listed: bool
    packs: tuple[DependentPack, ...]


def plan_removal(store: BundleStore, version: str, journal: Journal) -> RemovalPlan:
    """Plan the removal of a version; raise UsageError if neither the index nor the disk knows it."""
    entry, directory = _find_entry(store, version), store.directory / version
    is_name = bool(version) and not version.startswith(".") and Path(version).name == version
    if entry is None and not (is_name and directory.is_dir()):
        store.find(version)  # raises the error
    if directory.is_symlink():
        raise BundleError(
            f"{display_path(directory)} is a symbolic link",
            hint=f"Remove the link first: `rm {quote_path(directory)}`",
        )
    return RemovalPlan(
        entry=entry or _read_unlisted_entry(store, directory),
        directory=directory,
        size=measure_directory(directory),
        has_directory=directory.is_dir(),
        is_listed=entry is not None,
        packs=_find_dependent_packs(journal, version),
    )


def _find_entry(store: BundleStore, version: str) -> BundleEntry | None:
    return next((entry for entry in store.index.versions if entry.version == version), None)


def _read_unlisted_entry(store: BundleStore, directory: Path) -> BundleEntry:
    """Return the entry of a bundle that is not in the index; raise BundleError unless it is one of this project."""
    hint = f"Look at it, then remove it yourself: `rm -r {quote_path(directory)}`"
    try:
        manifest = open_bundle(directory).manifest
    except BundleError as error:
        raise BundleError(f"{error.message}; {INDEX_FILE} does not list it either", hint=hint) from error
    if (manifest.project, manifest.version) != (store.index.project, directory.name):
        raise BundleError(
            f"{display_path(directory)} is the bundle of {manifest.project} {manifest.version}, and {INDEX_FILE} does "
            "not list it",
            hint=hint,
        )
    return build_entry(manifest)


def _find_dependent_packs(journal: Journal, version: str) -> tuple[DependentPack, ...]:
    """Return the packs made here, the newest of each directory, for which the receiver must have this version."""
    packs: dict[str, DependentPack | None] = {}
    for _, entry in journal.find_backwards("packed"):
        directory, newer, since = (str(entry.data.get(key)) for key in ("directory", "version", "since"))
        packs.setdefault(directory, DependentPack(newer, directory) if since == version else None)
    return tuple(pack for pack in packs.values() if pack)


def confirm_removal(plan: RemovalPlan, *, yes: bool) -> None:
    """Ask before a bundle is removed; raise UsageError if the user does not agree."""
    if not yes and not console.confirm(f"Remove {_describe_bundle(plan)} permanently?"):
        raise UsageError("`bundle.remove` was not confirmed", hint="Pass --yes to skip the confirmation")


def remove_bundle(plan: RemovalPlan, work: Workspace) -> None:
    """Remove the directory of a bundle and its entry in the index, and record that in the journal.

    Raises PreconditionError if the bundle has changed since the plan was made, and LeftoverError if a part is left.
    """
    version, store = plan.entry.version, BundleStore(plan.directory.parent)
    with lock_bundles(store.directory):
        if plan != _plan_again(store, version, work.journal):  # the confirmation may have taken long
            raise PreconditionError(
                f"{version} has changed since its removal was planned", hint=f"Run `bundle.remove {version}` again"
            )
        hidden_directory = hide_version(plan.directory) if plan.has_directory else None
        unregister_version(store, version)
        work.journal.append(
            work.run, "bundle-removed", version=version, set=plan.entry.set_digest.removeprefix("sha256:"),
            directory=str(plan.directory.resolve()), had_directory=plan.has_directory, was_listed=plan.is_listed,
        )  # fmt: skip
        if hidden_directory is not None:
            _delete_directory(hidden_directory, version)


def _plan_again(store: BundleStore, version: str, journal: Journal) -> RemovalPlan | None:
    try:
        return plan_removal(store, version, journal)
    except (BundleError, UsageError):
        return None


def _delete_directory(directory: Path, version: str) -> None:
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:  # removed by a `clean` at the same time
        return
    except OSError as error:
        raise LeftoverError(
            f"{version} is not a bundle any more, but its files remain: {error.strerror}",
            hint=f"Remove them: `rm -r {quote_path(directory)}`",
        ) from error


def _describe_bundle(plan: RemovalPlan) -> str:
    kind = "snapshot" if plan.entry.is_snapshot else "release"
    size = f", {console.format_bytes(plan.size)}" if plan.has_directory else ""
    return f"the {kind} {plan.entry.version} of {plan.entry.created}{size}"


def show_removal_plan(plan: RemovalPlan) -> RemovePreview:
    """Show what would be removed."""
    preview = RemovePreview(**_summarize(plan))
    if not console.print_result(preview):
        print_removal_notes(plan)
        console.print(f"would remove {_describe_bundle(plan)}: {display_path(plan.directory)}")
    return preview


def show_removal(plan: RemovalPlan) -> RemovedBundle:
    """Show what was removed."""
    removed = RemovedBundle(**_summarize(plan))
    if not console.print_result(removed):
        console.print(f"removed {_describe_bundle(plan)}: {display_path(plan.directory)}")
    return removed


def _summarize(plan: RemovalPlan) -> dict[str, Any]:
    return {
        "version": plan.entry.version,
        "is_snapshot": plan.entry.is_snapshot,
        "set_digest": plan.entry.set_digest,
        "directory": str(plan.directory),
        "has_directory": plan.has_directory,
        "is_listed": plan.is_listed,
        "size": plan.size,
        "packs": plan.packs,
    }


def print_removal_notes(plan: RemovalPlan) -> None:
    """Tell what differs between index and disk, and which packs need the version at their receiver."""
    directory, version = display_path(plan.directory), plan.entry.version
    if not plan.has_directory:
        console.warn(f"{directory} does not exist; only the entry in {INDEX_FILE} is left to remove")
    if not plan.is_listed:
        console.warn(f"{INDEX_FILE} does not list {version}; only its directory is left to remove")
    for pack in plan.packs:
        console.info(f"The pack of {pack.version} in {pack.directory} needs {version} on the receiver")
