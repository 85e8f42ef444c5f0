"""What a bake definition says is what Buildx takes out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lyra_tasks.engine.buildx.bake import bake_targets, escape_bake_definition
from lyra_tasks.engine.client.connect import Engine

VALUE = """${upper("a")} %{if true}b%{endif} $${c} $$${d} %%{e} ${ %{ $ % 100%"""
DOCKERFILE = """\
FROM scratch
ARG VALUE
COPY <<TEXT /value
$VALUE
TEXT
"""


def test_no_value_is_taken_for_an_expression(engine: Engine, tmp_path: Path) -> None:
    if engine.facts.release < (23, 0):
        pytest.skip("the BuildKit of this engine knows no heredocs")
    place = tmp_path / "a ${place} of %{its} own"
    (place / "context").mkdir(parents=True)
    target = {
        "context": str(place / "context"),
        "dockerfile-inline": DOCKERFILE,
        "args": {"VALUE": VALUE},
        "output": [f"type=local,dest={place}/out"],
    }
    definition = place / "bake.json"
    definition.write_text(escape_bake_definition(json.dumps({"target": {"default": target}})))
    bake_targets(engine, definition, metadata=place / "metadata.json", log=place / "log", epoch=None, quiet=True)
    assert (place / "out/value").read_text() == f"{VALUE}\n"
