"""`SHA256SUMS`: one line per file of a bundle, as `sha256sum -c` reads it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lyra_tasks.bundle import layout
from lyra_tasks.errors import BundleError
from lyra_tasks.files import walk, write_file

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\\\udc80-\udcff]+")
_THREADS = 2
_MAX_FILES = 20_000
_MAX_DEPTH = 100


def parse(data: bytes, where: str) -> dict[str, str]:
    """Name → hexadecimal digest; BundleError if it is not exactly what `render` writes for these files."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: not UTF-8 text") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        match = _LINE.fullmatch(line)
        if not match:
            raise BundleError(f"{where}:{number}: not a line of checksum, two spaces and a name")
        try:
            check_name(match[2])
        except BundleError as error:
            raise BundleError(f"{where}:{number}: {error.message}") from error
        sums[match[2]] = match[1]
    if render(sums) != data:
        raise BundleError(f"{where}: lines are out of order, repeated, or the last one is cut off")
    return sums


def render(sums: Mapping[str, str]) -> bytes:
    """The lines for these files, sorted by the bytes of their names; BundleError for a name that cannot be carried."""
    for name in sums:
        check_name(name)
    names = sorted(sums, key=os.fsencode)
    return "".join(f"{sums[name]}  {name}\n" for name in names).encode()


def check_name(name: str) -> None:
    """Refuse names that `sha256sum` would escape, and those that leave the bundle."""
    if not _NAME.fullmatch(name) or any(part in {"", ".", ".."} for part in name.split("/")) or name in layout.UNSUMMED:
        raise BundleError(f"{name!r} is not a name for a file of a bundle", hint="rename the file")


def inventory(bundle: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Every regular file by its name in the bundle, and the names of what is neither a file nor a folder.

    BundleError where there are more of them or of folders, or folders are deeper in each other, than in any bundle.
    """
    files: dict[str, Path] = {}
    strange: list[str] = []
    count = 0
    for folder, folders, names in walk(bundle):
        if len(folder.parts) - len(bundle.parts) > _MAX_DEPTH:
            raise BundleError(f"{bundle}: has folders more than {_MAX_DEPTH} deep, which is not believable")
        count += len(folders) + len(names)
        if count > _MAX_FILES:
            raise BundleError(f"{bundle}: holds more than {_MAX_FILES} files, which is not believable")
        for entry in (*folders, *names):
            path = folder / entry
            name = path.relative_to(bundle).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                strange.append(name)
            elif path.is_file():
                files[name] = path
    return files, tuple(sorted(strange))


def file_sums(files: Iterable[Path]) -> list[str]:
    """The hexadecimal digests of these files, two at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(_file_sum, files))


def write_checksums(bundle: Path, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write `SHA256SUMS` for all files of a bundle, durably; digests that are `known` by name are not computed again.

    BundleError if the bundle holds a link, a device or a name that cannot be carried.
    """
    files, strange = inventory(bundle)
    if strange:
        raise BundleError(f"{bundle}: holds something that is not a file", details=strange)
    sums = {name: digest for name, digest in (known or {}).items() if name in files}
    rest = sorted(files.keys() - sums.keys() - layout.UNSUMMED)
    sums |= zip(rest, file_sums(files[name] for name in rest), strict=True)
    write_file(bundle / layout.CHECKSUMS, render(sums))
    return sums


def _file_sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
