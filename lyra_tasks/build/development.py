"""Building the images of a development lab, apart from those that are tested and promoted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lyra_tasks import console
from lyra_tasks.build import facts, plan, run
from lyra_tasks.config.platforms import variants_by_key
from lyra_tasks.engine.inputs import current_inputs
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.images import ImageRecord, ImageStore
from lyra_tasks.rules.freshness import image_states


def build(work: Workspace) -> dict[str, ImageRecord]:
    """Build what is not current of the images of the profile `work`; the records of all of them, by image name.

    They are called `PROJECT/IMAGE:dev-CHECKOUT`, so that two checkouts do not take them from each other, and their
    records lie apart: a development image is never evidence.
    """
    store = ImageStore(DevStore(work.paths.state).images)
    known = variants_by_key(work.config)
    if not work.config.images:
        return {}
    engine = work.engine
    states = image_states(store, engine, _without_commit(current_inputs(work)))
    stale = [known[state.name] for state in states if state.problem]
    for state in states:
        console.note(f"image {state.name}: {state.problem or 'unchanged'}")
    if stale:
        found = facts.gather(work, stale)
        # a commit is no reason for another image, and so for another container
        found = replace(found, image_tag=_tag(work), commit="", epoch=0, inputs=_without_commit(found.inputs))
        run.run(plan.plan(work.config, found, stale), engine=engine, owner=work.owner, store=store, folder=work.folder)
    records = {each.image: store.read(each.image, each.platform) for each in known.values()}
    return {name: record for name, record in records.items() if record is not None}


def _tag(work: Workspace) -> str:
    return f"dev-{work.paths.project_id.rpartition('-')[2]}"


def _without_commit(inputs: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {name: {kind: each for kind, each in kinds.items() if kind != "commit"} for name, kinds in inputs.items()}
