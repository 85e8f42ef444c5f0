"""Tests of invalid ignore files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.dockerfile.input_hashes import read_ignore_patterns
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
