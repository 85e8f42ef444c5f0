"""Values of others, in every field that takes free text, change no document of a bundle beyond their own place."""

from __future__ import annotations

import datetime
import json
import re
import shlex
import subprocess
from typing import Any

import pytest

from lyra_tasks.bundle.content.environment import build_environment_document, render_env_example
from lyra_tasks.bundle.content.page import render_promotion_page
from lyra_tasks.bundle.content.receive_script import render_receive_script
from lyra_tasks.bundle.diff import BundleDiff, Change
from lyra_tasks.config.models import Deviation
from lyra_tasks.files import format_json
from lyra_tasks.records.evidence import CheckResult, Evidence, RuleResult, SetKey
from lyra_tasks.versions.changelog import Commit, VersionChanges, render_changelog_page
from tests.bundle.test_compose import services
from tests.bundle.test_receive_script import MANIFEST
from tests.console.test_hostile_text import is_safe

LINES = (
    "$(touch pwned)", "`id`", "'; rm -rf ~ #", "\"'\\", "a | b || c", "<script>alert(1)</script>",
    "\u202egnp.exe\u2066", "# heading", "- item", "> quote", "[x](javascript:1)", "&lt;b&gt;", "${HOME}\\n",
    "```", "<!--", "\u2028# line",
)  # fmt: skip
_COLUMN = re.compile(r"(?<!\\)\|")
ANSWERS = ("x\n\x1b[31m# heading\x1b[0m\n| a | b |", "\r\n\n<b>", "\x00\x9b2J", "a\n    hint: paste this")
"""Texts that no configuration may have, but images, engines and messages."""
VALUES = (*LINES, *ANSWERS)


def as_line(value: str) -> str:
    """Return the value, or what a configuration may have of it."""
    return value if value in LINES else "x"


def render_page(value: str) -> str:
    line = as_line(value)
    tables = {
        "web": {
            "image": "web",
            "environment": {"NAME": {"default": line, "description": line}},
            "secrets": {"key": {"path": "/run/key", "description": line}},
            "volumes": {"data": {"path": f"/data {line}".replace(":", "").rstrip("/"), "description": line}},
            "configs": {"conf": {"path": "/etc/conf", "source": f"conf{line}", "description": line}},
            "healthcheck": {"exec": line},
        }
    }
    manifest = MANIFEST.model_copy(
        update={"description": line, "source": MANIFEST.source.model_copy(update={"url": value})}
    )
    evidence = Evidence(
        set=SetKey(images={}, test_doubles={}, effective_hash="e"), passed=True, run="r1", started_at="now", seconds=1,
        engine={"version": value, "store": value, "platform": value},
        checks=[CheckResult(name=line, kind="http", service="web", outcome="passed")],
        rules=[], usage={},
    )  # fmt: skip
    rules = [
        RuleResult(rule="image.secrets", scope=value, outcome="warning", message=value),
        RuleResult(rule="test.platform", scope=f"images.{value}", outcome="warning", message=value),
    ]
    deviation = Deviation(rule="x", scope=line, reason=line, owner=line, expires=datetime.date(2026, 12, 1))
    diff = BundleDiff(value, "2", (Change("packages", value, value, value),))
    image = {"Env": [f"FROM_IMAGE={value}"], "User": value}
    return render_promotion_page(manifest, services(tables, image), evidence, rules, [deviation], line, diff)


def outline(markdown: str) -> list[str]:
    """Return what a reader of Markdown sees as structure: headings, fences, and the number of columns of tables."""
    lines = []
    for line in markdown.split("\n"):
        if line.startswith("|"):
            lines.append("|" * len(_COLUMN.findall(line)))
        else:
            marker = re.match(r"#+ |```\w*$|    |[-+>] ", line)
            lines.append(marker[0] if marker else "text" if line else "")
    return lines


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_page_keeps_its_structure(value: str) -> None:
    page = render_page(value)
    assert [line for line in page.split("\n") if not is_safe(line)] == []
    assert outline(page) == outline(render_page("harmless"))
    outside_of_code = re.sub(r"(`+).*?\1", "", re.sub(r"(?ms)^```$.*?^```$", "", page))
    assert not re.search(r"<\w|<!", outside_of_code)


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_environment_example_has_comments_and_assignments_only(value: str) -> None:
    line = as_line(value)
    table = {
        "image": "web",
        "environment": {
            "OPTIONAL": {"default": line, "description": line},
            "NEEDED": {"required": True, "description": line},
        },
        "secrets": {"key": {"path": "/run/key", "description": line}},
    }
    promoted = services({"web": table}, {"User": value, "Env": [f"IMAGE={value}"]})
    lines = render_env_example(promoted).split("\n")
    assert [text for text in lines if text and not re.match(r"#|[A-Z_]+=", text)] == []
    assert [text for text in lines if text[:1].isupper()] == ["NEEDED=", "WEB_KEY_FILE="]
    document = build_environment_document("shop", promoted)
    assert json.loads(format_json(document)) == document


@pytest.mark.parametrize("value", [value for value in VALUES if "\0" not in value], ids=ascii)
def test_receive_script_takes_values_as_they_are(value: str) -> None:
    proxima = MANIFEST.proxima.model_copy(update={"min_engine": value})
    script = render_receive_script(MANIFEST.model_copy(update={"proxima": proxima, "project": value}))
    _, _, rest = script.partition("# >>> written by promote\n")
    block, _, _ = rest.partition("# <<< written by promote\n")
    command = ["sh", "-c", f'{block}printf "%s\\n" "$project" "$min_engine" "$version"']
    result = subprocess.run(command, capture_output=True, check=True)
    assert result.stdout.decode() == f"{value}\n{value}\n{MANIFEST.version}\n"
    assert shlex.split(block, comments=False)[0] == f"project={value}"


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_changelog_keeps_its_structure(value: str) -> None:
    def render(text: str) -> str:
        commit = Commit("c" * 40, "feat", text, text, text)
        return render_changelog_page(VersionChanges("1.0.0", "2026-11-23", text, (commit,), ""), text)

    assert is_safe(render(value).replace("\n", ""))
    assert outline(render(value)) == outline(render("harmless"))


def test_every_value_is_tried_with_its_kind() -> None:
    tables: dict[str, Any] = {"web": {"image": "web", "environment": {"A": {"default": "x"}}}}
    for value in LINES:
        tables["web"]["environment"]["A"] = {"default": value, "description": value}
        assert services(tables)[0].config.environment["A"].default == value
