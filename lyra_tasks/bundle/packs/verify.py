"""Verifying a pack: every byte of every part, and that with what is left out it is the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.checksums import file_sums, inventory, parse
from lyra_tasks.bundle.manifest import BundledImage, Manifest, decode
from lyra_tasks.bundle.packs.document import Pack, PackedArchive, PackedFile
from lyra_tasks.bundle.packs.documents import Documents, read_documents
from lyra_tasks.bundle.packs.plan import plain
from lyra_tasks.bundle.read import small_file
from lyra_tasks.bundle.signature import Trust, check_signature
from lyra_tasks.bundle.verify import FileResult, VerifyReport, references_of, refuse
from lyra_tasks.errors import BundleError
from lyra_tasks.images.check import check_archive


def verify_pack(path: Path, trust: Trust | None = None) -> VerifyReport:
    """Verify the pack in this folder by its checksums, and those by their signature where `trust` is given.

    BundleError if anything is wrong; a part that is missing or changed is named, since it alone must be brought again.
    """
    if trust:
        check_signature(path, trust)
    sums = parse(small_file(path / layout.CHECKSUMS), str(path / layout.CHECKSUMS))
    files, strange = inventory(path)
    present = sorted(sums.keys() & files.keys())
    found = dict(zip(present, file_sums(files[name] for name in present), strict=True))
    problems = {name: "changed" for name in present if found[name] != sums[name]}
    problems |= dict.fromkeys(sums.keys() - files.keys(), "missing")
    problems |= dict.fromkeys(files.keys() - sums.keys() - layout.UNSUMMED, "extra: the checksums do not name it")
    problems |= dict.fromkeys(strange, "neither a file nor a folder")
    if problems:
        refuse(path, problems, hint="bring these files again, and only these")
    pack = read_pack(path)
    documents = _documents(path, pack)
    manifest = decode(documents.contents[layout.MANIFEST], Manifest, f"{path / layout.DOCUMENTS}: {layout.MANIFEST}")
    refuse(path, dict(_contradictions(path, pack, manifest, found)))
    refuse(path, dict(_missing_from_bundle(path, documents, manifest, found)))
    return VerifyReport(
        path=path,
        project=pack.project,
        version=pack.version,
        files=tuple(FileResult(name, files[name].stat().st_size) for name in present),
        images=tuple((build, image.identity) for build, image in manifest.keyed.items()),
        signer=trust.signer if trust else "",
        has_signature=(path / layout.SIGNATURE).is_file(),
        kind="pack",
        since=pack.since or "",
    )


def read_pack(path: Path) -> Pack:
    """The description of the pack in this folder."""
    return decode(small_file(path / layout.PACK), Pack, str(path / layout.PACK))


def _contradictions(path: Path, pack: Pack, manifest: Manifest, found: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong although every file has its checksum."""
    if (pack.project, pack.version, pack.set_digest) != (manifest.project, manifest.version, manifest.set_digest):
        yield layout.PACK, "is about another bundle"
    thin = {each.file: each for each in pack.images}
    named = {each.file: each.image for each in pack.images}
    if named != {image.file: image.name for image in manifest.images} or len(thin) != len(pack.images):
        yield layout.PACK, "has other images than the description"
        return
    for image in manifest.images:
        if problem := _archive_problem(path, thin[image.file], image, pack):
            yield image.file, problem
    expected = {name for each in (*pack.images, pack.documents) for name in each.names}
    for name in sorted(found.keys() - expected - {layout.PACK, layout.RECEIVE}):
        if not plain(name):
            yield name, "extra: the pack does not name it"


def _archive_problem(path: Path, thin: PackedArchive, image: BundledImage, pack: Pack) -> str:
    own = {layer.digest for layer in image.layers}
    if thin.without and (pack.since is None or not own.issuperset(thin.without)):
        return "layers are left out that no older version has"
    try:
        parts = _parts(path, thin)
        contents = check_archive(
            path / thin.file, expected=image.identity, unpack=False, without=thin.without, parts=parts
        )
    except BundleError as error:
        return "; ".join((error.message, *error.details))
    if (contents.sha256, contents.size) != (thin.sha256, thin.size):
        return "the pack gives it another digest or size"
    if not thin.without and (contents.sha256, contents.size) != (image.sha256, image.size):
        return "the description gives it another digest or size"
    return "" if contents.references == references_of(image) else f"carries the names {', '.join(contents.references)}"


def _documents(path: Path, pack: Pack) -> Documents:
    where = str(path / layout.DOCUMENTS)
    return read_documents(_parts(path, pack.documents), pack.documents, where, (layout.CHECKSUMS, layout.MANIFEST))


def _missing_from_bundle(
    path: Path, documents: Documents, manifest: Manifest, found: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Where pack and left-out layers together are not what the bundle's own checksums say."""
    sums = parse(documents.contents[layout.CHECKSUMS], f"{path / layout.DOCUMENTS}: {layout.CHECKSUMS}")
    there = {name: digest for name, digest in documents.digests.items() if name not in layout.UNSUMMED}
    there |= {name: digest for name, digest in found.items() if plain(name)}
    there |= {image.file: image.sha256 for image in manifest.images}
    there[layout.RECEIVE] = sums.get(layout.RECEIVE, "")  # a pack has a script of its own
    for name in sorted(there.keys() | sums.keys()):
        if there.get(name) != sums.get(name):
            yield name, "is not what the bundle had"


def _parts(path: Path, file: PackedFile) -> list[Path]:
    parts = [path / name for name in file.names]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise BundleError(f"{path / file.file}: {missing[0]} is missing")
    return parts
