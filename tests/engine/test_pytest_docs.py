"""Every example of docs/pytest.md, as it stands there."""

from __future__ import annotations

import json
import re

from tests.conftest import REPOSITORY, Project

PAGE = (REPOSITORY / "docs" / "pytest.md").read_text()
BLOCK = re.compile(r"(?:^`(?P<file>[^`\n]+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def test_examples_of_page_run(tiny: Project) -> None:
    """Run both commands as one: the second repeats the tests, with a suite more."""
    commands = []
    for match in BLOCK.finditer(PAGE):
        if match["file"]:
            path = tiny.root / match["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write("\n" + match["text"])
        if match["language"] == "console":
            commands.append(match["text"])
    assert commands == ["$ lyra build test\n", "$ lyra test\n"]
    assert tiny.lyra("build").code == 0
    result = tiny.lyra("test", "--json")
    assert result.code == 0, result.text
    document = json.loads(result.out)
    suites = {check["name"]: check["message"] for check in document["checks"] if check["name"] in {"api", "smoke"}}
    assert suites == {"api": "3 passed", "smoke": "1 passed"}
