"""The holder: a container that mounts every volume of a lab first and leaves last.

A tmpfs volume lives only while a container holds it. The holder's image is two programs of a few bytes, made here, so
that no image has to be fetched and none of the project's has to contain a `sleep` or an `rm`; and those of `probes`.
"""

from __future__ import annotations

import io
import struct
import tarfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.containers import inspect_image
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

HOLD_PATH, REMOVE_PATH = "/hold", "/remove"
_ELF_MACHINES = {"amd64": 62, "arm64": 183}
# By path and architecture. /hold is `for (;;) pause();`. /remove unlinks each of its arguments, or removes it if it is
# an empty folder. What is missing is gone, a folder that is not empty stays; for anything else it ends with 1.
_MACHINE_CODE = {
    # mov eax, 34 (pause); syscall; jmp back
    (HOLD_PATH, "amd64"): "b822000000 0f05 ebf7",
    # mov x0..x3, 0; mov x8, 73 (ppoll); svc 0; b back
    (HOLD_PATH, "arm64"): "000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 faffff17",
    # lea rbx,[rsp+16]; xor ebp,ebp; next: mov rdi,[rbx]; test rdi,rdi; je end
    # mov eax,87 (unlink); syscall; cmp eax,-EISDIR; jne seen; mov rdi,[rbx]; mov eax,84 (rmdir); syscall
    # cmp eax,-ENOTEMPTY; je on; seen: test eax,eax; je on; cmp eax,-ENOENT; je on; cmp eax,-ENOTDIR; je on
    # mov ebp,1; on: add rbx,8; jmp next; end: mov edi,ebp; mov eax,60 (exit); syscall
    (REMOVE_PATH, "amd64"): (
        "488d5c2410 31ed 488b3b 4885ff 7434"
        "b857000000 0f05 83f8eb 750f 488b3b b854000000 0f05"
        "83f8d9 7413 85c0 740f 83f8fe 740a 83f8ec 7405"
        "bd01000000 4883c308 ebc4 89ef b83c000000 0f05"
    ),
    # the same with x19 for rbx, x20 for ebp, and unlinkat (35) in place of unlink and rmdir
    (REMOVE_PATH, "arm64"): (
        "f3430091 140080d2 758640f8 d50200b4"
        "600c8092 e10315aa 020080d2 680480d2 010000d4 1f5400b1 01010054"
        "600c8092 e10315aa 024080d2 680480d2 010000d4 1f9c00b1 20feff54"
        "00feffb4 1f0800b1 c0fdff54 1f5000b1 80fdff54"
        "340080d2 eaffff17 e00314aa a80b80d2 010000d4"
    ),
}
_LOAD_ADDRESS = 0x400000
_IMAGE_VERSION = "3"
_IMPORT_LOCK = threading.Lock()


def build_holder_program(architecture: str, path: str = HOLD_PATH) -> bytes:
    """The static ELF program that stands at `path` of the holder's image."""
    if architecture not in _ELF_MACHINES:
        raise PreconditionError(
            f"labs are not supported on {architecture} engines", hint=f"supported: {', '.join(_ELF_MACHINES)}"
        )
    machine, code = _ELF_MACHINES[architecture], bytes.fromhex(_MACHINE_CODE[path, architecture])
    start = 64 + 56
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 2, machine, 1, _LOAD_ADDRESS + start, 64, 0, 0, 64, 56, 1, 64, 0, 0,
    )  # fmt: skip
    total = start + len(code)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, total, total, 0x1000)
    return header + segment + code


def ensure_holder_image(engine: Engine, owner: Owner) -> str:
    """The id of the holder's image in the engine, imported on first use."""
    # labs that start at the same time must not import it twice: the first would be left without its name
    with _IMPORT_LOCK:
        return _import_image(engine, owner, f"{owner.project_id}/holder:{_IMAGE_VERSION}")


def _import_image(engine: Engine, owner: Owner, reference: str) -> str:
    from docker.errors import APIError

    if image := inspect_image(engine, reference):
        return str(image["Id"])
    owner.record_image_intents(engine, [reference], private=True)
    with translate_errors("importing the holder's image"):
        try:
            engine.api.import_image_from_data(
                _root_archive(engine), repository=reference.split(":")[0], tag=_IMAGE_VERSION
            )
        except APIError:
            if inspect_image(engine, reference) is None:
                raise
            # another run of this checkout has imported it in the meantime
        image_id = str(engine.api.inspect_image(reference)["Id"])
    owner.record_created_images(engine, {reference: image_id})
    return image_id


def _root_archive(engine: Engine) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        architecture = engine.facts.platform.split("/")[1]
        contents = {
            path: build_holder_program(architecture, path) for path in (HOLD_PATH, REMOVE_PATH)
        } | build_probe_programs()
        for path, content in contents.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


_PROBE_DIRECTORY = "/runs"


@dataclass(frozen=True)
class _ProbeMachine:
    """How an ELF file of an architecture begins, and its `exit(0)`; `order` is as `struct` writes it."""

    number: int
    code: str
    bits: int = 64
    order: str = "<"
    flags: int = 0


_PROBE_MACHINES = {
    "amd64": _ProbeMachine(62, "31ff b83c000000 0f05"),  # xor edi,edi; mov eax,60; syscall
    "arm64": _ProbeMachine(183, "000080d2 a80b80d2 010000d4"),  # mov x0,0; mov x8,93; svc 0
    "386": _ProbeMachine(3, "31db b801000000 cd80", bits=32),  # xor ebx,ebx; mov eax,1; int 0x80
    "arm": _ProbeMachine(40, "0000a0e3 0170a0e3 000000ef", bits=32, flags=0x5000000),  # mov r0,#0; mov r7,#1; svc 0
    "riscv64": _ProbeMachine(243, "13050000 9308d005 73000000"),  # li a0,0; li a7,93; ecall
    "ppc64le": _ProbeMachine(21, "01000038 00006038 02000044", flags=2),  # li r0,1; li r3,0; sc
    "s390x": _ProbeMachine(22, "a7290000 0a01", order=">"),  # lghi %r2,0; svc 1
}
_PROBE_LOAD_ADDRESS = 0x400000


def probe_path(architecture: str) -> str:
    """Where the program of an architecture stands in the holder's image; empty where there is none."""
    return f"{_PROBE_DIRECTORY}/{architecture}" if architecture in _PROBE_MACHINES else ""


def build_probe_programs() -> dict[str, bytes]:
    """All of them, as static ELF files, by their path."""
    return {probe_path(name): _build_elf(machine) for name, machine in _PROBE_MACHINES.items()}


def _build_elf(machine: _ProbeMachine) -> bytes:
    is_64_bit = machine.bits == 64
    header_size, segment_header_size = (64, 56) if is_64_bit else (52, 32)
    code = bytes.fromhex(machine.code)
    start, total = header_size + segment_header_size, header_size + segment_header_size + len(code)
    ident = b"\x7fELF" + bytes((2 if is_64_bit else 1, 1 if machine.order == "<" else 2, 1))
    address_format = "Q" if is_64_bit else "I"
    header = struct.pack(
        f"{machine.order}16sHHI{address_format * 3}IHHHHHH",
        ident, 2, machine.number, 1, _PROBE_LOAD_ADDRESS + start, header_size, 0, machine.flags, header_size, segment_header_size, 1, 0, 0, 0,
    )  # fmt: skip
    # type and flags (read, execute) stand at other places in a program header of 32 bits
    if is_64_bit:
        segment = struct.pack(
            f"{machine.order}IIQQQQQQ", 1, 5, 0, _PROBE_LOAD_ADDRESS, _PROBE_LOAD_ADDRESS, total, total, 0x1000
        )
    else:
        segment = struct.pack(
            f"{machine.order}IIIIIIII", 1, 0, _PROBE_LOAD_ADDRESS, _PROBE_LOAD_ADDRESS, total, total, 5, 0x1000
        )
    return header + segment + code
