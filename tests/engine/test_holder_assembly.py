"""The machine code in holder.py is what its assembly source assembles to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lyra_tasks.engine.objects import holder
from tests.packages import unpacked

SOURCES = Path(holder.__file__).with_name("assembly")
TOOLS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
EXIT = {
    "amd64": ".intel_syntax noprefix\nxor edi, edi\nmov eax, 60\nsyscall\n",
    "arm64": "mov x0, 0\nmov x8, 93\nsvc 0\n",
}


@pytest.fixture(scope="module")
def binutils(cache: Path) -> Path:
    """Assemblers from Debian packages, not installed."""
    names = [f"binutils-{tool.replace('_', '-')}" for tool in TOOLS.values()]
    return unpacked(cache, *names, "binutils-common", "libbinutils", "libctf-nobfd0", "libctf0", "libjansson4")


def assemble(binutils: Path, source: str, architecture: str, directory: Path) -> str:
    """Return the machine code of an assembly source in hex."""
    prefix = str(binutils / "usr" / "bin" / TOOLS[architecture])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(binutils / "usr" / "lib" / "x86_64-linux-gnu")}
    commands = (
        [f"{prefix}-as", "-o", str(directory / "code.o"), "-"],
        [f"{prefix}-objcopy", "-O", "binary", "-j", ".text", str(directory / "code.o"), str(directory / "code")],
    )
    for command in commands:
        subprocess.run(command, input=source, text=True, env=environment, check=True, capture_output=True)
    return (directory / "code").read_bytes().hex()


@pytest.mark.parametrize("architecture", TOOLS)
@pytest.mark.parametrize("path", [holder.HOLD_PATH, holder.REMOVE_PATH])
def test_holder_program_equals_its_assembly(binutils: Path, tmp_path: Path, path: str, architecture: str) -> None:
    source = (SOURCES / f"{path.lstrip('/')}.{architecture}.s").read_text()
    code = bytes.fromhex(holder._HOLDER_CODE[path, architecture]).hex()
    assert assemble(binutils, source, architecture, tmp_path) == code


@pytest.mark.parametrize("architecture", TOOLS)
def test_probe_equals_its_assembly(binutils: Path, tmp_path: Path, architecture: str) -> None:
    code = bytes.fromhex(holder._MACHINES[architecture].exit_code).hex()
    assert assemble(binutils, EXIT[architecture], architecture, tmp_path) == code
