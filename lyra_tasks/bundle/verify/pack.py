"""Verify a pack: every byte of every part, and that pack and omitted layers together make the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import hash_files, list_bundle_files, parse_checksums, read_checksums
from lyra_tasks.bundle.format.manifest import BundledImage, Manifest, decode_document
from lyra_tasks.bundle.format.pack import (
    ArchivedDocuments,
    PackedArchive,
    PackedFile,
    PackManifest,
    is_operator_file,
    read_document_archive,
    read_pack_manifest,
)
from lyra_tasks.bundle.format.signature import Trust, verify_signature
from lyra_tasks.bundle.verify.bundle import (
    VerifiedFile,
    VerifyReport,
    find_list_problems,
    full_references,
    raise_if_invalid,
)
from lyra_tasks.errors import BundleError
from lyra_tasks.images.archive.verify import verify_archive


def verify_pack(directory: Path, trust: Trust | None = None) -> VerifyReport:
    """Verify the pack in `directory` by its checksums, and the checksums by their signature if `trust` is given.

    Raises:
        BundleError: something is wrong; a part that is missing or changed is named, and can be copied again alone.
    """
    if trust:
        verify_signature(directory, trust)
    sums = read_checksums(directory)
    files, irregular = list_bundle_files(directory)
    names = sorted(sums.keys() & files.keys())
    digests = dict(zip(names, hash_files(files[name] for name in names), strict=True))
    problems = {name: "changed" for name in names if digests[name] != sums[name]}
    problems |= find_list_problems(sums, files, irregular)
    raise_if_invalid(directory, problems, hint="Copy these files again, and only these")
    pack = read_pack_manifest(directory)
    documents = _read_documents(directory, pack)
    where = f"{directory / layout.DOCUMENTS_FILE}: {layout.MANIFEST_FILE}"
    manifest = decode_document(documents.contents[layout.MANIFEST_FILE], Manifest, where)
    raise_if_invalid(directory, dict(_find_contradictions(directory, pack, manifest, digests)))
    raise_if_invalid(directory, dict(_find_content_differences(directory, documents, manifest, digests)))
    return VerifyReport(
        path=directory,
        project=pack.project,
        version=pack.version,
        files=tuple(VerifiedFile(name, files[name].stat().st_size) for name in names),
        images=tuple((build_name, image.identity) for build_name, image in manifest.images_by_build.items()),
        signer=trust.signer if trust else "",
        has_signature=(directory / layout.SIGNATURE_FILE).is_file(),
        kind="pack",
        since=pack.since or "",
    )


def _find_contradictions(
    directory: Path, pack: PackManifest, manifest: Manifest, digests: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield where `pack.json` and `manifest.json` disagree although all checksums match."""
    if (pack.project, pack.version, pack.set_digest) != (manifest.project, manifest.version, manifest.set_digest):
        yield layout.PACK_FILE, "describes another bundle"
    archives_by_file = {archive.file: archive for archive in pack.images}
    image_names_by_file = {archive.file: archive.image for archive in pack.images}
    expected_names = {image.file: image.name for image in manifest.images}
    if image_names_by_file != expected_names or len(archives_by_file) != len(pack.images):
        yield layout.PACK_FILE, f"images differ from {layout.MANIFEST_FILE}"
        return
    for image in manifest.images:
        if problem := _archive_problem(directory, archives_by_file[image.file], image, pack):
            yield image.file, problem
    expected_files = {name for file in (*pack.images, pack.documents) for name in file.part_names}
    for name in sorted(digests.keys() - expected_files - {layout.PACK_FILE, layout.RECEIVE_SCRIPT}):
        if not is_operator_file(name):
            yield name, f"extra: not in {layout.PACK_FILE}"


def _archive_problem(directory: Path, archive: PackedArchive, image: BundledImage, pack: PackManifest) -> str:
    layer_digests = {layer.digest for layer in image.layers}
    if archive.omitted_layers and (pack.since is None or not layer_digests.issuperset(archive.omitted_layers)):
        return "omits layers that are not in an older version"
    try:
        contents = verify_archive(
            directory / archive.file,
            expected=image.identity,
            unpack=False,
            omitted_layers=archive.omitted_layers,
            parts=_part_paths(directory, archive),
        )
    except BundleError as error:
        return "; ".join((error.message, *error.details))
    if (contents.sha256, contents.size) != (archive.sha256, archive.size):
        return f"digest or size differs from {layout.PACK_FILE}"
    if not archive.omitted_layers and (contents.sha256, contents.size) != (image.sha256, image.size):
        return f"digest or size differs from {layout.MANIFEST_FILE}"
    if contents.references != full_references(image):
        return f"has the references {', '.join(contents.references)}"
    return ""


def _read_documents(directory: Path, pack: PackManifest) -> ArchivedDocuments:
    parts = _part_paths(directory, pack.documents)
    required_names = (layout.CHECKSUMS_FILE, layout.MANIFEST_FILE)
    return read_document_archive(parts, pack.documents, str(directory / layout.DOCUMENTS_FILE), required_names)


def _find_content_differences(
    directory: Path, documents: ArchivedDocuments, manifest: Manifest, digests: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield where pack and omitted layers together differ from the checksums of the bundle."""
    where = f"{directory / layout.DOCUMENTS_FILE}: {layout.CHECKSUMS_FILE}"
    sums = parse_checksums(documents.contents[layout.CHECKSUMS_FILE], where)
    actual_sums = {name: digest for name, digest in documents.digests.items() if name not in layout.NOT_IN_CHECKSUMS}
    actual_sums |= {name: digest for name, digest in digests.items() if is_operator_file(name)}
    actual_sums |= {image.file: image.sha256 for image in manifest.images}
    actual_sums[layout.RECEIVE_SCRIPT] = sums.get(layout.RECEIVE_SCRIPT, "")  # A pack has its own script.
    for name in sorted(actual_sums.keys() | sums.keys()):
        if actual_sums.get(name) != sums.get(name):
            yield name, "differs from the bundle"


def _part_paths(directory: Path, file: PackedFile) -> list[Path]:
    parts = [directory / name for name in file.part_names]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise BundleError(f"{directory / file.file}: {missing[0]} is missing")
    return parts
