"""What is printed, where not every character can be."""

from __future__ import annotations

import io
import json
import sys

import pytest

from lyra_tasks import console

ODD = "caf\u00e9 \u2026 \udcff"  # a file's name may hold a byte that is no UTF-8


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "caf\u00e9 \u2026 \\udcff"),
        ("latin-1", "caf\u00e9 \\u2026 \\udcff"),
        ("ascii", "caf\\xe9 \\u2026 \\udcff"),
    ],
)
def test_what_a_terminal_cannot_show_is_escaped_and_a_document_stays_json(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str
) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    console.print(ODD)
    console.error(ODD, ODD)
    for stream, lines in ((out, [shown]), (err, [f"error: {shown}", f"hint: {shown}"])):
        assert isinstance(stream.buffer, io.BytesIO)
        assert stream.buffer.getvalue().decode(encoding).splitlines() == lines
        stream.buffer.truncate(0)
        stream.buffer.seek(0)
    console.print_json({"name": ODD})
    assert json.loads(out.buffer.getvalue().decode(encoding)) == {"name": ODD}
