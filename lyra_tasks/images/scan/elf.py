"""Detect the architectures of the programs in an image by their ELF headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from lyra_tasks.images.stream.pipeline import Block

_HEADER_BYTES: Final = 20
# ELF's e_machine, with the byte order where that matters -> architecture as in platforms
_MACHINES: Final = {
    3: "386",
    8: "mips",
    40: "arm",
    62: "amd64",
    183: "arm64",
    243: "riscv64",
    258: "loong64",
    (21, "little"): "ppc64le",
    (21, "big"): "ppc64",
    (22, "big"): "s390x",
}
_COMPATIBLE_ARCHITECTURES: Final = {"amd64": frozenset({"386"})}


def detect_architecture(start: Block) -> str:
    """Return the architecture (as in platforms) of the program that begins with these bytes, or an empty string."""
    if len(start) < _HEADER_BYTES or bytes(start[:4]) != b"\x7fELF":
        return ""
    order: Literal["little", "big"] = "big" if start[5] == 2 else "little"  # EI_DATA
    machine = int.from_bytes(start[18:20], order)
    return _MACHINES.get(machine) or _MACHINES.get((machine, order)) or f"ELF machine {machine}"


def count_architectures(blocks: Iterator[Block], counts: dict[str, int]) -> Iterator[Block]:
    """Pass on the blocks of one file; if it is a program, count its architecture in `counts`."""
    start = b""
    for block in blocks:
        if len(start) < _HEADER_BYTES:
            start += bytes(block[: _HEADER_BYTES - len(start)])
        yield block
    if name := detect_architecture(start):
        counts[name] = counts.get(name, 0) + 1


def can_run_programs(platform: str, counts: dict[str, int]) -> bool:
    """Return whether a machine of `platform` can run any of the counted programs, or there are none."""
    machine = platform.split("/")[1]
    return not counts or not {machine, *_COMPATIBLE_ARCHITECTURES.get(machine, ())}.isdisjoint(counts)
