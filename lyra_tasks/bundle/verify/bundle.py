"""Verify a bundle: no file is missing, changed or extra, and each archive contains the image of the manifest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lyra_tasks.bundle.format.checksums import hash_files, list_bundle_files, read_checksums
from lyra_tasks.bundle.format.layout import (
    CHECKSUMS_FILE,
    IMAGES_DIRECTORY,
    MANIFEST_FILE,
    NOT_IN_CHECKSUMS,
    PACK_FILE,
    SIGNATURE_FILE,
)
from lyra_tasks.bundle.format.manifest import BundledImage, Manifest, open_bundle, report_removed_bundle
from lyra_tasks.bundle.format.pack import PackedArchive
from lyra_tasks.bundle.format.signature import Trust, verify_signature
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.verify import verify_archive
from lyra_tasks.images.oci import ImageIdentity
from lyra_tasks.references import normalize_reference


@dataclass(frozen=True)
class VerifyReport:
    """The result of a verification, with the sizes of the verified files in bytes.

    `signer` is empty if no trusted keys were given. `since` is the version whose layers a pack omits, or empty.
    """

    kind: Literal["bundle", "pack", "part", "archive"]
    path: Path
    file_sizes: Mapping[str, int]
    images: Mapping[str, ImageIdentity]
    project: str = ""
    version: str = ""
    since: str = ""
    signer: str = ""
    has_signature: bool = False


def verify_bundle(directory: Path, trust: Trust | None = None) -> VerifyReport:
    """Verify the bundle in `directory` by its checksums, and the checksums by their signature if `trust` is given.

    Raises BundleError with a line for each file that differs.
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
        manifest, problems = _try_read_manifest(directory)
        images = {image.file: image for image in manifest.images} if manifest else {}
        sums = read_checksums(directory)
        files, differences = compare_with_checksums(directory, sums, hashed_later=images)
        problems |= dict.fromkeys(images.keys() - files.keys(), "missing")
        problems |= differences | dict(_find_bad_archives(images, files, sums))
    raise_if_invalid(directory, problems)
    assert manifest  # noqa: S101  # an unreadable manifest is a problem
    return VerifyReport(
        kind="bundle",
        path=directory,
        file_sizes={name: files[name].stat().st_size for name in sorted(sums)},
        images={build_name: image.identity for build_name, image in manifest.images_by_build.items()},
        project=manifest.project,
        version=manifest.version,
        signer=trust.signer if trust else "",
        has_signature=(directory / SIGNATURE_FILE).is_file(),
    )


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


def compare_with_checksums(
    directory: Path, sums: Mapping[str, str], hashed_later: Collection[str] = ()
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return all files by name, and the problems of those that are changed, missing, extra or irregular."""
    files, irregular = list_bundle_files(directory)
    hashed_names = sorted(sums.keys() & files.keys() - set(hashed_later))
    digests = zip(hashed_names, hash_files(files[name] for name in hashed_names), strict=True)
    problems = {name: "changed" for name, digest in digests if digest != sums[name]}
    problems |= dict.fromkeys(sums.keys() - files.keys(), "missing")
    problems |= dict.fromkeys(files.keys() - sums.keys() - NOT_IN_CHECKSUMS, f"extra: not in {CHECKSUMS_FILE}")
    return files, problems | dict.fromkeys(irregular, "neither a file nor a directory")


def find_archive_problem(
    path: Path, image: BundledImage, digest: str = "", packed: PackedArchive | None = None, parts: Sequence[Path] = ()
) -> str:
    """Return what is wrong with an archive, which is read once: structure, image and its own digest."""
    omitted_layers = packed.omitted_layers if packed else ()
    try:
        contents = verify_archive(
            path, expected=image.identity, unpack=False, omitted_layers=omitted_layers, parts=parts
        )
    except BundleError as error:
        return "; ".join((error.message.removeprefix(f"{path}: "), *error.details))
    if digest and contents.sha256 != digest:
        return "changed"
    if packed and (contents.sha256, contents.size) != (packed.sha256, packed.size):
        return f"digest or size differs from {PACK_FILE}"
    if not omitted_layers and (contents.sha256, contents.size) != (image.sha256, image.size):
        return f"digest or size differs from {MANIFEST_FILE}"
    if contents.references != tuple(sorted({normalize_reference(reference) for reference in image.references})):
        return f"has the references {', '.join(contents.references)}"
    return ""


def _find_bad_archives(
    images: Mapping[str, BundledImage], files: Mapping[str, Path], sums: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for name in sorted(sums.keys() & files.keys()):
        if name in images:
            if problem := find_archive_problem(files[name], images[name], sums[name]):
                yield name, problem
        elif images and name.startswith(f"{IMAGES_DIRECTORY}/"):
            yield name, f"not an image of {MANIFEST_FILE}"


def _try_read_manifest(directory: Path) -> tuple[Manifest | None, dict[str, str]]:
    try:
        return open_bundle(directory).manifest, {}
    except BundleError as error:
        return None, {MANIFEST_FILE: error.message.removeprefix(f"{directory / MANIFEST_FILE}: ")}
