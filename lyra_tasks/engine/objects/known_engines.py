"""The engines that hold objects of a checkout by its journal, and why one of them cannot be asked now."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import read_engine_id
from lyra_tasks.engine.client.contexts import read_context_endpoint
from lyra_tasks.engine.client.endpoint import is_on_this_machine
from lyra_tasks.engine.objects.ownership import (
    ENGINE_EVENT,
    build_ownership_index,
    read_cleared_offset,
    read_object_entries,
)
from lyra_tasks.errors import EngineUnavailableError, LyraError
from lyra_tasks.records.checkouts import list_former_states, list_other_checkouts, merge_journals
from lyra_tasks.records.journal import Journal

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.paths import Paths

_ENGINE_ID = re.compile(rb'"engine":"([^"\\]{1,200})"')


@dataclass(frozen=True)
class UnaskedEngine:
    """An engine that holds `object_count` objects by the journal, the reason why it cannot be asked, and a fix."""

    id: str
    endpoint: str
    reason: str
    object_count: int
    fix: str
    private_state: Path | None = None

    def __str__(self) -> str:
        return (
            f"engine {self.id} ({self.endpoint}): {self.reason}; "
            f"{self.object_count} object(s) of this project stand in the journal for it"
        )


def find_unasked_engines(paths: Paths, engine: Engine | None) -> tuple[UnaskedEngine, ...]:
    """Return the engines that hold objects of a checkout by its journals, except the one that is connected."""
    journals = [*(checkout.journal for checkout in list_former_states(paths)), Journal(paths.journal)]
    counts = count_claims(journals, {engine.facts.id} if engine is not None else set())
    addresses = _read_addresses(journals, set(counts)) if counts else {}
    unasked = []
    for engine_id, count in counts.items():
        address, state = addresses.get(engine_id, ({}, paths.state))
        if not (address.get("private") and _has_no_data(state, engine_id)):
            unasked.append(_describe_unasked(engine_id, count, address, state, engine))
    return tuple(unasked)


def find_missing_checkouts(paths: Paths) -> tuple[str, ...]:
    """Return a line for each moved or deleted checkout of a project with this name that may have left something.

    Other projects may have the same name: nothing of them is removed without being asked for.
    """
    name, lines = paths.project_id.rpartition("-")[0], []
    for states in list_other_checkouts(paths):
        if not states[0].is_missing or not any(state.project_id.rpartition("-")[0] == name for state in states):
            continue
        count = sum(count_claims([state.journal for state in states], set()).values())
        engines = ["its private engine runs" for state in states if sandbox.find_sandbox(state.state) is not None]
        engines = engines or [
            "its private engine has data" for state in states if sandbox.has_sandbox_data(state.state)
        ]
        claims = [f"{count} object(s) stand in its journal"] if count else []
        if parts := [*claims, *engines[:1]]:
            lines.append(f"{states[0].root} was moved or deleted: {', '.join(parts)}; `clean --gone` removes them")
    return tuple(lines)


def count_claims(journals: Sequence[Journal], asked_ids: set[str]) -> dict[str, int]:
    """Return how many objects stand in journals for each engine except `asked_ids`; engines without any are left out.

    Objects of old journals, which name the engine of images only, are not counted.
    """
    counts = {}
    for engine_id in sorted(list_named_engines(journals) - asked_ids):
        # Removals of the objects of a former project name are recorded in the present journal.
        entries = (
            read_object_entries(journals[0], read_cleared_offset(journals[0], engine_id))
            if len(journals) == 1
            else merge_journals(journals)
        )
        index = build_ownership_index((entry for entry in entries if entry.data.get("engine") == engine_id), engine_id)
        if count := len(index.nonces) + len(index.images) + len(index.image_intents):
            counts[engine_id] = count
    return counts


def list_named_engines(journals: Sequence[Journal]) -> set[str]:
    """Return the ids of the engines that journals name."""
    texts = (journal.path.read_bytes() for journal in journals if journal.path.is_file())
    return {match.decode(errors="replace") for text in texts for match in _ENGINE_ID.findall(text)}


def _read_addresses(journals: Sequence[Journal], engine_ids: set[str]) -> dict[str, tuple[Mapping[str, Any], Path]]:
    """Return how engines were reached last, each with the state directory of the journal that says so."""
    addresses: dict[str, tuple[Mapping[str, Any], Path]] = {}
    for journal in reversed(journals):
        for _, entry in journal.find_backwards(ENGINE_EVENT):
            engine_id = str(entry.data.get("engine"))
            if engine_id in engine_ids:
                addresses.setdefault(engine_id, (entry.data, journal.path.parent))
            if len(addresses) == len(engine_ids):
                return addresses
    return addresses


def _has_no_data(state: Path, engine_id: str) -> bool:
    """Return whether the data of a private engine were deleted, and with them all its objects."""
    if sandbox.find_sandbox(state) is not None:
        return False
    ids = sandbox.read_engine_ids(state)
    return engine_id not in ids and len(ids) == sandbox.count_data_directories(state)


def _describe_unasked(
    engine_id: str, count: int, address: Mapping[str, Any], state: Path, engine: Engine | None
) -> UnaskedEngine:
    context, host = str(address.get("context") or ""), str(address.get("host") or "")
    if address.get("private"):
        reason, fix = _diagnose_host(host, engine_id, engine, "Run `engine.up`")
        return UnaskedEngine(engine_id, "this project's private engine", reason, count, fix, state)
    if context:
        fix = f'Set [engine] context = "{context}" in .lyra.toml, then run `clean`'
        return UnaskedEngine(engine_id, f"the Docker context {context}", _diagnose_context(context), count, fix)
    if not host:
        fix = "Run `clean` with the DOCKER_HOST or context of that engine"
        return UnaskedEngine(engine_id, "at an unknown address", "the journal does not say where it is", count, fix)
    reason, fix = _diagnose_host(host, engine_id, engine, f"Start the engine at {host}")
    return UnaskedEngine(engine_id, host, reason, count, fix)


def _diagnose_context(context: str) -> str:
    try:
        read_context_endpoint(context)
    except EngineUnavailableError as error:
        return error.message
    return "[engine] context names another engine"


def _diagnose_host(host: str, engine_id: str, engine: Engine | None, start: str) -> tuple[str, str]:
    """Return why the engine with this id is not asked at an address, and the fix; `start` starts it."""
    export = f"`export DOCKER_HOST={shlex.quote(host)}`"
    if not is_on_this_machine(host):
        return "it is on another machine", f"Run `export LYRA_ENGINE={shlex.quote(host)}`, then `clean`"
    try:
        present_id = read_engine_id(host)
    except LyraError as error:
        if error.message == "permission denied":
            return error.message, f"Run `clean` as a user who may use {host}: root, or a member of the socket's group"
        return error.message, f"{start}, run {export}, then `clean`"
    if present_id != engine_id:
        return f"another engine ({present_id}) answers there now", f"{start} with its former data, then run `clean`"
    reason = f"this command uses the engine at {engine.endpoint}" if engine is not None else "it was not asked"
    return reason, f"Run {export}, then `clean`"
