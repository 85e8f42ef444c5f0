"""Bundles from disk: the description of one version, the list of a project's versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.manifest import BundleIndex, Manifest, decode
from lyra_tasks.errors import BundleError, UsageError

_MAX_SMALL = 16 * 1024**2


def read_manifest(bundle: Path) -> Manifest:
    """The description of the bundle in this folder; BundleError if it is no bundle, or its description is damaged."""
    path = bundle / layout.MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BundleError(
            f"{bundle}: not a promotion bundle, {layout.MANIFEST} is missing",
            hint="name the folder of one version, the one that holds manifest.json",
        )
    return decode(small_file(path), Manifest, str(path))


def read_index(bundles: Path, project: str) -> BundleIndex:
    """The list in the folder of a project's bundles, newest first; empty where nothing was promoted yet."""
    path = bundles / layout.INDEX
    if not path.exists():
        return BundleIndex(project=project)
    return decode(small_file(path), BundleIndex, str(path))


def small_file(path: Path) -> bytes:
    """The bytes of a file that describes others; BundleError if it is a link, or larger than any of them can be."""
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path}: not a regular file")
    if path.stat().st_size > _MAX_SMALL:
        raise BundleError(f"{path}: is larger than {_MAX_SMALL // 1024**2} MiB, which is not believable")
    return path.read_bytes()


@contextmanager
def reading(bundle: Path) -> Iterator[None]:
    """BundleError where the bundle goes while it is read: a promotion drops old snapshots, whoever reads them."""
    try:
        yield
    except FileNotFoundError as error:
        if not Path(error.filename or "").is_relative_to(bundle):
            raise  # what is written meanwhile, on a medium that was taken out
        raise BundleError(
            f"{bundle}: went away while it was read", hint="`bundle.list` shows what there is; run the same word again"
        ) from error


def bundle_of(bundles: Path, version: str) -> Path:
    """The folder of a version of a project; UsageError that lists the versions there are if it is none of them."""
    known = [each.version for each in read_index(bundles, bundles.name).versions]
    if version in known:
        return bundles / version
    raise UsageError(
        f"there is no bundle of version {version!r}", hint=f"there are: {', '.join(known) or 'none; run `promote`'}"
    )
