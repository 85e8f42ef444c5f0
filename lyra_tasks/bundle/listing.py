"""List the bundles of a project: what the index knows, and what is on disk."""

from __future__ import annotations

from pathlib import Path

from lyra_tasks import console
from lyra_tasks.bundle.format.index import BundleEntry, BundleStore, measure_directory
from lyra_tasks.bundle.format.layout import SIGNATURE_FILE
from lyra_tasks.bundle.format.manifest import OtherFormatError, open_bundle
from lyra_tasks.errors import BundleError
from lyra_tasks.files import display_path
from lyra_tasks.results.bundle import BundleList, BundleState, ListedBundle


def list_bundles(store: BundleStore) -> BundleList:
    """Return the bundles in the index, newest first; those whose directory is gone or damaged are marked as such."""
    return BundleList(store.index.project, tuple(_describe_bundle(store, entry) for entry in store.index.versions))


def _describe_bundle(store: BundleStore, entry: BundleEntry) -> ListedBundle:
    directory = store.directory / entry.version
    state: BundleState = "present"
    tests = None
    size, is_signed = 0, False
    try:
        size, is_signed = measure_directory(directory), (directory / SIGNATURE_FILE).is_file()
        tests = open_bundle(directory).manifest.tests
    except OtherFormatError:
        state = "other-format"
    except (BundleError, FileNotFoundError):  # a removal may come in between
        state = "damaged" if directory.is_dir() else "missing"
    return ListedBundle(
        version=entry.version,
        created=entry.created,
        commit=entry.commit,
        set_digest=entry.set_digest,
        is_snapshot=entry.is_snapshot,
        directory=str(directory),
        state=state,
        size=size,
        is_signed=is_signed,
        passed=tests.passed if tests else None,
        failed=tests.failed if tests else None,
    )


def show_bundles(bundles: BundleList) -> BundleList:
    """Show the bundles of a project, newest first."""
    if console.print_result(bundles):
        return bundles
    if not bundles.versions:
        console.print("no bundles yet; run `build test promote`")
        return bundles
    header = ("version", "date", "commit", "kind", "size", "signed", "checks", "directory")
    console.print_table(header, [_format_row(bundle) for bundle in bundles.versions])
    for bundle in bundles.versions:
        directory = display_path(Path(bundle.directory))
        if bundle.state == "other-format":
            console.info(
                f"{directory} was written by another version of lyra-tasks: its own receive.sh verifies and loads it"
            )
        elif bundle.state != "present":
            console.warn(f"{directory} is {bundle.state}; restore it, or run `bundle.remove {bundle.version}`")
    return bundles


def _format_row(bundle: ListedBundle) -> tuple[str, ...]:
    return (
        bundle.version,
        bundle.created,
        bundle.commit[:7],
        "snapshot" if bundle.is_snapshot else "release",
        console.format_bytes(bundle.size) if bundle.state != "missing" else "",
        ("yes" if bundle.is_signed else "no") if bundle.state != "missing" else "",
        bundle.checks_summary,
        str(display_path(Path(bundle.directory)))
        + ("" if bundle.state == "present" else f" ({bundle.state.replace('-', ' ')})"),
    )
