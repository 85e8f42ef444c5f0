"""What nobody may see of a text."""

from __future__ import annotations

import pytest

from lyra_tasks.redaction import strip_url_credentials


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (
            "E: https://ada:pass@mirror/debian and https://bob:word@mirror/x",
            "E: https://mirror/debian and https://mirror/x",
        ),
        ("ssh://ada@builder:2222/run/docker.sock", "ssh://builder:2222/run/docker.sock"),
        ("https://ada:p@ss:w@rd@mirror/debian", "https://mirror/debian"),
        ("https://mirror/debian/pool/a@b.deb", "https://mirror/debian/pool/a@b.deb"),
        ("nothing to see", "nothing to see"),
    ],
)
def test_what_stands_before_the_host_of_a_url_is_left_out(text: str, seen: str) -> None:
    assert strip_url_credentials(text) == seen
