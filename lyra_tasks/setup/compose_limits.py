"""The limits of a compose service, as far as they can be in force."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lyra_tasks.config.checks import SMALLEST_MEMORY
from lyra_tasks.config.units import parse_size
from lyra_tasks.setup.compose_file import fill, table
from lyra_tasks.setup.draft import DraftService


def limits(draft: DraftService, raw: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The limits that can be in force; Compose takes 0 and -1 for none at all, which nothing may have here."""
    deployed = table(table(table(raw, "deploy"), "resources"), "limits")
    read: dict[str, tuple[object, Callable[[str], Any]]] = {
        "cpus": (raw.get("cpus", deployed.get("cpus")), _cores),
        "memory": (raw.get("mem_limit", deployed.get("memory")), _memory),
        "pids": (raw.get("pids_limit", deployed.get("pids")), _processes),
    }
    found: dict[str, Any] = {}
    for key, (written, reader) in read.items():
        if written is not None:
            try:
                found[key] = reader(fill(str(written), values).text)
            except ValueError:
                draft.todos.append(f"{written} is no limit of {key} that can be in force: a modest one stands for it")
    return found


def _cores(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise ValueError(text)
    return float(text)


def _memory(text: str) -> str:
    if parse_size(text) < SMALLEST_MEMORY:
        raise ValueError(text)
    return text.lower()


def _processes(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)
