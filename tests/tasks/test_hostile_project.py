"""No command lets text of others act on a terminal: names of files, branches and tags, messages of commits, values."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Outcome
from tests.console.test_hostile_text import HOSTILE, is_safe
from tests.forked import run_forked

pytestmark = pytest.mark.slow

DIRECTION = "\u202e\u2066\u200b"
SPOOF = "\nhint: paste this"
COMMANDS = (
    ("init", "--dry-run"),
    ("status",),
    ("explain",),
    ("config.show",),
    ("config.show", "--toml"),
    ("release.version",),
    ("release.list",),
    ("release", "--dry-run"),
    ("bundle.list",),
    ("history",),
    ("rules.list",),
    ("doctor",),
    ("verify", "promotion/1.0.0"),
    ("verify", "promotion/1.1.0"),
    ("config.show", "hostile.toml"),
    ("diff", f"1.0.0{DIRECTION}", "1.1.0"),
    ("rules.explain", HOSTILE.replace("\0", "").encode("utf-8", "replace").decode()),
    ("logs", f"--run=r{DIRECTION}"),
)
CONFIG = f"""\
schema = 1

[project]
name = "shop"
description = "a `shop` <b>|"

[images.web]
context = "."

[services.web]
image = "web"

[services.web.environment]
GREETING = {{ default = "{DIRECTION}`x` <b>", description = "|{DIRECTION}" }}
"""
HOSTILE_CONFIG = CONFIG.replace("`shop`", "\\u001b[32m") + '"k\\u001b\\u202e" = { default = "\\u001b[8m" }\n'


def lyra(directory: Path, *arguments: str) -> Outcome:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LYRA_")}
    environment = {**inherited, "PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(directory / ".state")}
    environment["LYRA_CONFIG"] = str(directory / os.environ.get("CONFIG", ".lyra.toml"))
    return Outcome(*run_forked(arguments, directory, environment, 60))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=A\u202eda", "-c", "user.email=ada@example.org", "-c", "core.quotePath=false")
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)

    git("init", "--quiet", f"--initial-branch=main{DIRECTION}")
    (root / "Dockerfile").write_text("FROM scratch\nUSER 1:1\n")
    (root / "compose.yaml").write_text('services:\n  "w\\x1b[8m\\u202eb":\n    image: "x\\u202ey"\n')
    (root / ".lyra.toml").write_text(CONFIG)
    (root / "hostile.toml").write_text(HOSTILE_CONFIG)
    (root / ".dockerignore").write_text("*\n")
    (root / f"new{SPOOF}\x1b[31m{DIRECTION}").write_text("x")
    with open(f"{root}/".encode() + b"latin-\xe9", "wb") as file:
        file.write(b"x")
    git("add", "--all")
    git("commit", "--quiet", "--message", f"feat(w{DIRECTION}b)!: \x1b[32m`all` <b>is</b> well{DIRECTION}\n\n\x1b[2J")
    git("tag", f"v1.0.0{DIRECTION}")
    git("tag", "v1.0.0")
    (root / "Dockerfile").write_text("FROM scratch\nUSER 2:2\n")
    (root / f"untracked{SPOOF}{DIRECTION}").write_text("x")
    bundle = root / "promotion/1.0.0"
    bundle.mkdir(parents=True)
    manifest = json.dumps({f"key{SPOOF}\x1b[32m{DIRECTION}": 1}).encode()
    (bundle / "manifest.json").write_bytes(manifest)
    (bundle / "SHA256SUMS").write_text(f"{hashlib.sha256(manifest).hexdigest()}  manifest.json\n")
    (root / "promotion/1.1.0").mkdir()
    (root / "promotion/1.1.0/SHA256SUMS").write_text(f"{'0' * 64}  a\x1b[32m{DIRECTION}\n")
    return root


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_command_prints_nothing_hostile(
    monkeypatch: pytest.MonkeyPatch, project: Path, command: tuple[str, ...]
) -> None:
    command, config = (command[:1], command[1]) if command[-1].endswith(".toml") else (command, ".lyra.toml")
    monkeypatch.setenv("CONFIG", config)
    result = lyra(project, *command)
    output = result.text
    assert output and "Traceback" not in output
    assert [line for line in output.split("\n") if not is_safe(line.replace("\t", ""))] == []
    assert not [line for line in output.split("\n") if line.strip().startswith(SPOOF.strip())]
    if command[0] != "rules.explain":
        json_output = lyra(project, *command, "--json").out
        assert is_safe(json_output.replace("\n", ""))
