"""Output on streams that cannot encode every character."""

from __future__ import annotations

import io
import json
import sys

import pytest

from lyra_tasks import console

ODD = "\u00e9t\u00e9 \u2026 \udcff"  # file names may contain bytes that are not UTF-8


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "\u00e9t\u00e9 \u2026 \\udcff"),
        ("latin-1", "\u00e9t\u00e9 \\u2026 \\udcff"),
        ("ascii", "\\xe9t\\xe9 \\u2026 \\udcff"),
    ],
)
def test_unencodable_output_is_escaped_and_json_stays_valid(
    monkeypatch: pytest.MonkeyPatch, encoding: str, expected: str
) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    console.print(ODD)
    console.error(ODD, ODD)
    for stream, lines in ((out, [expected]), (err, [f"error: {expected}", f"hint: {expected}"])):
        assert isinstance(stream.buffer, io.BytesIO)
        assert stream.buffer.getvalue().decode(encoding).splitlines() == lines
        stream.buffer.truncate(0)
        stream.buffer.seek(0)
    console.print_json({"name": ODD})
    assert json.loads(out.buffer.getvalue().decode(encoding)) == {"name": ODD}
