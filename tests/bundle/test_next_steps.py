"""What `receive.sh` tells an operator to do next, in dash and busybox without an engine."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from pathlib import Path

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import write_checksums
from tests.bundle.test_receive_script import MANIFEST, call

pytestmark = pytest.mark.slow


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Create a directory with checksums in a path with spaces."""
    directory = tmp_path / "a directory's $name" / "1.2.0"
    for name in (layout.MANIFEST_FILE, layout.ENV_EXAMPLE_FILE, "deploy/configs/a b"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"# this is {name}\n")
    write_checksums(directory)
    return directory


def answer_of(shell: list[str], bundle: Path, line: str, running: Path | None = None) -> str:
    """Return what a line of shell prints for a bundle; `running` is the directory of the containers on the node."""
    (bundle.parent / "bin").mkdir(exist_ok=True)
    (bundle.parent / "bin/docker").write_text(f"#!/bin/sh\nprintf '%s\\n' {shlex.quote(str(running or ''))}\n")
    (bundle.parent / "bin/docker").chmod(0o755)
    begin = f"PATH={shlex.quote(str(bundle.parent / 'bin'))}:$PATH; bundle=$PWD"
    result = call(shell, f"{begin}; {line}", bundle)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


EXAMPLE = """# Written by lyra-tasks.

# web
# opens the door
TOKEN=
# how it works
#MODE=fast
# path of a file that user 65534 can read: turns the lock
WEB_KEY_FILE=
# braces
SHAPE='{a'
"""


@pytest.fixture
def configured(bundle: Path) -> Path:
    """Return the bundle with variables to set."""
    (bundle / layout.ENV_EXAMPLE_FILE).write_text(EXAMPLE)
    return bundle


@pytest.mark.parametrize(
    ("lines", "open_variables"),
    [
        ("", ["TOKEN", "WEB_KEY_FILE", "SHAPE"]),
        ("TOKEN=\nWEB_KEY_FILE=''\nSHAPE=\"\"\n", ["TOKEN", "WEB_KEY_FILE", "SHAPE"]),
        ("TOKEN= # later\n#WEB_KEY_FILE=/etc/hostname\nSHAPE=x\n", ["TOKEN", "WEB_KEY_FILE"]),
        ("  export TOKEN = 'x y'\r\nWEB_KEY_FILE=\"/etc/hostname\" # here\nSHAPE=x", []),
        ("TOKEN=\nTOKEN=x\nWEB_KEY_FILE=/no/such/file\nSHAPE=x\n", ["WEB_KEY_FILE"]),
        ("TOKEN=x\nTOKEN=\nWEB_KEY_FILE=configs/a b\nSHAPE=x\n", ["TOKEN"]),
        ("TOKEN=x\nWEB_KEY_FILE=a b\nSHAPE=x\n", ["WEB_KEY_FILE"]),
        ("TOKEN=x\nWEB_KEY_FILE=$HOME/key\nSHAPE=x\n", []),
    ],
)
def test_next_steps_name_what_the_env_file_leaves_open(
    shell: list[str], configured: Path, lines: str, open_variables: list[str]
) -> None:
    (configured / "deploy/.env").write_text(lines, newline="")
    output = answer_of(shell, configured, "print_next_steps")
    assert re.findall(r"(?m)^    (\w+): ", output) == open_variables
    assert ("every required value is set" in output) == (not open_variables)
    assert "cp " not in output, "an existing file is never overwritten"
    assert "x y" not in output and "/no/such/file" not in output, "values may be secrets"
    assert (configured / "deploy/.env").read_bytes() == lines.encode()


def test_next_steps_begin_with_the_example(shell: list[str], configured: Path) -> None:
    output = answer_of(shell, configured, "print_next_steps", configured / "deploy")
    assert "  cp .env.example .env && chmod 600 .env\n  set in .env:\n    TOKEN: opens the door\n" in output
    assert "MODE" not in output, "it has a default"
    assert "SHAPE" not in output, "it has a value in the example"
    assert "differs" not in output


def test_next_steps_of_an_upgrade_take_over_the_running_settings(shell: list[str], configured: Path) -> None:
    running = configured.parent / "it's 1.1.0" / "deploy"
    running.mkdir(parents=True)
    (running / ".env").write_text("TOKEN=sesame\nOLD=x\n")
    example = EXAMPLE.replace("SHAPE='{a'\n", "OLD=\n").replace("MODE=fast", "MODE=slow")
    (running / ".env.example").write_text(example)
    output = answer_of(shell, configured, "print_next_steps", running)
    (command,) = (line for line in output.splitlines() if line.startswith("  cp "))
    assert shlex.split(command) == ["cp", "-p", f"{running}/.env", ".env"]
    assert "  set in that .env:\n    WEB_KEY_FILE: path of a file" in output
    changes = output.partition("differs from .env.example in ")[2].splitlines()
    assert changes[0] == f"{running}:"
    assert [line.strip() for line in changes[1:4]] == [
        "MODE: was #MODE=slow, is #MODE=fast", "SHAPE: new", "OLD: not used any more",
    ]  # fmt: skip
    assert "sesame" not in output
    (configured / "deploy/.env").write_text("TOKEN=x\n")
    output = answer_of(shell, configured, "print_next_steps", running)
    assert "cp " not in output and "  set in your .env:\n    WEB_KEY_FILE: " in output


@pytest.mark.parametrize("parts", [["documents.tar.gz"], ["documents.tar.gz.001", "documents.tar.gz.002"]])
def test_documents_unpack_beside_the_pack(shell: list[str], bundle: Path, busybox: Path, parts: list[str]) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for name in (layout.CHECKSUMS_FILE, layout.SIGNATURE_FILE, layout.CHANGES_FILE):
            archive.add(bundle / "manifest.json", name)
    size = len(whole.getvalue()) // len(parts) + 1
    for number, name in enumerate(parts):
        (bundle / name).write_bytes(whole.getvalue()[number * size : (number + 1) * size])
    write_checksums(bundle)
    output = answer_of(shell, bundle, "print_next_steps")
    commands = output.partition("Evidence and changes")[2].splitlines()[1:]
    assert len(commands) == 2
    tools = "" if shell[0].endswith("dash") else f'tar() {{ {shlex.quote(str(busybox / "busybox"))} tar "$@"; }}\n'
    result = call(shell, tools + "\n".join(commands), bundle)
    assert (result.returncode, result.stderr) == (0, "")
    documents = bundle.parent / f"shop-{MANIFEST.version}-documents"
    assert (documents / layout.CHANGES_FILE).is_file()
    assert call(shell, "verify_files", bundle).returncode == 0, "nothing that is verified has changed"


def test_documents_in_the_pack_are_recognized(shell: list[str], bundle: Path) -> None:
    (bundle / layout.PACK_FILE).write_text("{}")
    result = call(shell, "verify_files", bundle)
    assert result.returncode == 6
    assert "SHA256SUMS is that of documents.tar.gz, which was unpacked into the pack" in result.stderr
    assert "changed" not in result.stderr and "extra" not in result.stderr
