"""Where `promote --to` pushes to."""

from __future__ import annotations

import pytest

from lyra_tasks.bundle.push import Destination, destination
from lyra_tasks.errors import UsageError


@pytest.mark.parametrize(
    ("text", "host", "folder"),
    [
        ("oci://registry.example", "registry.example", ""),
        ("oci://registry.example/", "registry.example", ""),
        ("oci://127.0.0.1:5000/team", "127.0.0.1:5000", "team"),
        ("oci://[::1]:5000/team/a-b/c_d", "[::1]:5000", "team/a-b/c_d"),
    ],
)
def test_a_place_is_a_host_and_a_folder(text: str, host: str, folder: str) -> None:
    assert destination(text) == Destination(host, folder)


@pytest.mark.parametrize(
    "text",
    ["", "registry.example/team", "https://registry.example", "oci://", "oci:///team", "oci://h/Team", "oci://h//x",
     "oci://ada:secret@registry.example/team", "oci://h/team:tag", "oci://h/a/../b"],
)  # fmt: skip
def test_anything_else_is_a_usage_fault(text: str) -> None:
    with pytest.raises(UsageError, match="--to") as caught:
        destination(text)
    assert "secret" not in f"{caught.value} {caught.value.hint}"
