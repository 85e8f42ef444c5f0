"""create: a development lab that stays, brought to what the configuration says each time it is called."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from lyra_tasks.config.development import profile_hash
from lyra_tasks.engine import objects, volumes
from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.guard import guarded
from lyra_tasks.engine.ownership import CONTAINER, LABEL_RUN, LABEL_SERVICE, Owned, Owner, owned
from lyra_tasks.engine.remove import remove
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import PreconditionError, VerdictError
from lyra_tasks.lab import dev_plan
from lyra_tasks.lab.admission import Share, admitted, capacity_of
from lyra_tasks.lab.dev_plan import LABEL_PLAN, DevPlan, Standing, Steps
from lyra_tasks.lab.facts import gather as gather_facts
from lyra_tasks.lab.ready import death
from lyra_tasks.lab.run import place_files
from lyra_tasks.lab.running import Lab, RunningService
from lyra_tasks.lab.sync import CarriedIn, Mirror, carry_in, mirrors, only_inside
from lyra_tasks.lab.takedown import remove_run
from lyra_tasks.records.dev import DevLab, DevService, DevSource, DevStore
from lyra_tasks.records.evidence import LOGS
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.catalogue import EGRESS, READ_ONLY
from lyra_tasks.rules.containers import service_looks
from lyra_tasks.rules.deviations import require_reasons
from lyra_tasks.run import locked

_SETTLING = 0.5  # seconds; what ends at once has ended by then


@dataclass(frozen=True)
class Creation:
    """A planned `create`: `work` is the workspace with the development profile, `have` what the engine holds of it."""

    work: Workspace
    plan: DevPlan
    steps: Steps
    standing: Mapping[str, Standing]
    have: tuple[Owned, ...]
    first: bool


@dataclass(frozen=True)
class Created:
    """What a `create` did; `faults` are the services of the developer's own that ended at once."""

    work: Workspace
    lab: DevLab
    plan: DevPlan
    steps: Steps
    carried: tuple[CarriedIn, ...]
    faults: tuple[VerdictError, ...]
    seconds: float


def alone(work: Workspace) -> AbstractContextManager[int]:
    """Nobody else makes, changes or stops the development lab while the block runs; LockedError if somebody does."""
    return locked(work.paths.state / "dev.lock", what="the development lab")


def gather(work: Workspace, records: Mapping[str, ImageRecord]) -> Creation:
    """Plan what to do, so that the lab of the profile `work` stands; VerdictError for a rule without a reason."""
    before = DevStore(work.paths.state).read()
    if before is not None and before.engine != work.engine.facts.id:
        raise PreconditionError(
            "the development lab is on another engine", hint="choose that engine again, or forget the lab: `dev.stop`"
        )
    run = before.run if before is not None else work.run
    facts = gather_facts(work, records, run=run, files_folder=DevStore(work.paths.state).mounts)
    for name, service in work.config.services.items():
        loosened = {READ_ONLY, EGRESS} if service.dev is not None else set()
        looks = service_looks(name, service, facts.services[name].image_config)
        require_reasons(work.config, [each for each in looks if each.rule not in loosened], datetime.date.today())
    plan = dev_plan.plan(work.config, facts)
    standing = _standing(work, run)
    have = tuple(owned(work.engine, work.journal.entries(), run=run))
    return Creation(work, plan, dev_plan.converge(plan, standing), standing, have, first=not standing)


def run(creation: Creation, *, yes: bool) -> Created:
    """Carry out a `create`; one that fails while it makes a lab anew leaves nothing.

    PreconditionError if a service would go whose volume has edits that exist only inside, unless `yes`.
    """
    began = time.monotonic()
    work, plan, steps = creation.work, creation.plan, creation.steps
    engine, store = work.engine, DevStore(work.paths.state)
    owner = Owner(work.journal, plan.lab.run, work.paths.project_id)
    work.mark_live(work.run, plan.lab.run)
    if not yes:
        _spare_edits(creation, store)
    carried: list[CarriedIn] = []
    with _admitted(creation) as made, guarded(engine, owner, work.paths.state) if creation.first else nullcontext():
        _remove_containers(creation, owner)
        lab = Lab(
            dev_plan.remaining(plan.lab, steps, {(each.kind, each.name) for each in creation.have}),
            engine,
            owner,
            work.folder,
            holder=_running_holder(creation, owner),
        )
        (work.folder / LOGS).mkdir(exist_ok=True)
        place_files(lab.plan)

        def prepare() -> None:
            made("")
            _fill(creation, lab, store, carried)

        try:
            lab.build_up(prepare)
            record = _record(creation, lab)
            _remove_surplus(creation, owner)
            store.write(record)
        except BaseException:
            if creation.first:
                remove_run(engine, owner)
                store.forget()
            raise
    _settle(lab.services.values())
    faults = [fault for service in lab.services.values() if (fault := _fault(service))]
    seconds = round(time.monotonic() - began, 3)
    return Created(work, record, plan, steps, tuple(carried), tuple(faults), seconds)


def _settle(services: Iterable[RunningService]) -> None:
    """Wait a moment where a service was started that nothing has said to be well."""
    if not all(_is_well(each) for each in services):
        time.sleep(_SETTLING)


def _is_well(service: RunningService) -> bool:
    """Whether its start was waited for, and a check told its end; a developer's own need not even work yet."""
    planned = service.planned
    told = planned.service.oneshot or planned.service.healthcheck or objects.state(service.engine, service.id).health
    return planned.attended and bool(told)


def lab_of(work: Workspace) -> DevLab:
    """The development lab of this checkout; PreconditionError if there is none."""
    lab = DevStore(work.paths.state).read()
    if lab is None:
        raise PreconditionError("there is no development lab", hint="run `create` first")
    if lab.engine != work.engine.facts.id:
        raise PreconditionError("the development lab is on another engine", hint="choose that engine again")
    return lab


def mirrors_of(work: Workspace, lab: DevLab, chosen: Sequence[str] = ()) -> dict[str, Mirror]:
    """The mirrors of the services `chosen` (default: all that have a source volume)."""
    found = mirrors(
        lab, work.engine, DevStore(work.paths.state), work.root, work.root / work.config.promotion.directory
    )
    for name in chosen:
        if name not in found:
            raise PreconditionError(
                f"{name} has no source volume", hint=f"these have one: {', '.join(found) or 'none; write a dev table'}"
            )
    return {name: mirror for name, mirror in found.items() if not chosen or name in chosen}


def _standing(work: Workspace, run: str) -> dict[str, Standing]:
    with engine_faults("looking for the development lab"):
        found = work.engine.api.containers(all=True, filters={"label": f"{LABEL_RUN}={run}"})
    return {
        each["Labels"][LABEL_SERVICE]: Standing(
            each["Id"], each["State"] == "running", each["Labels"].get(LABEL_PLAN, "")
        )
        for each in found
        if LABEL_SERVICE in each["Labels"]
    }


def _spare_edits(creation: Creation, store: DevStore) -> None:
    before = store.read()
    if before is None or not creation.steps.remove:
        return
    found = mirrors_of(creation.work, before)
    lost = [name for name in creation.steps.remove if name in found and only_inside(found[name])]
    if lost:
        raise PreconditionError(
            f"{', '.join(lost)} would go, with edits that exist only inside",
            hint="bring them out (`dev.sync --back PATH`), or pass --yes",
        )


def _admitted(creation: Creation) -> AbstractContextManager[Callable[[str], None]]:
    """The containers that are to be replaced give back what they hold; those that do not run hold nothing yet."""
    work = creation.work
    going = {creation.standing[name].id for name in (*creation.steps.replace, *creation.steps.remove)}
    going |= {each.id for each in creation.standing.values() if not each.running}
    planned = creation.plan.lab.services
    asked = [Share(f"this lab: {name}", planned[name].cpus, planned[name].memory) for name in creation.steps.started]
    return admitted(work.engine, asked, capacity_of(work), without=going)


def _remove_containers(creation: Creation, owner: Owner) -> None:
    going = {creation.standing[name].id for name in (*creation.steps.replace, *creation.steps.remove)}
    _remove(creation, owner, [each for each in creation.have if each.kind == CONTAINER and each.id in going])


def _running_holder(creation: Creation, owner: Owner) -> str:
    """The holder if it is the one that is planned and runs; one that has ended is removed, to be made anew."""
    found = [each for each in creation.have if each.kind == CONTAINER and each.name == creation.plan.lab.holder]
    for each in found:
        if objects.state(creation.work.engine, each.id).running:
            return each.id
    _remove(creation, owner, found)
    return ""


def _remove_surplus(creation: Creation, owner: Owner) -> None:
    """What stood and is no longer planned: other holders first, then the volumes and networks that nobody has."""
    lab = creation.plan.lab
    planned = {lab.holder, *lab.networks, *lab.volumes, *(each.container for each in lab.services.values())}
    _remove(creation, owner, [each for each in creation.have if each.name not in planned])
    for name in creation.steps.remove:
        DevStore(creation.work.paths.state).drop_carried(name)


def _remove(creation: Creation, owner: Owner, going: Sequence[Owned]) -> None:
    gone, left = remove(creation.work.engine, going)
    owner.removed(creation.work.engine, gone)
    if left:
        item, reason = next(iter(left.items()))
        raise PreconditionError(f"the {item.kind} {item.name} could not be removed: {reason}", hint="run `dev.stop`")


def _fill(creation: Creation, lab: Lab, store: DevStore, carried: list[CarriedIn]) -> None:
    """Carry the source into every volume; a new one is given to its service's user first."""
    record = _record(creation, lab)
    new = set(lab.plan.volumes)
    for name, mirror in mirrors_of(creation.work, record).items():
        if mirror.source.volume in new:
            store.drop_carried(name)
            volumes.own_folder(mirror.engine, mirror.holder, mirror.inside, mirror.source.uid, mirror.source.gid)
        carried.append(carry_in(mirror))
    if not creation.first:
        store.write(record)


def _record(creation: Creation, lab: Lab) -> DevLab:
    work, plan = creation.work, creation.plan
    ids = {name: each.id for name, each in creation.standing.items()} | {n: s.id for n, s in lab.services.items()}
    return DevLab(
        run=plan.lab.run,
        engine=work.engine.facts.id,
        config=profile_hash(work.config),
        holder=lab.holder,
        services={name: _service(creation, name, ids[name]) for name in plan.lab.services},
    )


def _service(creation: Creation, name: str, identity: str) -> DevService:
    engine, planned = creation.work.engine, creation.plan.lab.services[name]
    published = objects.state(engine, identity).ports
    source = creation.plan.sources.get(name)
    uid, gid = (0, 0) if source is None else volumes.user_ids(engine, identity, objects.user_of(engine, identity))
    return DevService(
        id=identity,
        ports={key: published[port] for key, port in planned.service.ports.items() if port in published},
        source=source and DevSource(volume=source.volume, path=source.path, context=source.context, uid=uid, gid=gid),
        developed=planned.service.dev is not None,
        secret_variables=[key for key, each in planned.service.environment.items() if each.secret],
    )


def _fault(service: RunningService) -> VerdictError | None:
    now = objects.state(service.engine, service.id)
    ended_well = service.planned.service.oneshot and now.exit_code == 0
    return None if now.running or ended_well else death(service, now)
