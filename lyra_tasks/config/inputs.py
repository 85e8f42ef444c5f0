"""What an image is built from, as hashes: the files of its context, its Dockerfile, arguments, target and bases.

The hashes decide whether a built image is stale, and name what changed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.config.file_hashes import FileHashes
from lyra_tasks.config.find import shown
from lyra_tasks.config.models import Image
from lyra_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from e2b_dockerfile_utils import PatternMatcher


def dockerfile_path(root: Path, image: Image) -> Path:
    """The Dockerfile of `image`; like Docker, relative to its context."""
    return root / image.context / image.dockerfile


def input_hashes(root: Path, image: Image, commit: str) -> dict[str, str]:
    """One hash per kind of input that is the same for every platform: `context`, `dockerfile`, `args`, `target`, …"""
    dockerfile = dockerfile_path(root, image)
    return {
        "context": context_hash(root / image.context, dockerfile, hashes_of(root, image)),
        "dockerfile": hashlib.sha256(dockerfile.read_bytes()).hexdigest(),
        "args": text_hash(image.args),
        "target": image.target,
        "commit": commit,
    }


def changed(recorded: Mapping[str, str], current: Mapping[str, str]) -> tuple[str, ...]:
    """The kinds of input that differ."""
    return tuple(sorted(key for key in {*recorded, *current} if recorded.get(key) != current.get(key)))


def hashes_of(root: Path, image: Image) -> FileHashes:
    """The hashes of large files that are known from before, in `.lyra/` of the project."""
    key = hashlib.sha256(f"{image.context}\0{image.dockerfile}".encode()).hexdigest()[:16]
    return FileHashes(root / ".lyra" / "hashes" / f"{key}.json")


def context_hash(context: Path, dockerfile: Path, hashes: FileHashes) -> str:
    """A hash of the context as the builder sees it: names, kinds, executable bits and contents, without the ignored."""
    total = hashlib.sha256()
    for name, path, seen in sorted(context_files(context, dockerfile), key=lambda each: each[:2]):
        mode = seen.st_mode
        if stat.S_ISLNK(mode):
            kind, content = "link", os.fsencode(path.readlink())
        elif stat.S_ISREG(mode):
            kind = "program" if mode & 0o111 else "file"
            content = hashes.digest(path, seen.st_size)
        else:
            kind, content = "other", b""
        total.update(f"{kind}\0{name}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    hashes.keep()
    return total.hexdigest()


def context_files(context: Path, dockerfile: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Every entry of a build context that `.dockerignore` leaves in: name, path, status; folders are not entries."""
    ignored = ignore_patterns(context, dockerfile)
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(context / folder) as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    # a later `!pattern` may bring something below an ignored folder back
                    if not ignored.matches(name) or any(pattern.startswith("!") for pattern in ignored.patterns):
                        pending.append(f"{name}/")
                elif not ignored.matches(name):
                    yield name, Path(entry.path), entry.stat(follow_symlinks=False)


def ignore_patterns(context: Path, dockerfile: Path) -> PatternMatcher:
    """The patterns of `<Dockerfile>.dockerignore`, which wins, or of the context's `.dockerignore`.

    ConfigurationError that names the file, and the line where one is to blame.
    """
    from e2b_dockerfile_utils import PatternMatcher

    for candidate in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / ".dockerignore"):
        if candidate.is_file():
            return _patterns_of(candidate)
    return PatternMatcher([])


def _patterns_of(file: Path) -> PatternMatcher:
    from e2b_dockerfile_utils import PatternMatcher

    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{shown(file)}: not UTF-8", hint="save it as UTF-8, as Docker reads it") from error
    patterns = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            patterns.append(_rooted(line.strip()))
            try:
                PatternMatcher(patterns[-1:])
            except ValueError as error:
                raise ConfigurationError(
                    f"{shown(file)}:{number}: not a valid pattern: {str(error).rpartition(': ')[2]}",
                    hint="correct or remove this line",
                ) from error
    return PatternMatcher(patterns)


def _rooted(pattern: str) -> str:
    """Docker reads `/name` as `name`."""
    negated = pattern.startswith("!")
    body = pattern[1:].strip() if negated else pattern
    return ("!" if negated else "") + (body.lstrip("/") or ".")


def text_hash(items: Mapping[str, str]) -> str:
    """A hash of names and values, whatever their order."""
    return hashlib.sha256("\0".join(f"{key}={value}" for key, value in sorted(items.items())).encode()).hexdigest()
