"""`release.*`: versions, told by git."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import line_flags, word


@word("version")
def version(c: Any, json: bool = False) -> None:
    """The version of the tree as it is, and why."""
    found = workspace().version
    if "--json" in line_flags():
        return console.document(asdict(found))
    return console.say(f"{found.semver}  ({found.reason})")
