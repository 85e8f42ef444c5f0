"""Variables that other tools leave in a shell: they lead no program that Lyra starts to another engine or builder."""

from __future__ import annotations

import json

from tests.conftest import Project
from tests.test_processes import STRAY


def test_stray_variables_change_nothing_and_are_named(tiny: Project) -> None:
    stray = {name: value for name, value in STRAY.items() if name != "COMPOSE_FILE"}  # which is read as by Compose
    tiny.environment.update(stray)
    outcome = tiny.lyra("build", "test")
    assert outcome.code == 0, outcome.text
    (finding,) = [item for item in json.loads(tiny.lyra("doctor", "--json").out) if item["subject"] == "environment"]
    assert finding["state"] == "warning"
    assert all(name in finding["message"] for name in stray if not name.startswith("DOCKER_")), finding
    assert "unset " in finding["fix"]
