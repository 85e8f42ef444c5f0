"""What is not yet supported is refused on its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.config.load import load
from lyra_tasks.config.support import NOT_YET
from lyra_tasks.errors import ConfigurationError

Project = Callable[[str], Path]

FRAME = """\
schema = 1
project.name = "guestbook"
images.i.context = "web"
services.s.image = "i"
"""
SERVICE_TEST = '[[tests]]\nname = "t"\nservice = "s"\nlog = "x"\n'
USES = {
    "resources.cache": '[resources]\ncache = "6g"\n',
    "tests.*.group": SERVICE_TEST + 'group = "g"\n',
    "tests.*.retry": SERVICE_TEST + "retry = 1\n",
    "tests.*.run": '[[tests]]\nname = "t"\nrun = "x"\n',
    "tests.*.stage": '[[tests]]\nname = "t"\nimage = "i"\nstage = "x"\n',
    "tests.*.structure": '[[tests]]\nname = "t"\nimage = "i"\nstructure = "web/site.toml"\n',
}


@pytest.mark.parametrize("key", NOT_YET)
def test_a_key_of_a_later_feature_is_refused_on_its_line(project: Project, key: str) -> None:
    text = FRAME + USES[key]
    project(text)
    named = key.replace("images.*", "images.i").replace("services.*", "services.s").replace("tests.*", "tests[0]")
    line = len(text.splitlines())
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert caught.value.details == (f".lyra.toml:{line}: {named}: not yet supported; remove it",)


def test_writing_the_default_down_is_no_use_of_a_feature(project: Project) -> None:
    project(FRAME + '[release]\nbranches = ["main"]\n[resources]\ncache = "5120m"\n[builder]\nname = ""\n')
    assert load().config.release.branches == ["main"]
