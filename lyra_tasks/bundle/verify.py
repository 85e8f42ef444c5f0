"""Verify every byte of a bundle, a pack, a part of one, or an archive."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from lyra_tasks.bundle.compared import COMPARED_DOCUMENTS
from lyra_tasks.bundle.contradictions import find_bundle_contradictions, find_contradictions
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import hash_files, list_bundle_files, parse_checksums, read_checksums
from lyra_tasks.bundle.format.manifest import (
    BundledArchive,
    Manifest,
    OtherFormatError,
    decode_document,
    open_bundle,
    read_small_file,
    report_removed_bundle,
)
from lyra_tasks.bundle.format.pack import (
    PACK_ONLY_FILES,
    ArchivedDocuments,
    PackedArchive,
    PackedFile,
    PackManifest,
    is_operator_file,
    read_document_archive,
    read_pack_manifest,
)
from lyra_tasks.bundle.format.signature import Trust, verify_signature
from lyra_tasks.digests import file_sha256
from lyra_tasks.errors import BundleError, UsageError
from lyra_tasks.files import quote_path
from lyra_tasks.images.archive.verify import ExpectedImage, verify_archive
from lyra_tasks.images.oci import ImageIdentity

_CONTRADICTION_HINT = "Do not use it: its documents contradict each other. Get it again from where it was promoted"


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


def verify_path(path: Path, trust: Trust | None = None) -> VerifyReport:
    """Verify every byte of what lies at `path`, and the signature of its checksums if `trust` is given.

    Raises BundleError if anything is wrong.
    """
    directory = path
    verify_files: Callable[[Path], VerifyReport] = verify_pack if _is_pack(path) else verify_bundle
    if path.exists() and not path.is_dir():
        if pack := next((parent for parent in path.absolute().parents[:2] if _is_pack(parent)), None):
            directory, verify_files = pack, partial(_verify_part, path)
        elif path.suffix == ".tar":
            if trust:
                raise UsageError(f"{path}: a single archive is not signed", hint="Name the directory of its bundle")
            return _verify_archive(path)
    if trust:
        _require_checksums(directory)
        verify_signature(directory, trust)
    is_signed = (directory / layout.SIGNATURE_FILE).is_file()
    return replace(verify_files(directory), signer=trust.signer if trust else "", has_signature=is_signed)


def verify_bundle(directory: Path) -> VerifyReport:
    """Verify the bundle in `directory` by its checksums; raise BundleError with a line for each file that differs."""
    _require_checksums(directory)
    with report_removed_bundle(directory):
        manifest, problems = _try_read_manifest(directory)
        archives = manifest.archives_by_file if manifest else {}
        sums = read_checksums(directory)
        files, differences = _compare_with_checksums(directory, sums, hashed_later=archives)
        problems |= dict.fromkeys(archives.keys() - files.keys(), "missing")
        problems |= differences | dict(_find_bad_archives(manifest, files, sums))
    _raise_if_invalid(directory, problems)
    assert manifest  # noqa: S101  # an unreadable manifest is a problem
    with report_removed_bundle(directory):
        contradictions = find_bundle_contradictions(directory, manifest, sums)
    _raise_if_invalid(directory, contradictions, hint=_CONTRADICTION_HINT)
    return _build_report("bundle", directory, manifest, {name: files[name] for name in sums})


def verify_pack(directory: Path) -> VerifyReport:
    """Verify the pack in `directory` by its checksums, and that it and the omitted layers together make the bundle.

    Raises BundleError that names each missing or changed part, which can be copied again alone.
    """
    sums = read_checksums(directory)
    files, problems = _compare_with_checksums(directory, sums)
    _raise_if_invalid(directory, problems, hint="Copy these files again, and only these")
    pack = read_pack_manifest(directory)
    operator_names = {name for name in COMPARED_DOCUMENTS if is_operator_file(name)}
    required_names = (layout.CHECKSUMS_FILE, layout.MANIFEST_FILE, *(set(COMPARED_DOCUMENTS) - operator_names))
    where = str(directory / layout.DOCUMENTS_FILE)
    documents = read_document_archive(_part_paths(directory, pack.documents), pack.documents, where, required_names)
    manifest = decode_document(documents.contents[layout.MANIFEST_FILE], Manifest, f"{where}: {layout.MANIFEST_FILE}")
    bundle_sums = parse_checksums(documents.contents[layout.CHECKSUMS_FILE], f"{where}: {layout.CHECKSUMS_FILE}")
    _raise_if_invalid(directory, dict(_find_contradictions(directory, pack, manifest, sums)))
    _raise_if_invalid(directory, dict(_find_content_differences(documents, manifest, sums, bundle_sums)))
    operator_files = {name: read_small_file(directory / name) for name in operator_names & files.keys()}
    contradictions = find_contradictions(manifest, bundle_sums, documents.contents | operator_files)
    _raise_if_invalid(directory, contradictions, hint=_CONTRADICTION_HINT)
    report = _build_report("pack", directory, manifest, {name: files[name] for name in sums})
    return replace(report, since=pack.since or "")


def _build_report(
    kind: Literal["bundle", "pack"], directory: Path, manifest: Manifest, files: Mapping[str, Path]
) -> VerifyReport:
    return VerifyReport(
        kind=kind,
        path=directory,
        file_sizes={name: path.stat().st_size for name, path in sorted(files.items())},
        images={build_name: image.identity for build_name, image in manifest.images_by_build.items()},
        project=manifest.project,
        version=manifest.version,
    )


def _verify_part(path: Path, directory: Path) -> VerifyReport:
    """Verify one file of a pack, which may have been copied again alone, and `pack.json`, which the report cites."""
    name = path.absolute().relative_to(directory).as_posix()
    sums = read_checksums(directory)
    if name not in sums:
        raise BundleError(
            f"{path}: not in {layout.CHECKSUMS_FILE} of the pack", hint=f"Run `verify {quote_path(directory)}`"
        )
    for file_name in dict.fromkeys((name, layout.PACK_FILE)):
        file = directory / file_name
        if file.is_symlink() or not file.is_file() or file_sha256(file) != sums.get(file_name):
            _raise_if_invalid(directory, {file_name: "changed"}, hint="Copy this file again")
    pack = read_pack_manifest(directory)
    return VerifyReport(
        kind="part",
        path=path,
        file_sizes={name: path.stat().st_size},
        images={},
        project=pack.project,
        version=pack.version,
        since=pack.since or "",
    )


def _verify_archive(path: Path) -> VerifyReport:
    """Verify that an archive is intact; unpacks every layer. Only its bundle can say whether it is the right one."""
    contents = verify_archive(path)
    images = {
        reference: ImageIdentity(image.config_digest, image.manifest_digest, image.platform, ())
        for image in contents.images
        for reference in image.references
    }
    return VerifyReport("archive", path, {path.name: contents.size}, images)


def _is_pack(path: Path) -> bool:
    return (path / layout.PACK_FILE).is_file() and (path / layout.CHECKSUMS_FILE).is_file()


def _require_checksums(directory: Path) -> None:
    path = directory / layout.CHECKSUMS_FILE
    if path.is_symlink() or not path.is_file():
        raise BundleError(
            f"{directory}: not a promotion bundle, {layout.CHECKSUMS_FILE} is missing",
            hint="Name the directory of one version, the one that contains SHA256SUMS and manifest.json",
        )


def _raise_if_invalid(
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


def _compare_with_checksums(
    directory: Path, sums: Mapping[str, str], hashed_later: Collection[str] = ()
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return all files by name, and the problems of those that are changed, missing, extra or irregular."""
    files, irregular = list_bundle_files(directory)
    hashed_names = sorted(sums.keys() & files.keys() - set(hashed_later))
    digests = zip(hashed_names, hash_files(files[name] for name in hashed_names), strict=True)
    problems = {name: "changed" for name, digest in digests if digest != sums[name]}
    problems |= dict.fromkeys(sums.keys() - files.keys(), "missing")
    problems |= dict.fromkeys(
        files.keys() - sums.keys() - layout.NOT_IN_CHECKSUMS, f"extra: not in {layout.CHECKSUMS_FILE}"
    )
    return files, problems | dict.fromkeys(irregular, "neither a file nor a directory")


def _find_archive_problem(
    path: Path, manifest: Manifest, archive: BundledArchive, digest: str = "", packed: PackedArchive | None = None
) -> str:
    """Return what is wrong with an archive, which is read once: structure, images and its own digest."""
    omitted_layers = packed.omitted_layers if packed else ()
    parts = _part_paths(path.parents[1], packed) if packed else ()
    expected = [ExpectedImage(image.identity, image.references) for image in manifest.images_for(archive.platform)]
    try:
        contents = verify_archive(path, expected=expected, unpack=False, omitted_layers=omitted_layers, parts=parts)
    except BundleError as error:
        return "; ".join((error.message.removeprefix(f"{path}: "), *error.details))
    if digest and contents.sha256 != digest:
        return "changed"
    if packed and (contents.sha256, contents.size) != (packed.sha256, packed.size):
        return f"digest or size differs from {layout.PACK_FILE}"
    if not omitted_layers and (contents.sha256, contents.size) != (archive.sha256, archive.size):
        return f"digest or size differs from {layout.MANIFEST_FILE}"
    return ""


def _find_bad_archives(
    manifest: Manifest | None, files: Mapping[str, Path], sums: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the archives of a bundle, unless its manifest is unreadable."""
    if manifest is None:
        return
    for name in sorted(sums.keys() & files.keys()):
        if archive := manifest.archives_by_file.get(name):
            if problem := _find_archive_problem(files[name], manifest, archive, sums[name]):
                yield name, problem
        elif name.startswith(f"{layout.IMAGES_DIRECTORY}/"):
            yield name, f"not an archive of {layout.MANIFEST_FILE}"


def _try_read_manifest(directory: Path) -> tuple[Manifest | None, dict[str, str]]:
    try:
        return open_bundle(directory).manifest, {}
    except OtherFormatError:
        raise
    except BundleError as error:
        return None, {layout.MANIFEST_FILE: error.message.removeprefix(f"{directory / layout.MANIFEST_FILE}: ")}


def _find_contradictions(
    directory: Path, pack: PackManifest, manifest: Manifest, sums: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield where `pack.json` and `manifest.json` disagree although all checksums match."""
    if (pack.project, pack.version, pack.set_digest) != (manifest.project, manifest.version, manifest.set_digest):
        yield layout.PACK_FILE, "describes another bundle"
    packed_archives = sorted((archive.file, archive.platform) for archive in pack.archives)
    if packed_archives != sorted((archive.file, archive.platform) for archive in manifest.archives):
        yield layout.PACK_FILE, f"archives differ from {layout.MANIFEST_FILE}"
        return
    for packed in pack.archives:
        archive = manifest.archives_by_file[packed.file]
        layer_digests = {layer.digest for image in manifest.images_for(archive.platform) for layer in image.layers}
        if packed.omitted_layers and (pack.since is None or not layer_digests.issuperset(packed.omitted_layers)):
            yield archive.file, "omits layers that are not in an older version"
        elif problem := _find_archive_problem(directory / archive.file, manifest, archive, packed=packed):
            yield archive.file, problem
    expected_files = {name for file in (*pack.archives, pack.documents) for name in file.part_names}
    for name in sorted(sums.keys() - expected_files - PACK_ONLY_FILES):
        if not is_operator_file(name):
            yield name, f"extra: not in {layout.PACK_FILE}"


def _find_content_differences(
    documents: ArchivedDocuments, manifest: Manifest, sums: Mapping[str, str], bundle_sums: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield where pack and omitted layers together differ from the checksums of the bundle."""
    actual_sums = {name: digest for name, digest in documents.digests.items() if name not in layout.NOT_IN_CHECKSUMS}
    actual_sums |= {name: digest for name, digest in sums.items() if is_operator_file(name)}
    if layout.SUMMARY_FILE in sums:  # Packs of earlier versions have the page of the bundle, not one of their own.
        actual_sums.setdefault(layout.SUMMARY_FILE, sums[layout.SUMMARY_FILE])
    actual_sums |= {archive.file: archive.sha256 for archive in manifest.archives}
    actual_sums[layout.RECEIVE_SCRIPT] = bundle_sums.get(layout.RECEIVE_SCRIPT, "")  # A pack has its own script.
    for name in sorted(actual_sums.keys() | bundle_sums.keys()):
        if actual_sums.get(name) != bundle_sums.get(name):
            yield name, "differs from the bundle"


def _part_paths(directory: Path, file: PackedFile) -> list[Path]:
    parts = [directory / name for name in file.part_names]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise BundleError(f"{directory / file.file}: {missing[0]} is missing")
    return parts
