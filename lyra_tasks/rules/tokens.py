"""Find strings that look like tokens or keys, with detect-secrets if it is installed.

Layers are read before it is known which are the project's own: until then, their texts are kept in a temporary file.
"""

from __future__ import annotations

import importlib.util
import re
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from lyra_tasks.images.scan.layers import ScannedImage
from lyra_tasks.images.stream.tar import Block

_MAX_FILE_BYTES = 128 * 1024
_MAX_SAMPLE_BYTES = 16 * 1024**2
_MAX_TOKENS = 20
_RECORD_HEADER = struct.Struct("<II")
# Files of package managers are public anyway.
_PACKAGE_MANAGED_PATH = re.compile(
    r"(^|.*/)(node_modules|site-packages|dist-packages)/.*|(usr/(lib|share|include|s?bin)|lib|s?bin|var/lib|var/cache)/.*"
)
_ENTROPY_DETECTORS = {"Base64HighEntropyString", "HexHighEntropyString"}
_CANDIDATE = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
# An address is not a token, and keywords alone have too many false positives.
_EXCLUDED_DETECTORS = {"IPPublicDetector", "KeywordDetector"}


def has_detect_secrets() -> bool:
    """Return whether detect-secrets is installed."""
    return importlib.util.find_spec("detect_secrets") is not None


class TextSampler:
    """A sample of the texts in a layer: small files that belong to no package, up to 16 MiB in all."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._size = 0

    def watch(self, path: str, blocks: Iterator[Block]) -> Iterator[Block]:
        """Pass the blocks of a file on, and keep them if it is a text."""
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
        """Delete the sample."""
        self._file.close()


def find_tokens(image: ScannedImage, base_layer_count: int, variables: Mapping[str, str]) -> list[str]:
    """Return what looks like a token in variables, and in the labels and the layers above the base of an image."""
    matches = find_random_values(variables)
    labels = (image.config.get("config") or {}).get("Labels") or {}
    matches += find_token_shapes((f"label {name}", str(value)) for name, value in sorted(labels.items()))
    for layer in image.layers[base_layer_count:]:
        if isinstance(layer.watcher, TextSampler):
            matches += find_token_shapes((f"/{path}", text) for path, text in layer.watcher)
    return list(dict.fromkeys(matches))[:_MAX_TOKENS]


def find_token_shapes(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Return matches of known token formats as `PLACE:LINE: KIND`, without their text."""
    detectors = [detector for detector in load_detectors() if hasattr(detector, "denylist")]
    messages = []
    for place, text in texts:
        matches = {
            (text.count("\n", 0, match.start()) + 1, detector.secret_type)
            for detector in detectors
            for pattern in detector.denylist
            for match in pattern.finditer(text)
        }
        messages += [f"{place}:{line}: {kind}" for line, kind in sorted(matches)]
    return messages


def find_random_values(values: Mapping[str, str]) -> list[str]:
    """Return the names of values that look like a token or are as random as one, with the kind of token."""
    detectors = [item for item in load_detectors(by_entropy=True) if type(item).__name__ in _ENTROPY_DETECTORS]
    messages = find_token_shapes(values.items())
    for name, value in values.items():
        candidates = _CANDIDATE.findall(value)
        messages += [
            f"{name}: {detector.secret_type}"
            for detector in detectors
            if any(_is_random(detector, candidate) for candidate in candidates)
        ]
    return messages


def _is_random(detector: Any, candidate: str) -> bool:
    is_in_charset = set(candidate) <= set(detector.charset)
    return is_in_charset and bool(detector.calculate_shannon_entropy(candidate) > detector.entropy_limit)


def load_detectors(*, by_entropy: bool = False) -> list[Any]:
    """Return the detectors of token shapes, or with `by_entropy` also those of random strings."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    excluded = _EXCLUDED_DETECTORS if by_entropy else _EXCLUDED_DETECTORS | _ENTROPY_DETECTORS
    classes: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
    by_name = {detector_class.__name__: detector_class for detector_class in classes}
    return [by_name[name]() for name in sorted(by_name.keys() - excluded)]
