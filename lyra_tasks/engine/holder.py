"""The holder: a container that mounts every volume of a lab first and leaves last.

A tmpfs volume lives only while a container holds it. The holder's image is two programs of a few bytes, made here, so
that no image has to be fetched and none of the project's has to contain a `sleep` or an `rm`; and those of `probes`.
"""

from __future__ import annotations

import io
import struct
import tarfile
import threading
from typing import TYPE_CHECKING

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.objects import inspect_image
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.engine.probes import programs
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

HOLD, REMOVE = "/hold", "/remove"
_MACHINES = {"amd64": 62, "arm64": 183}
# By path and architecture. /hold is `for (;;) pause();`. /remove unlinks each of its arguments, or removes it if it is
# an empty folder. What is missing is gone, a folder that is not empty stays; for anything else it ends with 1.
_PROGRAMS = {
    # mov eax, 34 (pause); syscall; jmp back
    (HOLD, "amd64"): "b822000000 0f05 ebf7",
    # mov x0..x3, 0; mov x8, 73 (ppoll); svc 0; b back
    (HOLD, "arm64"): "000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 faffff17",
    # lea rbx,[rsp+16]; xor ebp,ebp; next: mov rdi,[rbx]; test rdi,rdi; je end
    # mov eax,87 (unlink); syscall; cmp eax,-EISDIR; jne seen; mov rdi,[rbx]; mov eax,84 (rmdir); syscall
    # cmp eax,-ENOTEMPTY; je on; seen: test eax,eax; je on; cmp eax,-ENOENT; je on; cmp eax,-ENOTDIR; je on
    # mov ebp,1; on: add rbx,8; jmp next; end: mov edi,ebp; mov eax,60 (exit); syscall
    (REMOVE, "amd64"): (
        "488d5c2410 31ed 488b3b 4885ff 7434"
        "b857000000 0f05 83f8eb 750f 488b3b b854000000 0f05"
        "83f8d9 7413 85c0 740f 83f8fe 740a 83f8ec 7405"
        "bd01000000 4883c308 ebc4 89ef b83c000000 0f05"
    ),
    # the same with x19 for rbx, x20 for ebp, and unlinkat (35) in place of unlink and rmdir
    (REMOVE, "arm64"): (
        "f3430091 140080d2 758640f8 d50200b4"
        "600c8092 e10315aa 020080d2 680480d2 010000d4 1f5400b1 01010054"
        "600c8092 e10315aa 024080d2 680480d2 010000d4 1f9c00b1 20feff54"
        "00feffb4 1f0800b1 c0fdff54 1f5000b1 80fdff54"
        "340080d2 eaffff17 e00314aa a80b80d2 010000d4"
    ),
}
_BASE = 0x400000
_VERSION = "3"
_IMPORTING = threading.Lock()


def program(architecture: str, path: str = HOLD) -> bytes:
    """The static ELF program that stands at `path` of the holder's image."""
    if architecture not in _MACHINES:
        raise PreconditionError(
            f"labs are not supported on {architecture} engines", hint=f"supported: {', '.join(_MACHINES)}"
        )
    machine, code = _MACHINES[architecture], bytes.fromhex(_PROGRAMS[path, architecture])
    start = 64 + 56
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 2, machine, 1, _BASE + start, 64, 0, 0, 64, 56, 1, 64, 0, 0,
    )  # fmt: skip
    total = start + len(code)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, total, total, 0x1000)
    return header + segment + code


def holder_image(engine: Engine, owner: Owner) -> str:
    """The id of the holder's image in the engine, imported on first use."""
    # labs that start at the same time must not import it twice: the first would be left without its name
    with _IMPORTING:
        return _imported(engine, owner, f"{owner.project_id}/holder:{_VERSION}")


def _imported(engine: Engine, owner: Owner, reference: str) -> str:
    from docker.errors import APIError

    if found := inspect_image(engine, reference):
        return str(found["Id"])
    owner.intend_images(engine, [reference], private=True)
    with engine_faults("importing the holder's image"):
        try:
            engine.api.import_image_from_data(_root(engine), repository=reference.split(":")[0], tag=_VERSION)
        except APIError:
            if inspect_image(engine, reference) is None:
                raise
            # another run of this checkout has imported it in the meantime
        identity = str(engine.api.inspect_image(reference)["Id"])
    owner.made_images(engine, {reference: identity})
    return identity


def _root(engine: Engine) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        architecture = engine.facts.platform.split("/")[1]
        contents = {path: program(architecture, path) for path in (HOLD, REMOVE)} | programs()
        for path, content in contents.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
