"""For which processors the programs in an image are, by the header that every ELF file begins with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from lyra_tasks.images.stream.pipeline import Block

_HEADER_BYTES: Final = 20
# e_machine of the ELF format -> the name that platforms have for it; where the order of bytes decides, both
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
    """The architecture of the program that begins with these bytes, as platforms name it; empty for anything else."""
    if len(start) < _HEADER_BYTES or bytes(start[:4]) != b"\x7fELF":
        return ""
    order: Literal["little", "big"] = "big" if start[5] == 2 else "little"  # EI_DATA
    machine = int.from_bytes(start[18:20], order)
    return _MACHINES.get(machine) or _MACHINES.get((machine, order)) or f"ELF machine {machine}"


def count_architectures(blocks: Iterator[Block], counts: dict[str, int]) -> Iterator[Block]:
    """The blocks of one file as they come; a program is added to the numbers by architecture in `found`."""
    start = b""
    for block in blocks:
        if len(start) < _HEADER_BYTES:
            start += bytes(block[: _HEADER_BYTES - len(start)])
        yield block
    if name := detect_architecture(start):
        counts[name] = counts.get(name, 0) + 1


def can_run_programs(platform: str, counts: dict[str, int]) -> bool:
    """Whether a machine of `platform` (`os/architecture`) runs any of the programs found; true where there are none."""
    machine = platform.split("/")[1]
    return not counts or not {machine, *_COMPATIBLE_ARCHITECTURES.get(machine, ())}.isdisjoint(counts)
