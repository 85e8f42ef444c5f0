"""Verifying a bundle: every byte rehashed, nothing missing, changed or added, the images the ones described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lyra_tasks.bundle.format.checksums import hash_files, list_bundle_files, parse_checksums
from lyra_tasks.bundle.format.index import read_manifest, read_small_file, report_removed_bundle
from lyra_tasks.bundle.format.layout import (
    CHECKSUMS_FILE,
    IMAGES_DIRECTORY,
    MANIFEST_FILE,
    NOT_IN_CHECKSUMS,
    SIGNATURE_FILE,
)
from lyra_tasks.bundle.format.manifest import BundledImage, Manifest
from lyra_tasks.bundle.format.signature import Trust, verify_signature
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.verify import verify_archive
from lyra_tasks.images.oci import ImageIdentity
from lyra_tasks.references import normalize_reference


@dataclass(frozen=True)
class FileResult:
    """One file of the bundle, its size in bytes (0 if it is missing), and what is wrong with it, or nothing."""

    name: str
    size: int
    problem: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """What was verified: the bundle, each of its files, the images that it carries by name, who signed it.

    `signer` is empty where the signature was not asked for; `has_signature` says whether there is one. `since` is the
    version whose layers a pack leaves out, or empty.
    """

    path: Path
    project: str
    version: str
    files: tuple[FileResult, ...]
    images: tuple[tuple[str, ImageIdentity], ...]
    signer: str
    has_signature: bool
    kind: Literal["bundle", "pack", "part", "archive"] = "bundle"
    since: str = ""


def verify_bundle(path: Path, trust: Trust | None = None) -> VerifyReport:
    """Verify the bundle in this folder by its own checksums, and those by their signature where `trust` is given.

    BundleError if anything is wrong; its `details` name every file that is, with what is wrong with it.
    """
    if trust:
        _require_checksums_file(path)
        verify_signature(path, trust)
    with report_removed_bundle(path):
        results, manifest = check_files(path)
    raise_if_invalid(path, {result.name: result.problem for result in results if result.problem})
    assert manifest  # noqa: S101  # one that cannot be read is a problem
    images = tuple((build, image.identity) for build, image in manifest.images_by_build.items())
    has_signature = (path / SIGNATURE_FILE).is_file()
    signer = trust.signer if trust else ""
    return VerifyReport(path, manifest.project, manifest.version, results, images, signer, has_signature)


def raise_if_invalid(
    path: Path,
    problems: Mapping[str, str],
    hint: str = "copy the bundle again from where it was made, and verify it there first",
) -> None:
    """BundleError that names every file with its problem, if there are any; a name is one line, whatever is in it."""
    if not problems:
        return
    count = "one file is" if len(problems) == 1 else f"{len(problems)} files are"
    raise BundleError(
        f"{path}: refused, {count} not as promoted",
        hint=hint,
        details=tuple(
            f"{name if name.isprintable() else repr(name)}: {problem}" for name, problem in sorted(problems.items())
        ),
    )


def check_files(path: Path) -> tuple[tuple[FileResult, ...], Manifest | None]:
    """Every file with what is wrong with it, and the description if it can be read; raises only where there is none."""
    sums_file = _require_checksums_file(path)
    sums = parse_checksums(read_small_file(sums_file), str(sums_file))
    files, irregular = list_bundle_files(path)
    manifest, problems = _try_read_manifest(path)
    images = {image.file: image for image in manifest.images} if manifest else {}
    problems |= _find_changed_files({name: files[name] for name in sums.keys() & files.keys() - images.keys()}, sums)
    problems |= _find_bad_archives(images, files, sums)
    problems |= dict.fromkeys(sums.keys() - files.keys(), "missing")
    problems |= dict.fromkeys(files.keys() - sums.keys() - NOT_IN_CHECKSUMS, "extra: the checksums do not name it")
    problems |= dict.fromkeys(irregular, "neither a file nor a folder")
    names = sorted(sums.keys() | problems.keys())
    sizes = {name: files[name].stat().st_size for name in names if name in files}
    return tuple(FileResult(name, sizes.get(name, 0), problems.get(name, "")) for name in names), manifest


def _require_checksums_file(path: Path) -> Path:
    """The file of checksums; BundleError where there is none."""
    sums_file = path / CHECKSUMS_FILE
    if sums_file.is_symlink() or not sums_file.is_file():
        raise BundleError(
            f"{path}: not a promotion bundle, {CHECKSUMS_FILE} is missing",
            hint="name the folder of one version, the one that holds SHA256SUMS and manifest.json",
        )
    return sums_file


def _find_changed_files(files: Mapping[str, Path], sums: Mapping[str, str]) -> dict[str, str]:
    names = sorted(files)
    digests = zip(names, hash_files(files[name] for name in names), strict=True)
    return {name: "changed" for name, digest in digests if digest != sums[name]}


def _find_bad_archives(
    images: Mapping[str, BundledImage], files: Mapping[str, Path], sums: Mapping[str, str]
) -> dict[str, str]:
    problems = {name: "missing" for name in images if name not in files}
    if images:
        archives = {name for name in sums if name.startswith(f"{IMAGES_DIRECTORY}/")}
        problems |= dict.fromkeys(archives - images.keys(), "no image of the description")
    for name, image in images.items():
        if name in files and name in sums and (problem := _archive_problem(files[name], image, sums[name])):
            problems[name] = problem
    return problems


def _try_read_manifest(path: Path) -> tuple[Manifest | None, dict[str, str]]:
    try:
        return read_manifest(path), {}
    except BundleError as error:
        return None, {MANIFEST_FILE: _strip_path(path / MANIFEST_FILE, error.message)}


def _strip_path(path: Path, message: str) -> str:
    """The message without the path of the file that it is told of."""
    return message.removeprefix(f"{path}: ")


def _archive_problem(path: Path, image: BundledImage, digest: str) -> str:
    """What is wrong with an archive, read once: its structure, the image it should hold, its own digest."""
    try:
        contents = verify_archive(path, expected=image.identity, unpack=False)
    except BundleError as error:
        return "; ".join((_strip_path(path, error.message), *error.details))
    if contents.sha256 != digest:
        return "changed"
    if (contents.sha256, contents.size) != (image.sha256, image.size):
        return "the description gives it another digest or size"
    if contents.references != full_references(image):
        return f"carries the names {', '.join(contents.references)}"
    return ""


def full_references(image: BundledImage) -> tuple[str, ...]:
    """The names that an image's archive must carry, in full."""
    return tuple(sorted({normalize_reference(reference) for reference in image.references}))
