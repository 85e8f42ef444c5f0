"""Verify a pack: every byte of every part, and that pack and omitted layers together make the bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import parse_checksums, read_checksums
from lyra_tasks.bundle.format.manifest import Manifest, decode_document
from lyra_tasks.bundle.format.pack import (
    ArchivedDocuments,
    PackedFile,
    PackManifest,
    is_operator_file,
    read_document_archive,
    read_pack_manifest,
)
from lyra_tasks.bundle.format.signature import Trust, verify_signature
from lyra_tasks.bundle.verify.bundle import (
    VerifyReport,
    compare_with_checksums,
    find_archive_problem,
    raise_if_invalid,
)
from lyra_tasks.errors import BundleError


def verify_pack(directory: Path, trust: Trust | None = None) -> VerifyReport:
    """Verify the pack in `directory` by its checksums, and the checksums by their signature if `trust` is given.

    Raises BundleError that names each missing or changed part, which can be copied again alone.
    """
    if trust:
        verify_signature(directory, trust)
    sums = read_checksums(directory)
    files, problems = compare_with_checksums(directory, sums)
    raise_if_invalid(directory, problems, hint="Copy these files again, and only these")
    pack = read_pack_manifest(directory)
    required_names = (layout.CHECKSUMS_FILE, layout.MANIFEST_FILE)
    where = str(directory / layout.DOCUMENTS_FILE)
    documents = read_document_archive(_part_paths(directory, pack.documents), pack.documents, where, required_names)
    manifest = decode_document(documents.contents[layout.MANIFEST_FILE], Manifest, f"{where}: {layout.MANIFEST_FILE}")
    bundle_sums = parse_checksums(documents.contents[layout.CHECKSUMS_FILE], f"{where}: {layout.CHECKSUMS_FILE}")
    raise_if_invalid(directory, dict(_find_contradictions(directory, pack, manifest, sums)))
    raise_if_invalid(directory, dict(_find_content_differences(documents, manifest, sums, bundle_sums)))
    return VerifyReport(
        kind="pack",
        path=directory,
        file_sizes={name: files[name].stat().st_size for name in sorted(sums)},
        images={build_name: image.identity for build_name, image in manifest.images_by_build.items()},
        project=pack.project,
        version=pack.version,
        since=pack.since or "",
        signer=trust.signer if trust else "",
        has_signature=(directory / layout.SIGNATURE_FILE).is_file(),
    )


def _find_contradictions(
    directory: Path, pack: PackManifest, manifest: Manifest, sums: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield where `pack.json` and `manifest.json` disagree although all checksums match."""
    if (pack.project, pack.version, pack.set_digest) != (manifest.project, manifest.version, manifest.set_digest):
        yield layout.PACK_FILE, "describes another bundle"
    packed_images = sorted((archive.file, archive.image) for archive in pack.images)
    if packed_images != sorted((image.file, image.name) for image in manifest.images):
        yield layout.PACK_FILE, f"images differ from {layout.MANIFEST_FILE}"
        return
    archives_by_file = {archive.file: archive for archive in pack.images}
    for image in manifest.images:
        archive = archives_by_file[image.file]
        layer_digests = {layer.digest for layer in image.layers}
        if archive.omitted_layers and (pack.since is None or not layer_digests.issuperset(archive.omitted_layers)):
            yield image.file, "omits layers that are not in an older version"
        elif problem := find_archive_problem(
            directory / image.file, image, packed=archive, parts=_part_paths(directory, archive)
        ):
            yield image.file, problem
    expected_files = {name for file in (*pack.images, pack.documents) for name in file.part_names}
    for name in sorted(sums.keys() - expected_files - {layout.PACK_FILE, layout.RECEIVE_SCRIPT}):
        if not is_operator_file(name):
            yield name, f"extra: not in {layout.PACK_FILE}"


def _find_content_differences(
    documents: ArchivedDocuments, manifest: Manifest, sums: Mapping[str, str], bundle_sums: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield where pack and omitted layers together differ from the checksums of the bundle."""
    actual_sums = {name: digest for name, digest in documents.digests.items() if name not in layout.NOT_IN_CHECKSUMS}
    actual_sums |= {name: digest for name, digest in sums.items() if is_operator_file(name)}
    actual_sums |= {image.file: image.sha256 for image in manifest.images}
    actual_sums[layout.RECEIVE_SCRIPT] = bundle_sums.get(layout.RECEIVE_SCRIPT, "")  # A pack has its own script.
    for name in sorted(actual_sums.keys() | bundle_sums.keys()):
        if actual_sums.get(name) != bundle_sums.get(name):
            yield name, "differs from the bundle"


def _part_paths(directory: Path, file: PackedFile) -> list[Path]:
    parts = [directory / name for name in file.part_names]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise BundleError(f"{directory / file.file}: {missing[0]} is missing")
    return parts
