"""`verify PATH`, whatever was brought: a bundle, a pack, a part of a pack, the archive of one image."""

from __future__ import annotations

from pathlib import Path

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.checksums import file_sums, parse
from lyra_tasks.bundle.packs.verify import read_pack, verify_pack
from lyra_tasks.bundle.read import small_file
from lyra_tasks.bundle.signature import Trust, check_signature
from lyra_tasks.bundle.verify import FileResult, VerifyReport, refuse, verify
from lyra_tasks.errors import BundleError, UsageError
from lyra_tasks.images.check import check_archive
from lyra_tasks.images.identity import ImageIdentity


def verify_any(path: Path, trust: Trust | None = None) -> VerifyReport:
    """Verify what lies at `path`, every byte of it; BundleError if anything is wrong."""
    if path.is_dir() or not path.exists():
        return (verify_pack if _is_pack(path) else verify)(path, trust)
    pack = next((folder for folder in path.absolute().parents[:2] if _is_pack(folder)), None)
    if pack:
        return _verify_part(path, pack, trust)
    if path.suffix != ".tar":
        return verify(path, trust)
    if trust:
        raise UsageError(
            f"{path}: an archive alone is not signed", hint="name the folder of the bundle that it belongs to"
        )
    return _verify_archive(path)


def _is_pack(path: Path) -> bool:
    return (path / layout.PACK).is_file() and (path / layout.CHECKSUMS).is_file()


def _verify_part(path: Path, folder: Path, trust: Trust | None) -> VerifyReport:
    """One file of a pack, by the pack's checksums, so that a part can be checked when it alone was brought again.

    What the pack says of itself is told with it, and so is checked, too.
    """
    if trust:
        check_signature(folder, trust)
    name = path.absolute().relative_to(folder).as_posix()
    sums = parse(small_file(folder / layout.CHECKSUMS), str(folder / layout.CHECKSUMS))
    if name not in sums:
        raise BundleError(f"{path}: the pack does not name it", hint=f"verify {folder}")
    for each in dict.fromkeys((name, layout.PACK)):
        file = folder / each
        if file.is_symlink() or not file.is_file() or file_sums([file]) != [sums.get(each)]:
            refuse(folder, {each: "changed"}, hint="bring this file again")
    pack = read_pack(folder)
    return VerifyReport(
        path=path,
        project=pack.project,
        version=pack.version,
        files=(FileResult(name, path.stat().st_size),),
        images=(),
        signer=trust.signer if trust else "",
        has_signature=(folder / layout.SIGNATURE).is_file(),
        kind="part",
        since=pack.since or "",
    )


def _verify_archive(path: Path) -> VerifyReport:
    """An archive by itself: whole and of a piece, every layer unpacked; whether it is the right one, nobody says."""
    contents = check_archive(path)
    identity = ImageIdentity(contents.config_digest, contents.manifest_digest, contents.platform, ())
    return VerifyReport(
        path=path,
        project="",
        version="",
        files=(FileResult(path.name, contents.size),),
        images=tuple((name, identity) for name in contents.references),
        signer="",
        has_signature=False,
        kind="archive",
    )
