"""Programs of a few bytes that do nothing but end well, one for each architecture: whoever can run one can run others.

They stand in the holder's image. What a builder says of its platforms is no answer: that of a containerd image store
names its own alone, whatever the kernel runs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

FOLDER = "/runs"


@dataclass(frozen=True)
class _Machine:
    """How an ELF file of an architecture begins, and its `exit(0)`; `order` is as `struct` writes it."""

    number: int
    code: str
    bits: int = 64
    order: str = "<"
    flags: int = 0


_MACHINES = {
    "amd64": _Machine(62, "31ff b83c000000 0f05"),  # xor edi,edi; mov eax,60; syscall
    "arm64": _Machine(183, "000080d2 a80b80d2 010000d4"),  # mov x0,0; mov x8,93; svc 0
    "386": _Machine(3, "31db b801000000 cd80", bits=32),  # xor ebx,ebx; mov eax,1; int 0x80
    "arm": _Machine(40, "0000a0e3 0170a0e3 000000ef", bits=32, flags=0x5000000),  # mov r0,#0; mov r7,#1; svc 0
    "riscv64": _Machine(243, "13050000 9308d005 73000000"),  # li a0,0; li a7,93; ecall
    "ppc64le": _Machine(21, "01000038 00006038 02000044", flags=2),  # li r0,1; li r3,0; sc
    "s390x": _Machine(22, "a7290000 0a01", order=">"),  # lghi %r2,0; svc 1
}
_BASE = 0x400000


def probe(architecture: str) -> str:
    """Where the program of an architecture stands in the holder's image; empty where there is none."""
    return f"{FOLDER}/{architecture}" if architecture in _MACHINES else ""


def programs() -> dict[str, bytes]:
    """All of them, as static ELF files, by their path."""
    return {probe(name): _elf(machine) for name, machine in _MACHINES.items()}


def _elf(machine: _Machine) -> bytes:
    wide = machine.bits == 64
    head, entry = (64, 56) if wide else (52, 32)
    code = bytes.fromhex(machine.code)
    start, total = head + entry, head + entry + len(code)
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if machine.order == "<" else 2, 1))
    word = "Q" if wide else "I"
    header = struct.pack(
        f"{machine.order}16sHHI{word * 3}IHHHHHH",
        ident, 2, machine.number, 1, _BASE + start, head, 0, machine.flags, head, entry, 1, 0, 0, 0,
    )  # fmt: skip
    # type and flags (read, execute) stand at other places in a program header of 32 bits
    if wide:
        segment = struct.pack(f"{machine.order}IIQQQQQQ", 1, 5, 0, _BASE, _BASE, total, total, 0x1000)
    else:
        segment = struct.pack(f"{machine.order}IIIIIIII", 1, 0, _BASE, _BASE, total, total, 5, 0x1000)
    return header + segment + code
