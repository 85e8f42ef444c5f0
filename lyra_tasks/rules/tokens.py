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

from lyra_tasks.images.stream.pipeline import Block

_MAX_FILE_BYTES = 128 * 1024
_MAX_SAMPLE_BYTES = 16 * 1024**2
_RECORD_HEADER = struct.Struct("<II")
# what package managers bring was published before
_PACKAGE_MANAGED_PATH = re.compile(
    r"(^|.*/)(node_modules|site-packages|dist-packages)/.*|(usr/(lib|share|include|s?bin)|lib|s?bin|var/lib|var/cache)/.*"
)
_ENTROPY_DETECTORS = {"Base64HighEntropyString", "HexHighEntropyString"}
_CANDIDATE = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
# an address is no token, and a keyword alone is wrong too often in texts of others
_EXCLUDED_DETECTORS = {"IPPublicDetector", "KeywordDetector"}


def has_detect_secrets() -> bool:
    """Whether detect-secrets is installed."""
    return importlib.util.find_spec("detect_secrets") is not None


class TextSampler:
    """The texts of one layer, kept aside: small files that no package manager brought, up to 16 MiB in all."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._size = 0

    def watch(self, path: str, blocks: Iterator[Block]) -> Iterator[Block]:
        """The blocks as they come; those of a text are kept."""
        if _PACKAGE_MANAGED_PATH.fullmatch(path):
            yield from blocks
            return
        sample: list[bytes] = []
        size = 0
        for block in blocks:
            size += len(block)
            if size <= _MAX_FILE_BYTES:
                sample.append(bytes(block))
            yield block
        content = b"".join(sample)
        if 0 < size <= _MAX_FILE_BYTES and b"\0" not in content and self._size + size <= _MAX_SAMPLE_BYTES:
            self._size += size
            name = path.encode("utf-8", "surrogateescape")
            self._file.write(_RECORD_HEADER.pack(len(name), size) + name + content)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self._file.seek(0)
        while head := self._file.read(_RECORD_HEADER.size):
            length, size = _RECORD_HEADER.unpack(head)
            name = self._file.read(length).decode("utf-8", "surrogateescape")
            yield name, self._file.read(size).decode(errors="replace")

    def close(self) -> None:
        """Forget the texts."""
        self._file.close()


def find_token_shapes(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Where a text has something with the shape of a known token, as `PLACE:LINE: what it looks like`; never itself."""
    plugins = [
        (detector.secret_type, detector.denylist) for detector in _load_detectors() if hasattr(detector, "denylist")
    ]
    messages = []
    for place, text in texts:
        matches = {
            (text.count("\n", 0, match.start()) + 1, kind)
            for kind, patterns in plugins
            for pattern in patterns
            for match in pattern.finditer(text)
        }
        messages += [f"{place}:{line}: {kind}" for line, kind in sorted(matches)]
    return messages


def find_random_values(values: Mapping[str, str]) -> list[str]:
    """Which of some named values have the shape of a token, or are as random as one; never the values."""
    entropy_detectors = [
        detector for detector in _load_detectors(by_entropy=True) if type(detector).__name__ in _ENTROPY_DETECTORS
    ]
    messages = find_token_shapes((name, value) for name, value in values.items())
    for name, value in values.items():
        candidates = _CANDIDATE.findall(value)
        messages += [
            f"{name}: {detector.secret_type}"
            for detector in entropy_detectors
            if any(
                set(candidate) <= set(detector.charset) and _is_random(detector, candidate) for candidate in candidates
            )
        ]
    return messages


def _is_random(detector: Any, candidate: str) -> bool:
    return bool(detector.calculate_shannon_entropy(candidate) > detector.entropy_limit)


def _load_detectors(*, by_entropy: bool = False) -> list[Any]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    excluded = _EXCLUDED_DETECTORS if by_entropy else _EXCLUDED_DETECTORS | _ENTROPY_DETECTORS
    classes: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
    return [
        detector_class()
        for detector_class in sorted(classes, key=lambda detector_class: detector_class.__name__)
        if detector_class.__name__ not in excluded
    ]
