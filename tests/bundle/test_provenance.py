"""The source of a provenance statement."""

from __future__ import annotations

import pytest

from lyra_tasks.bundle.promote.contents import _source


@pytest.mark.parametrize(
    ("remote", "uri"),
    [
        ("https://code.example.org/ada/shop.git", "git+https://code.example.org/ada/shop.git"),
        ("ssh://git@code.example.org:2222/ada/shop", "git+ssh://git@code.example.org:2222/ada/shop"),
        ("git@code.example.org:ada/shop.git", "git+ssh://git@code.example.org/ada/shop.git"),
        ("code.example.org:/srv/shop.git", "git+ssh://code.example.org/srv/shop.git"),
        ("code.example.org/ada/shop", None),
        ("/srv/git/shop:old", None),
        ("shop", None),
        ("", None),
    ],
)
def test_provenance_names_reachable_source_only(remote: str, uri: str | None) -> None:
    assert _source(remote).get("uri") == uri
