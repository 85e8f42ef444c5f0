"""Provide the image of the holder, and find out with it which platforms an engine can run.

The holder is the container that mounts all volumes of a lab as the first and exits as the last, since a tmpfs volume
lives only while a container mounts it. The image consists of static programs of a few bytes that are generated here, so
nothing has to be pulled and the project's images need neither `sleep` nor `rm`. It also contains a probe per
architecture that just exits: an engine that runs it can run that architecture.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.platforms import is_native_platform, platform_slug
from lyra_tasks.engine.client.errors import EXEC_FORMAT_ERROR, translate_errors
from lyra_tasks.engine.objects.containers import ContainerFile, create_containers, create_tar, inspect_image
from lyra_tasks.engine.objects.inventory import CONTAINER
from lyra_tasks.engine.objects.ownership import OwnedObject, Owner
from lyra_tasks.engine.objects.removal import remove_objects
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

HOLD_PATH, REMOVE_PATH = "/hold", "/remove"
_PROBE_DIRECTORY = "/runs"
_PROBE_TIMEOUT_S = 30
_IMAGE_VERSION = "3"
_IMPORT_LOCK = threading.Lock()
_LOAD_ADDRESS = 0x400000


@dataclass(frozen=True)
class _Machine:
    """The ELF properties of an architecture and its machine code for `exit(0)`; `order` is the prefix for `struct`."""

    number: int
    exit_code: str
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
# Machine code of assembly/*.s; tests/engine/test_holder_assembly.py assembles them.
_HOLDER_CODE = {
    (HOLD_PATH, "amd64"): "b822000000 0f05 ebf7",
    (HOLD_PATH, "arm64"): "000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 faffff17",
    (REMOVE_PATH, "amd64"): (
        "488d5c2410 31ed 488b3b 4885ff 7434 b857000000 0f05 83f8eb 750f 488b3b b854000000 0f05"
        "83f8d9 7413 85c0 740f 83f8fe 740a 83f8ec 7405 bd01000000 4883c308 ebc4 89ef b83c000000 0f05"
    ),
    (REMOVE_PATH, "arm64"): (
        "f3430091 140080d2 758640f8 d50200b4 600c8092 e10315aa 020080d2 680480d2 010000d4 1f5400b1 01010054"
        "600c8092 e10315aa 024080d2 680480d2 010000d4 1f9c00b1 20feff54 00feffb4 1f0800b1 c0fdff54 1f5000b1"
        "80fdff54 340080d2 eaffff17 e00314aa a80b80d2 010000d4"
    ),
}


def ensure_holder_image(engine: Engine, owner: Owner) -> str:
    """Return the id of the holder's image, which is imported on first use."""
    reference = f"{owner.project_id}/holder:{_IMAGE_VERSION}"
    # concurrent imports of the same reference would leave the first image untagged
    with _IMPORT_LOCK:
        if image := inspect_image(engine, reference):
            return str(image["Id"])
        return _import_image(engine, owner, reference)


def build_holder_program(architecture: str, path: str = HOLD_PATH) -> bytes:
    """Build the static ELF program at `path` of the holder's image."""
    if (path, architecture) not in _HOLDER_CODE:
        raise PreconditionError(
            f"Unsupported engine architecture {architecture!r}", hint="Use an amd64 or arm64 engine"
        )
    return _build_elf(_MACHINES[architecture], _HOLDER_CODE[path, architecture])


def list_runnable_platforms(engine: Engine, owner: Owner, platforms: Iterable[str]) -> tuple[str, ...]:
    """Return the platforms that the engine's containers can run, native ones first."""
    requested = list(dict.fromkeys(platforms))
    native = [platform for platform in requested if is_native_platform(platform, engine.facts.platform)]
    foreign = [platform for platform in requested if platform not in native and platform.startswith("linux/")]
    probes = {platform: name for platform in foreign if (name := platform.split("/")[1]) in _MACHINES}
    runnable = _probe_platforms(engine, owner, probes) if probes else set()
    return (*native, *(platform for platform in foreign if platform in runnable))


def _import_image(engine: Engine, owner: Owner, reference: str) -> str:
    from docker.errors import APIError

    owner.record_image_intents(engine, [reference], private=True)
    archive = _build_root_archive(engine.facts.platform.split("/")[1])
    with translate_errors("importing the holder's image"):
        try:
            engine.api.import_image_from_data(archive, repository=reference.split(":")[0], tag=_IMAGE_VERSION)
        except APIError:
            if inspect_image(engine, reference) is None:
                raise
            # another run of this checkout has imported it in the meantime
        image_id = str(engine.api.inspect_image(reference)["Id"])
    owner.record_created_images(engine, {reference: image_id})
    return image_id


def _build_root_archive(architecture: str) -> bytes:
    programs = {path: build_holder_program(architecture, path) for path in (HOLD_PATH, REMOVE_PATH)}
    programs |= {
        f"{_PROBE_DIRECTORY}/{name}": _build_elf(machine, machine.exit_code) for name, machine in _MACHINES.items()
    }
    return create_tar(ContainerFile(path.lstrip("/"), content, mode=0o755) for path, content in programs.items())


def _build_elf(machine: _Machine, hex_code: str) -> bytes:
    is_64_bit, order = machine.bits == 64, machine.order
    header_size, segment_header_size = (64, 56) if is_64_bit else (52, 32)
    code = bytes.fromhex(hex_code)
    entry, total = header_size + segment_header_size, header_size + segment_header_size + len(code)
    ident = b"\x7fELF" + bytes((2 if is_64_bit else 1, 1 if order == "<" else 2, 1))
    header = struct.pack(
        f"{order}16sHHI{'QQQ' if is_64_bit else 'III'}IHHHHHH",
        ident, 2, machine.number, 1, _LOAD_ADDRESS + entry, header_size, 0, machine.flags,
        header_size, segment_header_size, 1, 0, 0, 0,
    )  # fmt: skip
    # type and flags (read, execute) have other positions in a 32-bit program header
    if is_64_bit:
        segment = struct.pack(f"{order}IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, total, total, 0x1000)
    else:
        segment = struct.pack(f"{order}IIIIIIII", 1, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, total, total, 5, 0x1000)
    return header + segment + code


def _probe_platforms(engine: Engine, owner: Owner, probes: dict[str, str]) -> set[str]:
    image = ensure_holder_image(engine, owner)
    names = {platform: f"lyra-{owner.run}-runs-{platform_slug(platform)}" for platform in probes}
    payloads = {names[platform]: _probe_payload(image, architecture) for platform, architecture in probes.items()}
    ids = {name: container_id for name, (container_id, _) in create_containers(engine, owner, payloads).items()}
    try:
        return {platform for platform in probes if _runs_successfully(engine, ids[names[platform]])}
    finally:
        remove_objects(engine, owner, [OwnedObject(CONTAINER, name, id, owner.run) for name, id in ids.items()])


def _probe_payload(image: str, architecture: str) -> dict[str, Any]:
    return {
        "Image": image,
        "Entrypoint": [f"{_PROBE_DIRECTORY}/{architecture}"],
        "HostConfig": {
            "NetworkMode": "none", "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": True,
            "Memory": 32 * 1024**2, "MemorySwap": 32 * 1024**2, "PidsLimit": 16,
        },
    }  # fmt: skip


def _runs_successfully(engine: Engine, container: str) -> bool:
    from docker.errors import APIError

    with translate_errors("running a probe container"):
        try:
            engine.api.start(container)
        except APIError as error:
            if EXEC_FORMAT_ERROR in str(error.explanation):
                return False
            raise
        return int(engine.api.wait(container, timeout=_PROBE_TIMEOUT_S)["StatusCode"]) == 0
