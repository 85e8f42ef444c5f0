"""What is not yet supported is refused on its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.config.load import load
from lyra_tasks.errors import ConfigurationError

Project = Callable[[str], Path]

FRAME = """\
schema = 1
project.name = "guestbook"
images.i.context = "web"
services.s.image = "i"
"""


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("proxima.platforms", 'proxima.platforms = ["linux/amd64", "linux/arm64"]\n'),
        ("images.i.platforms", 'images.i.platforms = ["linux/arm64"]\n'),
    ],
)
def test_what_a_later_version_will_do_is_refused_on_its_line(project: Project, key: str, text: str) -> None:
    project(FRAME + text)
    with pytest.raises(ConfigurationError) as caught:
        load()
    (line,) = caught.value.details
    assert line.startswith(f".lyra.toml:5: {key}: ")
    assert "not yet supported" in line


def test_writing_the_default_down_is_no_use_of_a_feature(project: Project) -> None:
    project(FRAME + '[release]\nbranches = ["main"]\n[resources]\ncache = "5120m"\n[builder]\nname = ""\n')
    assert load().config.release.branches == ["main"]
