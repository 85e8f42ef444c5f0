"""Tests of the facts of a build."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import Project, repository
from tests.faults import refused

CONFIG = 'schema = 1\n[project]\nname = "small"\n[images.web]\ncontext = "web"\n'


def test_uninitialized_submodule_is_refused(tmp_path: Path) -> None:
    for directory in ("lib", "origin/web"):
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (tmp_path / "origin" / ".lyra.toml").write_text(CONFIG)
    lib = repository(tmp_path / "lib", tmp_path, tmp_path / "cache" / "lyra", None)
    origin = repository(tmp_path / "origin", tmp_path, tmp_path / "cache" / "lyra", None)
    origin.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(lib.root), "web/lib")
    origin.commit("with a submodule")
    clone = Project(tmp_path / "clone", origin.environment)
    subprocess.run(["git", "clone", "--quiet", origin.root, clone.root], check=True)
    hint = "git -C . submodule update --init web/lib"
    refused(clone.lyra("build"), 3, "Submodule web/lib is not initialized", "images.web", hint)
    assert clone.git("status", "--porcelain") == ""
    (clone.root / "web" / ".dockerignore").write_text("lib\n")
    assert "not initialized" not in clone.lyra("build").text, "excluded from the context"
    (clone.root / "web" / ".dockerignore").unlink()
    clone.git("-c", "protocol.file.allow=always", "submodule", "update", "--quiet", "--init")
    assert "not initialized" not in clone.lyra("build").text
