"""The holder: a container that mounts every volume of a lab first and leaves last.

A tmpfs volume lives only while a container holds it. The holder's image is one program of a few bytes, made here, so
that no image has to be fetched and none of the project's has to contain a `sleep`.
"""

from __future__ import annotations

import io
import struct
import tarfile
from typing import TYPE_CHECKING

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.objects import inspect_image
from lyra_tasks.engine.ownership import IMAGE, Owner
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

# ELF machine, and the code of `for (;;) pause();`
_PROGRAMS = {
    # mov eax, 34 (pause); syscall; jmp back
    "amd64": (62, bytes.fromhex("b822000000 0f05 ebf7".replace(" ", ""))),
    # mov x0..x3, 0; mov x8, 73 (ppoll); svc 0; b back
    "arm64": (183, bytes.fromhex("000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 faffff17".replace(" ", ""))),
}
_BASE = 0x400000


def program(architecture: str) -> bytes:
    """A static ELF program that sleeps until it is killed."""
    if architecture not in _PROGRAMS:
        raise PreconditionError(
            f"labs are not supported on {architecture} engines", hint=f"supported: {', '.join(_PROGRAMS)}"
        )
    machine, code = _PROGRAMS[architecture]
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
    reference = f"{owner.project_id}/holder:1"
    if found := inspect_image(engine, reference):
        return str(found["Id"])
    owner.journal.append(owner.run, "intent", kind=IMAGE, name=reference)
    with engine_faults("importing the holder's image"):
        engine.api.import_image_from_data(_root(engine), repository=reference.split(":")[0], tag="1")
        identity = str(engine.api.inspect_image(reference)["Id"])
    owner.made(IMAGE, {reference: identity})
    return identity


def _root(engine: Engine) -> bytes:
    content = program(engine.facts.platform.split("/")[1])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("hold")
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
