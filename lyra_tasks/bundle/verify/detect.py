"""Verify what lies at a path: a bundle, a pack, a part of a pack, or the archive of one image."""

from __future__ import annotations

from pathlib import Path

from lyra_tasks.bundle.format.checksums import read_checksums
from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, PACK_FILE, SIGNATURE_FILE
from lyra_tasks.bundle.format.pack import read_pack_manifest
from lyra_tasks.bundle.format.signature import Trust, verify_signature
from lyra_tasks.bundle.verify.bundle import VerifyReport, raise_if_invalid, verify_bundle
from lyra_tasks.bundle.verify.pack import verify_pack
from lyra_tasks.digests import file_sha256
from lyra_tasks.errors import BundleError, UsageError
from lyra_tasks.images.archive.verify import verify_archive
from lyra_tasks.images.oci import ImageIdentity


def verify_path(path: Path, trust: Trust | None = None) -> VerifyReport:
    """Verify every byte of what lies at `path`; raise BundleError if anything is wrong."""
    if path.is_dir() or not path.exists():
        return (verify_pack if _is_pack(path) else verify_bundle)(path, trust)
    pack = next((parent for parent in path.absolute().parents[:2] if _is_pack(parent)), None)
    if pack:
        return _verify_part(path, pack, trust)
    if path.suffix != ".tar":
        return verify_bundle(path, trust)
    if trust:
        raise UsageError(f"{path}: a single archive is not signed", hint="Name the directory of its bundle")
    return _verify_archive(path)


def _is_pack(path: Path) -> bool:
    return (path / PACK_FILE).is_file() and (path / CHECKSUMS_FILE).is_file()


def _verify_part(path: Path, directory: Path, trust: Trust | None) -> VerifyReport:
    """Verify one file of a pack, which may have been copied again alone, and `pack.json`, which the report cites."""
    if trust:
        verify_signature(directory, trust)
    name = path.absolute().relative_to(directory).as_posix()
    sums = read_checksums(directory)
    if name not in sums:
        raise BundleError(f"{path}: not in {CHECKSUMS_FILE} of the pack", hint=f"Run `verify {directory}`")
    for file_name in dict.fromkeys((name, PACK_FILE)):
        file = directory / file_name
        if file.is_symlink() or not file.is_file() or file_sha256(file) != sums.get(file_name):
            raise_if_invalid(directory, {file_name: "changed"}, hint="Copy this file again")
    pack = read_pack_manifest(directory)
    return VerifyReport(
        kind="part",
        path=path,
        file_sizes={name: path.stat().st_size},
        images={},
        project=pack.project,
        version=pack.version,
        since=pack.since or "",
        signer=trust.signer if trust else "",
        has_signature=(directory / SIGNATURE_FILE).is_file(),
    )


def _verify_archive(path: Path) -> VerifyReport:
    """Verify that an archive is intact; unpacks every layer. Only its bundle can say whether it is the right one."""
    contents = verify_archive(path)
    identity = ImageIdentity(contents.config_digest, contents.manifest_digest, contents.platform, ())
    return VerifyReport("archive", path, {path.name: contents.size}, dict.fromkeys(contents.references, identity))
