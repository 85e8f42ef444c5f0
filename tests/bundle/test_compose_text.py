"""Texts in the Compose file mean the same to readers of YAML 1.1, of YAML 1.2, and to Compose itself."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_tasks.bundle.content.compose import render_compose_file
from lyra_tasks.bundle.content.environment import render_env_example
from lyra_tasks.engine.sandbox import Sandbox
from tests.bundle.test_compose import services

pytestmark = pytest.mark.slow

AMBIGUOUS = (
    "1e3", "08", ".5e3", "12e5", "0o7", "0x1F", "0b1", "1_000", "1:30", "190:20:30", "+1", "-1", "1.", ".5", ".", "-",
    "yes", "No", "on", "OFF", "y", "N", "true", "False", "null", "NULL", "~", "", ".inf", "-.INF", ".NaN", "=", "<<",
    "2001-01-01", "2001-12-14t21:59:43.10-05:00", " lead", "trail ", "a: b", "a:", ":a", "a #b", "#a", "a\tb", "- a",
    "? a", "!tag", "&anchor", "*alias", "@at", "`tick", "%dir", "|", ">", "{a}", "[a]", "a,b", "'", '"', "\\", "\\n",
    "---", "...", "$", "$$", "$X", "${X}", "${X:-y}", "\ufeff", "\ufeffa", "\xa0", "\u2028", "\u2029", "caf\u00e9",
    "\u2603", "\U0001f600", "0777", "1__0", "infinity", "nan", "x" * 200, "word " * 40,
)  # fmt: skip
CHARACTERS = "019aeExoyn_.:-+~#'\"\\$<>=!&*?|%@`,[]{} \t\ufeff\xa0\u2028\u00e9\U0001f600"
TEXTS = st.sampled_from(AMBIGUOUS) | st.text(CHARACTERS, max_size=12)
ARGUMENTS = st.lists(TEXTS, min_size=1, max_size=6)


def read_with_compose(box: Sandbox, directory: Path, text: str) -> dict[str, Any]:
    """Return the services of a Compose file as `docker compose config` reads them, with `$` unescaped."""
    (directory / "compose.yaml").write_text(text)
    command = [str(box.docker), "compose", "config", "--format", "json"]
    environment = os.environ | box.environment()
    result = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stderr}\n{text}"
    definitions: dict[str, Any] = json.loads(result.stdout.replace("$$", "$"))["services"]
    return definitions


def generate_tables(number: int) -> dict[str, dict[str, Any]]:
    """Return so many services with generated texts, by name; Compose reads all of them at once."""
    tables: dict[str, dict[str, Any]] = {}

    @settings(max_examples=number, database=None, deadline=None, derandomize=True)
    @given(command=ARGUMENTS, values=st.lists(TEXTS, min_size=1, max_size=4), words=TEXTS)
    def add_service(command: list[str], values: list[str], words: str) -> None:
        name = f"s{len(tables)}"
        defaults = {f"{name.upper()}_V{index}": {"default": value} for index, value in enumerate(values)}
        tables[name] = {
            "image": "web",
            "environment": {**defaults, f"{name.upper()}_NEEDED": {"required": True, "description": words}},
            "entrypoint": command,
            "command": command,
            "healthcheck": {"exec": [words or "x", *command]},
            "working_dir": f"/{words}",
        }

    add_service()
    return tables


def test_compose_reads_every_text_unchanged(box: Sandbox, tmp_path: Path) -> None:
    tables = generate_tables(150)
    assert len(tables) > 100
    shop = services(tables)
    text = render_compose_file("shop", shop, {})
    (tmp_path / ".env").write_text(render_env_example(shop).replace("_NEEDED=\n", "_NEEDED=1\n"))
    definitions = read_with_compose(box, tmp_path, text)
    for name, table in tables.items():
        definition = definitions[name]
        assert (definition["command"], definition["entrypoint"]) == (table["command"], table["entrypoint"])
        assert definition["healthcheck"]["test"] == ["CMD", *table["healthcheck"]["exec"]]
        assert definition["working_dir"] == table["working_dir"]
        environment = definition["environment"]
        assert environment.pop(f"{name.upper()}_NEEDED") == "1"
        defaults = {key: value["default"] for key, value in table["environment"].items() if "default" in value}
        assert environment == defaults


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_ambiguous_text_is_quoted(text: str) -> None:
    table = {"image": "web", "command": ["x", text], "environment": {"A": {"default": text}}}
    rendered = render_compose_file("shop", services({"web": table}), {})
    definition = yaml.safe_load(rendered)["services"]["web"]
    assert definition["command"] == ["x", text.replace("$", "$$")]
    assert rendered.isascii()
    index = rendered.split("\n").index("    - x")
    assert rendered.split("\n")[index + 1].startswith(("    - '", '    - "')) or text.strip("xword ") == ""
