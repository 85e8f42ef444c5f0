"""`SHA256SUMS`: one line per file of a bundle, as `sha256sum -c` reads it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, NOT_IN_CHECKSUMS
from lyra_tasks.errors import BundleError
from lyra_tasks.files import walk_directory, write_file

_LINE_PATTERN = re.compile(r"([0-9a-f]{64})  (.+)")
_NAME_PATTERN = re.compile(r"[^\x00-\x1f\x7f-\x9f\\\udc80-\udcff]+")
_HASH_THREADS = 2
_MAX_FILES = 20_000
_MAX_DEPTH = 100


def parse_checksums(data: bytes, where: str) -> dict[str, str]:
    """Name → hexadecimal digest; BundleError if it is not exactly what `render` writes for these files."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: not UTF-8 text") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        match = _LINE_PATTERN.fullmatch(line)
        if not match:
            raise BundleError(f"{where}:{number}: not a line of checksum, two spaces and a name")
        try:
            require_valid_name(match[2])
        except BundleError as error:
            raise BundleError(f"{where}:{number}: {error.message}") from error
        sums[match[2]] = match[1]
    if format_checksums(sums) != data:
        raise BundleError(f"{where}: lines are out of order, repeated, or the last one is cut off")
    return sums


def format_checksums(sums: Mapping[str, str]) -> bytes:
    """The lines for these files, sorted by the bytes of their names; BundleError for a name that cannot be carried."""
    for name in sums:
        require_valid_name(name)
    names = sorted(sums, key=os.fsencode)
    return "".join(f"{sums[name]}  {name}\n" for name in names).encode()


def require_valid_name(name: str) -> None:
    """Refuse names that `sha256sum` would escape, and those that leave the bundle."""
    if (
        not _NAME_PATTERN.fullmatch(name)
        or any(part in {"", ".", ".."} for part in name.split("/"))
        or name in NOT_IN_CHECKSUMS
    ):
        raise BundleError(f"{name!r} is not a name for a file of a bundle", hint="rename the file")


def list_bundle_files(bundle: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Every regular file by its name in the bundle, and the names of what is neither a file nor a folder.

    BundleError where there are more of them or of folders, or folders are deeper in each other, than in any bundle.
    """
    files: dict[str, Path] = {}
    irregular: list[str] = []
    count = 0
    for directory, directories, file_names in walk_directory(bundle):
        if len(directory.parts) - len(bundle.parts) > _MAX_DEPTH:
            raise BundleError(f"{bundle}: has folders more than {_MAX_DEPTH} deep, which is not believable")
        count += len(directories) + len(file_names)
        if count > _MAX_FILES:
            raise BundleError(f"{bundle}: holds more than {_MAX_FILES} files, which is not believable")
        for entry in (*directories, *file_names):
            path = directory / entry
            name = path.relative_to(bundle).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                irregular.append(name)
            elif path.is_file():
                files[name] = path
    return files, tuple(sorted(irregular))


def hash_files(files: Iterable[Path]) -> list[str]:
    """The hexadecimal digests of these files, two at a time."""
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        return list(pool.map(_hash_file, files))


def write_checksums(bundle: Path, known_digests: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write `SHA256SUMS` for all files of a bundle, durably; digests that are `known` by name are not computed again.

    BundleError if the bundle holds a link, a device or a name that cannot be carried.
    """
    files, irregular = list_bundle_files(bundle)
    if irregular:
        raise BundleError(f"{bundle}: holds something that is not a file", details=irregular)
    sums = {name: digest for name, digest in (known_digests or {}).items() if name in files}
    unhashed = sorted(files.keys() - sums.keys() - NOT_IN_CHECKSUMS)
    sums |= zip(unhashed, hash_files(files[name] for name in unhashed), strict=True)
    write_file(bundle / CHECKSUMS_FILE, format_checksums(sums))
    return sums


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
