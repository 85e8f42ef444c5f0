"""Verify a bundle: no file is missing, changed or extra, and each archive contains the image of the manifest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lyra_tasks.bundle.format.checksums import hash_files, list_bundle_files, read_checksums
from lyra_tasks.bundle.format.layout import (
    CHECKSUMS_FILE,
    IMAGES_DIRECTORY,
    MANIFEST_FILE,
    NOT_IN_CHECKSUMS,
    SIGNATURE_FILE,
)
from lyra_tasks.bundle.format.manifest import (
    BundledImage,
    Manifest,
    open_bundle,
    report_removed_bundle,
)
from lyra_tasks.bundle.format.signature import Trust, verify_signature
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.verify import verify_archive
from lyra_tasks.images.oci import ImageIdentity
from lyra_tasks.references import normalize_reference


@dataclass(frozen=True)
class VerifiedFile:
    """A file whose digest was verified, and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class VerifyReport:
    """The result of a verification.

    `signer` is empty if no trusted keys were given. `since` is the version whose layers a pack omits, or empty.
    """

    path: Path
    project: str
    version: str
    files: tuple[VerifiedFile, ...]
    images: tuple[tuple[str, ImageIdentity], ...]
    signer: str
    has_signature: bool
    kind: Literal["bundle", "pack", "part", "archive"] = "bundle"
    since: str = ""


def verify_bundle(directory: Path, trust: Trust | None = None) -> VerifyReport:
    """Verify the bundle in `directory` by its checksums, and the checksums by their signature if `trust` is given.

    Raises:
        BundleError: something is wrong; `details` has a line for each such file.
    """
    sums_file = directory / CHECKSUMS_FILE
    if sums_file.is_symlink() or not sums_file.is_file():
        raise BundleError(
            f"{directory}: not a promotion bundle, {CHECKSUMS_FILE} is missing",
            hint="Name the directory of one version, the one that contains SHA256SUMS and manifest.json",
        )
    if trust:
        verify_signature(directory, trust)
    with report_removed_bundle(directory):
        files, manifest, problems = _check_files(directory)
    raise_if_invalid(directory, problems)
    assert manifest  # noqa: S101  # an unreadable manifest is a problem
    images = tuple((build_name, image.identity) for build_name, image in manifest.images_by_build.items())
    has_signature = (directory / SIGNATURE_FILE).is_file()
    signer = trust.signer if trust else ""
    return VerifyReport(directory, manifest.project, manifest.version, files, images, signer, has_signature)


def raise_if_invalid(
    path: Path, problems: Mapping[str, str], hint: str = "Copy the bundle again from its origin, and verify it there"
) -> None:
    """Raise BundleError with a line for each file that has a problem, whatever characters its name contains."""
    if not problems:
        return
    count = "1 file differs" if len(problems) == 1 else f"{len(problems)} files differ"
    raise BundleError(
        f"{path}: refused, {count} from what was promoted",
        hint=hint,
        details=tuple(
            f"{name if name.isprintable() else repr(name)}: {problem}" for name, problem in sorted(problems.items())
        ),
    )


def _check_files(directory: Path) -> tuple[tuple[VerifiedFile, ...], Manifest | None, dict[str, str]]:
    """Check all files and return them, the manifest if it can be read, and the problems by file."""
    sums = read_checksums(directory)
    files, irregular = list_bundle_files(directory)
    manifest, problems = _try_read_manifest(directory)
    images = {image.file: image for image in manifest.images} if manifest else {}
    hashed_names = sorted(sums.keys() & files.keys() - images.keys())
    digests = zip(hashed_names, hash_files(files[name] for name in hashed_names), strict=True)
    problems |= {name: "changed" for name, digest in digests if digest != sums[name]}
    problems |= _find_bad_archives(images, files, sums)
    problems |= find_list_problems(sums, files, irregular)
    verified = (VerifiedFile(name, files[name].stat().st_size) for name in sorted(sums.keys() & files.keys()))
    return tuple(verified), manifest, problems


def find_list_problems(
    sums: Mapping[str, str], files: Mapping[str, Path], irregular: Collection[str]
) -> dict[str, str]:
    """Return the problems of files that are missing, not in the checksums, or irregular."""
    problems = dict.fromkeys(sums.keys() - files.keys(), "missing")
    problems |= dict.fromkeys(files.keys() - sums.keys() - NOT_IN_CHECKSUMS, f"extra: not in {CHECKSUMS_FILE}")
    return problems | dict.fromkeys(irregular, "neither a file nor a directory")


def full_references(image: BundledImage) -> tuple[str, ...]:
    """Return the normalized references that the archive of an image must contain."""
    return tuple(sorted({normalize_reference(reference) for reference in image.references}))


def _find_bad_archives(
    images: Mapping[str, BundledImage], files: Mapping[str, Path], sums: Mapping[str, str]
) -> dict[str, str]:
    problems = {name: "missing" for name in images if name not in files}
    if images:
        archives = {name for name in sums if name.startswith(f"{IMAGES_DIRECTORY}/")}
        problems |= dict.fromkeys(archives - images.keys(), f"not an image of {MANIFEST_FILE}")
    for name, image in images.items():
        if name in files and name in sums and (problem := _archive_problem(files[name], image, sums[name])):
            problems[name] = problem
    return problems


def _try_read_manifest(directory: Path) -> tuple[Manifest | None, dict[str, str]]:
    try:
        return open_bundle(directory).manifest, {}
    except BundleError as error:
        return None, {MANIFEST_FILE: error.message.removeprefix(f"{directory / MANIFEST_FILE}: ")}


def _archive_problem(path: Path, image: BundledImage, digest: str) -> str:
    """Return what is wrong with an archive, which is read once: structure, image and own digest."""
    try:
        contents = verify_archive(path, expected=image.identity, unpack=False)
    except BundleError as error:
        return "; ".join((error.message.removeprefix(f"{path}: "), *error.details))
    if contents.sha256 != digest:
        return "changed"
    if (contents.sha256, contents.size) != (image.sha256, image.size):
        return f"digest or size differs from {MANIFEST_FILE}"
    if contents.references != full_references(image):
        return f"has the references {', '.join(contents.references)}"
    return ""
