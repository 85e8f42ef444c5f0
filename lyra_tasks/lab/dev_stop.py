"""The end of a development lab: edits that exist only inside are told, logs are kept, everything is removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lyra_tasks.engine import objects
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LyraError
from lyra_tasks.lab.dev import mirrors_of
from lyra_tasks.lab.logs import save
from lyra_tasks.lab.sync import Edits, only_inside
from lyra_tasks.lab.takedown import remove_run
from lyra_tasks.records.dev import DevLab, DevStore


@dataclass(frozen=True)
class Ending:
    """A lab that is to be stopped, with the edits that would be lost, by service.

    `unseen` are services whose volumes could not be looked into, and why.
    """

    lab: DevLab
    edits: Mapping[str, Edits]
    unseen: Mapping[str, str]


def plan(work: Workspace) -> Ending | None:
    """Look through the development lab of this checkout; None if there is none on this engine.

    One on another engine is forgotten: the journal still knows what `clean` has to remove there.
    """
    store = DevStore(work.paths.state)
    lab = store.read()
    if lab is None:
        return None
    if lab.engine != work.engine.facts.id:
        store.forget()
        return None
    edits: dict[str, Edits] = {}
    unseen: dict[str, str] = {}
    for name, mirror in mirrors_of(work, lab).items():
        try:
            found = only_inside(mirror)
        except LyraError as error:
            unseen[name] = error.message
            continue
        if found:
            edits[name] = found
    return Ending(lab, edits, unseen)


def keep_logs(work: Workspace, ending: Ending) -> None:
    """End the lab's containers, and save what they printed into its run's folder, secrets blotted out."""
    objects.kill(work.engine, [service.id for service in ending.lab.services.values()])
    save(work, ending.lab)


def run(work: Workspace, ending: Ending) -> None:
    """End the lab, keep its logs, and remove the rest; ResidueError names what the engine would not give back."""
    keep_logs(work, ending)
    remove_run(work.engine, Owner(work.journal, ending.lab.run, work.paths.project_id))
    DevStore(work.paths.state).forget()
