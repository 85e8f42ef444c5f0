"""What has the shape of a token or key, by detect-secrets, where it is installed.

Layers are read before anything says which of them are the project's own: their texts wait in a file without a name.
"""

from __future__ import annotations

import importlib.util
import re
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from lyra_tasks.images.stage import Block

_LARGEST = 128 * 1024
_MOST = 16 * 1024**2
_LENGTHS = struct.Struct("<II")
# what package managers bring was published before
_FOREIGN = re.compile(
    r"(^|.*/)(node_modules|site-packages|dist-packages)/.*|(usr/(lib|share|include|s?bin)|lib|s?bin|var/lib|var/cache)/.*"
)
_BY_ENTROPY = {"Base64HighEntropyString", "HexHighEntropyString"}
_WORD = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
# an address is no token, and a keyword alone is wrong too often in texts of others
_LEFT_OUT = {"IPPublicDetector", "KeywordDetector"}


def available() -> bool:
    """Whether detect-secrets is installed."""
    return importlib.util.find_spec("detect_secrets") is not None


class Texts:
    """The texts of one layer, kept aside: small files that no package manager brought, up to 16 MiB in all."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._size = 0

    def watch(self, path: str, blocks: Iterator[Block]) -> Iterator[Block]:
        """The blocks as they come; those of a text are kept."""
        if _FOREIGN.fullmatch(path):
            yield from blocks
            return
        kept: list[bytes] = []
        size = 0
        for block in blocks:
            size += len(block)
            if size <= _LARGEST:
                kept.append(bytes(block))
            yield block
        content = b"".join(kept)
        if 0 < size <= _LARGEST and b"\0" not in content and self._size + size <= _MOST:
            self._size += size
            name = path.encode("utf-8", "surrogateescape")
            self._file.write(_LENGTHS.pack(len(name), size) + name + content)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self._file.seek(0)
        while head := self._file.read(_LENGTHS.size):
            length, size = _LENGTHS.unpack(head)
            name = self._file.read(length).decode("utf-8", "surrogateescape")
            yield name, self._file.read(size).decode(errors="replace")

    def close(self) -> None:
        """Forget the texts."""
        self._file.close()


def shapes(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Where a text has something with the shape of a known token, as `PLACE:LINE: what it looks like`; never itself."""
    plugins = [(each.secret_type, each.denylist) for each in _detectors() if hasattr(each, "denylist")]
    found = []
    for place, text in texts:
        seen = {
            (text.count("\n", 0, match.start()) + 1, kind)
            for kind, patterns in plugins
            for pattern in patterns
            for match in pattern.finditer(text)
        }
        found += [f"{place}:{line}: {kind}" for line, kind in sorted(seen)]
    return found


def looks_random(values: Mapping[str, str]) -> list[str]:
    """Which of some named values have the shape of a token, or are as random as one; never the values."""
    entropy = [each for each in _detectors(by_entropy=True) if type(each).__name__ in _BY_ENTROPY]
    found = shapes((name, value) for name, value in values.items())
    for name, value in values.items():
        words = _WORD.findall(value)
        found += [
            f"{name}: {each.secret_type}"
            for each in entropy
            if any(set(word) <= set(each.charset) and _is_random(each, word) for word in words)
        ]
    return found


def _is_random(detector: Any, word: str) -> bool:
    return bool(detector.calculate_shannon_entropy(word) > detector.entropy_limit)


def _detectors(*, by_entropy: bool = False) -> list[Any]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    left_out = _LEFT_OUT if by_entropy else _LEFT_OUT | _BY_ENTROPY
    classes: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
    return [each() for each in sorted(classes, key=lambda each: each.__name__) if each.__name__ not in left_out]
