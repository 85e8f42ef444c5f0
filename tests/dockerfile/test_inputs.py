"""Tests of invalid ignore files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.config.models import Image
from lyra_tasks.dockerfile.input_hashes import read_ignore_patterns, scan_image
from lyra_tasks.errors import ConfigurationError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# fine\n\xff\xfe\n", "Cannot read .dockerignore: not valid UTF-8"),
        (b"# fine\n\n*.log\n[\n", ".dockerignore:4: invalid pattern"),
    ],
)
def test_invalid_ignore_file_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dockerignore").write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        read_ignore_patterns(tmp_path, tmp_path / "Dockerfile")
    assert raised.value.message.startswith(message)
    assert raised.value.exit_code == 2
    assert raised.value.hint


def test_own_files_are_no_part_of_a_context(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . .\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / ".dockerignore").write_text("!*\n")
    for name in (".lyra.toml", ".lyra.lock.toml", "sub/.lyra.toml", "main.py", "sub/tasks.py"):
        (tmp_path / name).write_text("1\n")
    (tmp_path / "tasks.py").write_text('"""The tasks of lyra-tasks: `invoke --list` lists them."""\n')
    image = Image(context=".")
    before = scan_image(tmp_path, image)
    assert set(before.digests) == {"Dockerfile", ".dockerignore", "main.py", "sub/", "sub/tasks.py"}
    (tmp_path / ".lyra.toml").write_text("2\n")
    assert scan_image(tmp_path, image).digest == before.digest
    (tmp_path / "tasks.py").write_text("# of Celery\n")
    assert "tasks.py" in scan_image(tmp_path, image).digests, "the project's own"
