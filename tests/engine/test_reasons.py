"""Why a check failed: what its service has logged since the check began."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Project
from tests.faults import refused

PAGE = """
[[tests]]
name = "the missing page"
service = "web"
http = "GET /missing.html"

[[tests]]
name = "another missing page"
service = "web"
http = "GET /other.html"

[[tests]]
name = "a command of this machine"
run = "curl --silent --fail $LYRA_WEB_HTTP_URL/third.html; exit 9"
"""


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    tiny = make_tiny()
    with (tiny.root / ".lyra.toml").open("a") as file:
        file.write(PAGE)
    tiny.replace("app/Dockerfile", '"-v", ', '"-v", "-v", ')  # logs what is asked for, too
    tiny.commit("checks")
    built = tiny.lyra("build")
    assert built.code == 0, built.text
    yield tiny
    tiny.clean()


def test_failed_check_shows_log_of_its_service(project: Project) -> None:
    result = project.lyra("test")
    refused(result, 5, "3 of 7 check(s) failed")
    run = sorted(project.root.glob(".lyra/runs/*/tests.json"))[-1].parent
    checks = {check["name"]: check for check in json.loads((run / "tests.json").read_text())["checks"]}
    for name, page, others in (
        ("the missing page", "/missing.html", ("/other.html", "GET /motd.txt")),
        ("another missing page", "/other.html", ("/missing.html",)),
        ("a command of this machine", "/third.html", ("/other.html",)),
    ):
        (detail,) = checks[name]["details"]
        text = "\n".join(detail["lines"])
        assert page in text and not any(other in text for other in others), text
        assert detail["file"] == "logs/web.log"
        assert page in (run / detail["file"]).read_text()
        assert page in result.out
    assert f"{run.relative_to(project.root)}/logs/web.log" in result.out
    assert "/missing.html" in (run / "tests.xml").read_text()
    assert "web logged since the check began" in (run / "report.html").read_text()
    assert checks["the page is there"]["details"] == []
    assert result.text.count("logged since") == 3, "a check that has passed shows no log"
