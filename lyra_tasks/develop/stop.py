"""The end of a development lab: edits that exist only inside are told, logs are kept, everything is removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lyra_tasks.develop.lab import find_source_syncs
from lyra_tasks.develop.sync import ContainerEdits, find_container_edits
from lyra_tasks.engine.objects.containers import kill_containers
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LyraError
from lyra_tasks.lab.lab import remove_run
from lyra_tasks.records.dev import DevLab, DevStore
from lyra_tasks.runs.logs import save_lab_logs


@dataclass(frozen=True)
class StopPlan:
    """A lab that is to be stopped, with the edits that would be lost, by service.

    `unseen` are services whose volumes could not be looked into, and why.
    """

    lab: DevLab
    edits: Mapping[str, ContainerEdits]
    unreadable: Mapping[str, str]


def plan_stop(work: Workspace) -> StopPlan | None:
    """Look through the development lab of this checkout; None if there is none on this engine.

    One on another engine is forgotten: the journal still knows what `clean` has to remove there.
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
    """End the lab's containers, and save what they printed into its run's folder, secrets blotted out."""
    kill_containers(work.engine, [service.id for service in plan.lab.services.values()])
    save_lab_logs(work, plan.lab)


def stop_dev_lab(work: Workspace, plan: StopPlan) -> None:
    """End the lab, keep its logs, and remove the rest; ResidueError names what the engine would not give back."""
    stop_and_save_logs(work, plan)
    remove_run(work.engine, Owner(work.journal, plan.lab.run, work.paths.project_id))
    DevStore(work.paths.state).delete()
