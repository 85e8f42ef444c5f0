"""Verifying a pack: every byte of every part, and that with what is left out it is the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lyra_tasks.bundle.format.checksums import hash_files, list_bundle_files, parse_checksums
from lyra_tasks.bundle.format.index import read_small_file
from lyra_tasks.bundle.format.layout import (
    CHECKSUMS_FILE,
    DOCUMENTS_FILE,
    MANIFEST_FILE,
    NOT_IN_CHECKSUMS,
    PACK_FILE,
    RECEIVE_SCRIPT,
    SIGNATURE_FILE,
)
from lyra_tasks.bundle.format.manifest import BundledImage, Manifest, decode_document
from lyra_tasks.bundle.format.pack import (
    ArchivedDocuments,
    PackedArchive,
    PackedFile,
    PackManifest,
    read_document_archive,
)
from lyra_tasks.bundle.format.signature import Trust, verify_signature
from lyra_tasks.bundle.pack.plan import is_operator_file
from lyra_tasks.bundle.verify.bundle import FileResult, VerifyReport, full_references, raise_if_invalid
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.verify import verify_archive


def verify_pack(path: Path, trust: Trust | None = None) -> VerifyReport:
    """Verify the pack in this folder by its checksums, and those by their signature where `trust` is given.

    BundleError if anything is wrong; a part that is missing or changed is named, since it alone must be brought again.
    """
    if trust:
        verify_signature(path, trust)
    sums = parse_checksums(read_small_file(path / CHECKSUMS_FILE), str(path / CHECKSUMS_FILE))
    files, irregular = list_bundle_files(path)
    present = sorted(sums.keys() & files.keys())
    digests = dict(zip(present, hash_files(files[name] for name in present), strict=True))
    problems = {name: "changed" for name in present if digests[name] != sums[name]}
    problems |= dict.fromkeys(sums.keys() - files.keys(), "missing")
    problems |= dict.fromkeys(files.keys() - sums.keys() - NOT_IN_CHECKSUMS, "extra: the checksums do not name it")
    problems |= dict.fromkeys(irregular, "neither a file nor a folder")
    if problems:
        raise_if_invalid(path, problems, hint="bring these files again, and only these")
    pack = read_pack_manifest(path)
    documents = _read_documents(path, pack)
    manifest = decode_document(documents.contents[MANIFEST_FILE], Manifest, f"{path / DOCUMENTS_FILE}: {MANIFEST_FILE}")
    raise_if_invalid(path, dict(_find_contradictions(path, pack, manifest, digests)))
    raise_if_invalid(path, dict(_find_content_differences(path, documents, manifest, digests)))
    return VerifyReport(
        path=path,
        project=pack.project,
        version=pack.version,
        files=tuple(FileResult(name, files[name].stat().st_size) for name in present),
        images=tuple((build, image.identity) for build, image in manifest.images_by_build.items()),
        signer=trust.signer if trust else "",
        has_signature=(path / SIGNATURE_FILE).is_file(),
        kind="pack",
        since=pack.since or "",
    )


def read_pack_manifest(path: Path) -> PackManifest:
    """The description of the pack in this folder."""
    return decode_document(read_small_file(path / PACK_FILE), PackManifest, str(path / PACK_FILE))


def _find_contradictions(
    path: Path, pack: PackManifest, manifest: Manifest, digests: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """What is wrong although every file has its checksum."""
    if (pack.project, pack.version, pack.set_digest) != (manifest.project, manifest.version, manifest.set_digest):
        yield PACK_FILE, "is about another bundle"
    archives_by_file = {archive.file: archive for archive in pack.images}
    image_names_by_file = {archive.file: archive.image for archive in pack.images}
    if image_names_by_file != {image.file: image.name for image in manifest.images} or len(archives_by_file) != len(
        pack.images
    ):
        yield PACK_FILE, "has other images than the description"
        return
    for image in manifest.images:
        if problem := _archive_problem(path, archives_by_file[image.file], image, pack):
            yield image.file, problem
    expected = {name for file in (*pack.images, pack.documents) for name in file.part_names}
    for name in sorted(digests.keys() - expected - {PACK_FILE, RECEIVE_SCRIPT}):
        if not is_operator_file(name):
            yield name, "extra: the pack does not name it"


def _archive_problem(path: Path, archive: PackedArchive, image: BundledImage, pack: PackManifest) -> str:
    layer_digests = {layer.digest for layer in image.layers}
    if archive.omitted_layers and (pack.since is None or not layer_digests.issuperset(archive.omitted_layers)):
        return "layers are left out that no older version has"
    try:
        parts = _part_paths(path, archive)
        contents = verify_archive(
            path / archive.file, expected=image.identity, unpack=False, excluding=archive.omitted_layers, parts=parts
        )
    except BundleError as error:
        return "; ".join((error.message, *error.details))
    if (contents.sha256, contents.size) != (archive.sha256, archive.size):
        return "the pack gives it another digest or size"
    if not archive.omitted_layers and (contents.sha256, contents.size) != (image.sha256, image.size):
        return "the description gives it another digest or size"
    return (
        "" if contents.references == full_references(image) else f"carries the names {', '.join(contents.references)}"
    )


def _read_documents(path: Path, pack: PackManifest) -> ArchivedDocuments:
    where = str(path / DOCUMENTS_FILE)
    return read_document_archive(
        _part_paths(path, pack.documents), pack.documents, where, (CHECKSUMS_FILE, MANIFEST_FILE)
    )


def _find_content_differences(
    path: Path, documents: ArchivedDocuments, manifest: Manifest, digests: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Where pack and left-out layers together are not what the bundle's own checksums say."""
    sums = parse_checksums(documents.contents[CHECKSUMS_FILE], f"{path / DOCUMENTS_FILE}: {CHECKSUMS_FILE}")
    actual_sums = {name: digest for name, digest in documents.digests.items() if name not in NOT_IN_CHECKSUMS}
    actual_sums |= {name: digest for name, digest in digests.items() if is_operator_file(name)}
    actual_sums |= {image.file: image.sha256 for image in manifest.images}
    actual_sums[RECEIVE_SCRIPT] = sums.get(RECEIVE_SCRIPT, "")  # a pack has a script of its own
    for name in sorted(actual_sums.keys() | sums.keys()):
        if actual_sums.get(name) != sums.get(name):
            yield name, "is not what the bundle had"


def _part_paths(path: Path, file: PackedFile) -> list[Path]:
    parts = [path / name for name in file.part_names]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise BundleError(f"{path / file.file}: {missing[0]} is missing")
    return parts
