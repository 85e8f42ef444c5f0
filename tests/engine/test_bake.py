"""Tests of escaping bake definitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lyra_tasks.engine.buildx.bake import bake_targets
from lyra_tasks.engine.buildx.contexts import escape_bake_definition
from lyra_tasks.engine.client.connect import Engine

VALUE = """${upper("a")} %{if true}b%{endif} $${c} $$${d} %%{e} ${ %{ $ % 100%"""
DOCKERFILE = """\
FROM scratch
ARG VALUE
COPY <<TEXT /value
$VALUE
TEXT
"""


def test_values_are_not_parsed_as_expressions(engine: Engine, tmp_path: Path) -> None:
    if engine.facts.release < (23, 0):
        pytest.skip("BuildKit of this engine does not support here-documents")
    directory = tmp_path / "a ${directory} of %{its} own"
    (directory / "context").mkdir(parents=True)
    target = {
        "context": str(directory / "context"),
        "dockerfile-inline": DOCKERFILE,
        "args": {"VALUE": VALUE},
        "output": [f"type=local,dest={directory}/out"],
    }
    definition = directory / "bake.json"
    definition.write_text(escape_bake_definition(json.dumps({"target": {"default": target}})))
    bake_targets(
        engine, definition, metadata=directory / "metadata.json", log=directory / "log", epoch=None, quiet=True
    )
    assert (directory / "out/value").read_text() == f"{VALUE}\n"
