"""Stop the development lab: report edits that would be lost, save the logs, remove everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lyra_tasks.develop.sync import find_container_edits, find_source_syncs
from lyra_tasks.engine.objects.containers import kill_containers
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.engine.objects.removal import remove_run
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LyraError
from lyra_tasks.lab.container_logs import save_lab_logs
from lyra_tasks.records.dev import DevLab, DevStore
from lyra_tasks.results.development import ContainerEdits


@dataclass(frozen=True)
class StopPlan:
    """A planned stop: the lab, edits that would be lost by service, and why a service's volume is unreadable."""

    lab: DevLab
    edits: Mapping[str, ContainerEdits]
    unreadable: Mapping[str, str]


def plan_stop(work: Workspace) -> StopPlan | None:
    """Plan the stop of this checkout's development lab, or return None if none is on this engine.

    The record of a lab on another engine is deleted: `clean` finds its objects by the journal.
    """
    store = DevStore(work.paths.state)
    lab = store.read()
    if lab is None:
        return None
    if lab.engine != work.engine.facts.id:
        store.delete()
        return None
    edits: dict[str, ContainerEdits] = {}
    unreadable: dict[str, str] = {}
    for name, sync in find_source_syncs(work, lab).items():
        try:
            service_edits = find_container_edits(sync)
        except LyraError as error:
            unreadable[name] = error.message
            continue
        if service_edits:
            edits[name] = service_edits
    return StopPlan(lab, edits, unreadable)


def stop_and_save_logs(work: Workspace, plan: StopPlan) -> None:
    """Stop the lab's containers and save their redacted logs in the run directory."""
    kill_containers(work.engine, [service.id for service in plan.lab.services.values()])
    save_lab_logs(work, plan.lab)


def stop_dev_lab(work: Workspace, plan: StopPlan) -> None:
    """Save the lab's logs and remove all of it."""
    stop_and_save_logs(work, plan)
    remove_run(work.engine, Owner(work.journal, plan.lab.run, work.paths.project_id))
    DevStore(work.paths.state).delete()
