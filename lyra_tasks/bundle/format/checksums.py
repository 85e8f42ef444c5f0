"""`SHA256SUMS`, as `sha256sum --check` reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, NOT_IN_CHECKSUMS
from lyra_tasks.bundle.format.manifest import read_small_file
from lyra_tasks.bundle.format.staging import write_staged
from lyra_tasks.console import count_bytes
from lyra_tasks.digests import file_sha256
from lyra_tasks.documents import shorten, translate_failures
from lyra_tasks.errors import BundleError
from lyra_tasks.files import walk_directory

_LINE_PATTERN = re.compile(r"([0-9a-f]{64})  (.+)")
_NAME_PATTERN = re.compile(r"[^\x00-\x1f\x7f-\x9f\\\udc80-\udcff]+")
_HASH_THREADS = 2
_MAX_FILES = 20_000
_MAX_DEPTH = 100


def parse_checksums(data: bytes, where: str) -> dict[str, str]:
    """Return hexadecimal digests by file name; raise BundleError unless the text is what `format_checksums` writes."""
    with translate_failures(lambda problem: BundleError(f"{where}: {problem}")):
        text = data.decode()
    sums: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        match = _LINE_PATTERN.fullmatch(line)
        if not match:
            raise BundleError(f"{where}:{number}: expected a checksum, two spaces and a name")
        try:
            require_valid_name(match[2])
        except BundleError as error:
            raise BundleError(f"{where}:{number}: {error.message}") from error
        sums[match[2]] = match[1]
    if format_checksums(sums) != data:
        raise BundleError(f"{where}: lines are not sorted, repeated or truncated")
    return sums


def read_checksums(directory: Path) -> dict[str, str]:
    """Read the checksums of the bundle or pack in `directory`."""
    path = directory / CHECKSUMS_FILE
    return parse_checksums(read_small_file(path), str(path))


def format_checksums(sums: Mapping[str, str]) -> bytes:
    """Return one line per file, sorted by the bytes of the name; raise BundleError for an invalid name."""
    for name in sums:
        require_valid_name(name)
    names = sorted(sums, key=os.fsencode)
    return "".join(f"{sums[name]}  {name}\n" for name in names).encode()


def require_valid_name(name: str) -> None:
    """Raise BundleError for a name that `sha256sum` would escape or that leaves the bundle."""
    if (
        not _NAME_PATTERN.fullmatch(name)
        or any(part in {"", ".", ".."} for part in name.split("/"))
        or name in NOT_IN_CHECKSUMS
    ):
        raise BundleError(f"Invalid file name in a bundle: {shorten(name)!r}", hint="Rename the file")


def list_bundle_files(bundle: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return all regular files by name, and the names of everything that is neither file nor directory."""
    files: dict[str, Path] = {}
    irregular: list[str] = []
    count = 0
    for directory, directories, file_names in walk_directory(bundle):
        if len(directory.parts) - len(bundle.parts) > _MAX_DEPTH:
            raise BundleError(f"{bundle}: directories are nested more than {_MAX_DEPTH} deep")
        count += len(directories) + len(file_names)
        if count > _MAX_FILES:
            raise BundleError(f"{bundle}: contains more than {_MAX_FILES} files")
        for entry in (*directories, *file_names):
            path = directory / entry
            name = path.relative_to(bundle).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                irregular.append(name)
            elif path.is_file():
                files[name] = path
    return files, tuple(sorted(irregular))


def hash_files(files: Iterable[Path]) -> list[str]:
    """Return the hexadecimal SHA-256 digests of these files, in order; a live line shows how many bytes were read."""
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        return list(pool.map(partial(file_sha256, on_read=count_bytes), files))


def write_checksums(bundle: Path, known_digests: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write `SHA256SUMS` and return the digests by name; files in `known_digests` are not hashed again."""
    sums = hash_bundle(bundle, known_digests or {})
    write_staged(bundle / CHECKSUMS_FILE, format_checksums(sums))
    return sums


def hash_bundle(bundle: Path, known_digests: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of all files by name, except checksums; files in `known_digests` are not hashed again."""
    files, irregular = list_bundle_files(bundle)
    if irregular:
        raise BundleError(f"{bundle}: contains irregular files", details=irregular)
    sums = {name: digest for name, digest in known_digests.items() if name in files}
    unhashed = sorted(files.keys() - sums.keys() - NOT_IN_CHECKSUMS)
    return sums | dict(zip(unhashed, hash_files(files[name] for name in unhashed), strict=True))
