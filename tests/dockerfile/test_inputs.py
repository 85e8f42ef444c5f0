"""What an image is made from, where a file that says so cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.dockerfile.input_hashes import read_ignore_patterns
from lyra_tasks.errors import ConfigurationError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"# fine\n\xff\xfe\n", ".dockerignore: not UTF-8"),
        (b"# fine\n\n*.log\n[\n", ".dockerignore:4: not a valid pattern"),
    ],
)
def test_an_ignore_file_that_cannot_be_used_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dockerignore").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_ignore_patterns(tmp_path, tmp_path / "Dockerfile")
    assert caught.value.message.startswith(said)
    assert caught.value.exit_code == 2
    assert caught.value.hint
