"""Hash the inputs of a build (context, Dockerfile, arguments, target) to find stale images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.config.models import Image
from lyra_tasks.config.patterns import compile_patterns
from lyra_tasks.digests import sha256_hex
from lyra_tasks.dockerfile.context import ContextSnapshot, scan_context
from lyra_tasks.dockerfile.file_hashes import open_file_hashes
from lyra_tasks.documents import read_document, shorten, translate_failures
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.files import display_path

if TYPE_CHECKING:
    from e2b_dockerfile_utils import PatternMatcher

_MAX_IGNORE_FILE_BYTES = 1024**2
_OWN_FILES = ("**/.lyra.toml", "**/.lyra.lock.toml")
_TASKS_FILE = "tasks.py"
TASKS_FILE_HEAD = b'"""The tasks of lyra-tasks'
"""How the `tasks.py` begins that `init` writes."""


def dockerfile_path(root: Path, image: Image) -> Path:
    """Return the path of an image's Dockerfile, relative to its context as in Docker."""
    return root / image.context / image.dockerfile


@dataclass(frozen=True, eq=False)
class ImageInputs(Mapping[str, str]):
    """The inputs of an image: a hash by kind (`context`, `dockerfile`, `args`, …), and the files behind them."""

    hashes: Mapping[str, str]
    source: ContextSnapshot

    def __getitem__(self, kind: str) -> str:
        """Return the hash of one kind of input."""
        return self.hashes[kind]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the kinds of input."""
        return iter(self.hashes)

    def __len__(self) -> int:
        """Return the number of kinds."""
        return len(self.hashes)


def scan_image(root: Path, image: Image) -> ContextSnapshot:
    """Hash what the builder gets for an image."""
    context = Path(os.path.normpath(root / image.context))
    return scan_directory(context, dockerfile_path(root, image), root / ".lyra" / "hashes")


def scan_contexts(root: Path, images: Mapping[str, Image]) -> dict[str, ContextSnapshot]:
    """Hash what the builder gets for each of the images."""
    return {name: scan_image(root, image) for name, image in images.items()}


def scan_directory(context: Path, dockerfile: Path | None, cache: Path | None = None) -> ContextSnapshot:
    """Hash what the builder gets of a context; the hashes of large files are kept in the directory `cache`."""
    name = sha256_hex(f"{context}\0{dockerfile}".encode("utf-8", "surrogateescape"))[:16]
    file_hashes = open_file_hashes((cache or Path("/nonexistent/none")) / f"{name}.json")
    ignore_file, matcher = find_ignore_file(context, dockerfile), read_ignore_patterns(context, dockerfile)
    return scan_context(context, dockerfile, ignore_file, matcher, file_hashes)


def scan_again(snapshot: ContextSnapshot, cache: Path | None = None) -> ContextSnapshot:
    """Hash the context of a snapshot as it is now."""
    return scan_directory(snapshot.context, snapshot.dockerfile, cache)


def compute_input_hashes(image: Image, source: ContextSnapshot, commit: str) -> ImageInputs:
    """Return the platform-independent inputs of an image, whose context is `source`."""
    hashes = {
        "context": source.digest,
        "dockerfile": source.dockerfile_digest,
        "args": hash_mapping(image.args),
        "target": image.target,
        "commit": commit,
    }
    return ImageInputs(hashes, source)


def list_changed_inputs(recorded: Mapping[str, str], current: Mapping[str, str]) -> tuple[str, ...]:
    """Return the kinds of input that differ."""
    return tuple(sorted(key for key in {*recorded, *current} if recorded.get(key) != current.get(key)))


def find_ignore_file(context: Path, dockerfile: Path | None) -> Path | None:
    """Return `<Dockerfile>.dockerignore` or, if it does not exist, `.dockerignore` of the context; None without."""
    candidates = [context / ".dockerignore"]
    if dockerfile is not None:
        candidates.insert(0, dockerfile.with_name(f"{dockerfile.name}.dockerignore"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def list_own_files(context: Path) -> tuple[str, ...]:
    """Return the patterns of Lyra's own files, which are no part of a context: a renamed check changes no image."""
    try:
        with (context / _TASKS_FILE).open("rb") as file:
            is_own = file.read(len(TASKS_FILE_HEAD)) == TASKS_FILE_HEAD
    except OSError:
        is_own = False
    return (*_OWN_FILES, _TASKS_FILE) if is_own else _OWN_FILES


def read_ignore_patterns(context: Path, dockerfile: Path | None) -> PatternMatcher:
    """Read the ignore file of an image; what it excludes, and Lyra's own files, are no part of the context."""
    file = find_ignore_file(context, dockerfile)
    own_files = list(list_own_files(context))
    if file is None:
        return compile_patterns(own_files)
    with translate_failures(
        lambda problem: ConfigurationError(f"Cannot read {display_path(file)}: {problem}", hint="Save it as UTF-8")
    ):
        lines = read_document(file, _MAX_IGNORE_FILE_BYTES).decode("utf-8-sig").splitlines()
    patterns = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            patterns.append(_strip_leading_slash(line.strip()))
            try:
                compile_patterns(patterns[-1:])
            except ValueError as error:
                raise ConfigurationError(
                    f"{display_path(file)}:{number}: invalid pattern: {shorten(str(error).rpartition(': ')[2])}",
                    hint="Fix or remove the line",
                ) from error
    return compile_patterns([*patterns, *own_files])


def _strip_leading_slash(pattern: str) -> str:
    """Return the pattern as Docker reads it: `/name` as `name`."""
    is_negated = pattern.startswith("!")
    body = pattern[1:].strip() if is_negated else pattern
    return ("!" if is_negated else "") + (body.lstrip("/") or ".")


def hash_mapping(items: Mapping[str, str]) -> str:
    """Return a hash of names and values that does not depend on their order."""
    return sha256_hex("\0".join(f"{key}={value}" for key, value in sorted(items.items())).encode())
