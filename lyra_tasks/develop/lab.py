"""create: a development lab that stays, brought to what the configuration says each time it is called."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from lyra_tasks.checks.group_runner import write_mounted_files
from lyra_tasks.config.services import profile_hash
from lyra_tasks.develop.plan import (
    LABEL_PLAN,
    DevLabPlan,
    ExistingContainer,
    ServiceChanges,
    diff_services,
    plan_dev_lab,
    plan_remaining_lab,
)
from lyra_tasks.develop.sync import SourceSync, UploadResult, find_container_edits, list_source_syncs, upload_changes
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.containers import read_container_state, read_container_user
from lyra_tasks.engine.objects.lifeline import hold_lifeline
from lyra_tasks.engine.objects.ownership import (
    CONTAINER,
    LABEL_RUN,
    LABEL_SERVICE,
    OwnedObject,
    Owner,
    list_owned_objects,
)
from lyra_tasks.engine.objects.removal import remove_objects
from lyra_tasks.engine.objects.volumes import resolve_user_ids, set_volume_owner
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError, PreconditionError
from lyra_tasks.lab.admission import Reservation, compute_lab_capacity, reserve_capacity
from lyra_tasks.lab.facts import collect_lab_facts as gather_facts
from lyra_tasks.lab.lab import Lab, RunningService, remove_run
from lyra_tasks.lab.service import exit_error
from lyra_tasks.locks import file_lock
from lyra_tasks.records.dev import DevLab, DevService, DevSource, DevStore
from lyra_tasks.records.evidence import LOGS_DIRECTORY
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.catalogue import EGRESS, READ_ONLY
from lyra_tasks.rules.deviations import enforce_rules
from lyra_tasks.rules.services import check_service_settings

_STABLE_AFTER_S = 0.5  # seconds; what ends at once has ended by then


@dataclass(frozen=True)
class CreatePlan:
    """A planned `create`: `work` is the workspace with the development profile, `have` what the engine holds of it."""

    work: Workspace
    plan: DevLabPlan
    changes: ServiceChanges
    containers: Mapping[str, ExistingContainer]
    objects: tuple[OwnedObject, ...]
    is_new: bool


@dataclass(frozen=True)
class CreateResult:
    """What a `create` did; `faults` are the services of the developer's own that ended at once."""

    work: Workspace
    lab: DevLab
    plan: DevLabPlan
    changes: ServiceChanges
    uploads: tuple[UploadResult, ...]
    failures: tuple[CheckFailedError, ...]
    seconds: float


def lock_dev_lab(work: Workspace) -> AbstractContextManager[int]:
    """Nobody else makes, changes or stops the development lab while the block runs; LockedError if somebody does."""
    return file_lock(work.paths.state / "dev.lock", resource="the development lab")


def plan_create(work: Workspace, records: Mapping[str, ImageRecord]) -> CreatePlan:
    """Plan what to do, so that the lab of the profile `work` stands; VerdictError for a rule without a reason."""
    previous_lab = DevStore(work.paths.state).read()
    if previous_lab is not None and previous_lab.engine != work.engine.facts.id:
        raise PreconditionError(
            "the development lab is on another engine", hint="choose that engine again, or forget the lab: `dev.stop`"
        )
    run = previous_lab.run if previous_lab is not None else work.run
    facts = gather_facts(work, records, run=run, files_directory=DevStore(work.paths.state).mounts_directory)
    for name, service in work.config.services.items():
        relaxed_rules = {READ_ONLY, EGRESS} if service.dev is not None else set()
        rule_checks = check_service_settings(name, service, facts.services[name].image_config)
        enforce_rules(
            work.config, [check for check in rule_checks if check.rule not in relaxed_rules], datetime.date.today()
        )
    plan = plan_dev_lab(work.config, facts)
    containers = _find_existing_containers(work, run)
    lab_objects = tuple(list_owned_objects(work.engine, work.journal.entries(), run=run))
    return CreatePlan(work, plan, diff_services(plan, containers), containers, lab_objects, is_new=not containers)


def create_dev_lab(create_plan: CreatePlan, *, yes: bool) -> CreateResult:
    """Carry out a `create`; one that fails while it makes a lab anew leaves nothing.

    PreconditionError if a service would go whose volume has edits that exist only inside, unless `yes`.
    """
    started = time.monotonic()
    work, plan, changes = create_plan.work, create_plan.plan, create_plan.changes
    engine, store = work.engine, DevStore(work.paths.state)
    owner = Owner(work.journal, plan.lab.run, work.paths.project_id)
    work.mark_active(work.run, plan.lab.run)
    if not yes:
        _refuse_losing_edits(create_plan, store)
    uploads: list[UploadResult] = []
    with (
        _admit_new_containers(create_plan) as release_admission,
        hold_lifeline(engine, owner, work.paths.state) if create_plan.is_new else nullcontext(),
    ):
        _remove_containers(create_plan, owner)
        lab = Lab(
            plan_remaining_lab(plan.lab, changes, {(item.kind, item.name) for item in create_plan.objects}),
            engine,
            owner,
            work.run_directory,
            holder=_find_running_holder(create_plan, owner),
        )
        (work.run_directory / LOGS_DIRECTORY).mkdir(exist_ok=True)
        write_mounted_files(lab.plan)

        def prepare() -> None:
            release_admission("")
            _upload_sources(create_plan, lab, store, uploads)

        try:
            lab.create_and_start(prepare)
            record = _build_record(create_plan, lab)
            _remove_unplanned(create_plan, owner)
            store.write(record)
        except BaseException:
            if create_plan.is_new:
                remove_run(engine, owner)
                store.delete()
            raise
    _wait_until_stable(lab.services.values())
    failures = [failure for service in lab.services.values() if (failure := _startup_failure(service))]
    seconds = round(time.monotonic() - started, 3)
    return CreateResult(work, record, plan, changes, tuple(uploads), tuple(failures), seconds)


def _wait_until_stable(services: Iterable[RunningService]) -> None:
    """Wait a moment where a service was started that nothing has said to be well."""
    if not all(_is_healthy(service) for service in services):
        time.sleep(_STABLE_AFTER_S)


def _is_healthy(service: RunningService) -> bool:
    """Whether its start was waited for, and a check told its end; a developer's own need not even work yet."""
    plan = service.planned
    reports_state = (
        plan.service.oneshot or plan.service.healthcheck or read_container_state(service.engine, service.id).health
    )
    return plan.must_be_ready and bool(reports_state)


def require_dev_lab(work: Workspace) -> DevLab:
    """The development lab of this checkout; PreconditionError if there is none."""
    lab = DevStore(work.paths.state).read()
    if lab is None:
        raise PreconditionError("there is no development lab", hint="run `create` first")
    if lab.engine != work.engine.facts.id:
        raise PreconditionError("the development lab is on another engine", hint="choose that engine again")
    return lab


def find_source_syncs(work: Workspace, lab: DevLab, services: Sequence[str] = ()) -> dict[str, SourceSync]:
    """The mirrors of the services `chosen` (default: all that have a source volume)."""
    syncs = list_source_syncs(
        lab, work.engine, DevStore(work.paths.state), work.root, work.root / work.config.promotion.directory
    )
    for name in services:
        if name not in syncs:
            raise PreconditionError(
                f"{name} has no source volume", hint=f"these have one: {', '.join(syncs) or 'none; write a dev table'}"
            )
    return {name: sync for name, sync in syncs.items() if not services or name in services}


def _find_existing_containers(work: Workspace, run: str) -> dict[str, ExistingContainer]:
    with translate_errors("looking for the development lab"):
        containers = work.engine.api.containers(all=True, filters={"label": f"{LABEL_RUN}={run}"})
    return {
        container["Labels"][LABEL_SERVICE]: ExistingContainer(
            container["Id"], container["State"] == "running", container["Labels"].get(LABEL_PLAN, "")
        )
        for container in containers
        if LABEL_SERVICE in container["Labels"]
    }


def _refuse_losing_edits(plan: CreatePlan, store: DevStore) -> None:
    previous_lab = store.read()
    if previous_lab is None or not plan.changes.remove:
        return
    syncs = find_source_syncs(plan.work, previous_lab)
    edited_services = [name for name in plan.changes.remove if name in syncs and find_container_edits(syncs[name])]
    if edited_services:
        raise PreconditionError(
            f"{', '.join(edited_services)} would go, with edits that exist only inside",
            hint="bring them out (`dev.sync --back PATH`), or pass --yes",
        )


def _admit_new_containers(plan: CreatePlan) -> AbstractContextManager[Callable[[str], None]]:
    """The containers that are to be replaced give back what they hold; those that do not run hold nothing yet."""
    work = plan.work
    leaving_ids = {plan.containers[name].id for name in (*plan.changes.replace, *plan.changes.remove)}
    leaving_ids |= {container.id for container in plan.containers.values() if not container.running}
    services = plan.plan.lab.services
    reservations = [
        Reservation(f"this lab: {name}", services[name].cpus, services[name].memory)
        for name in plan.changes.new_containers
    ]
    return reserve_capacity(work.engine, reservations, compute_lab_capacity(work), excluding=leaving_ids)


def _remove_containers(plan: CreatePlan, owner: Owner) -> None:
    leaving_ids = {plan.containers[name].id for name in (*plan.changes.replace, *plan.changes.remove)}
    _remove_objects(plan, owner, [item for item in plan.objects if item.kind == CONTAINER and item.id in leaving_ids])


def _find_running_holder(plan: CreatePlan, owner: Owner) -> str:
    """The holder if it is the one that is planned and runs; one that has ended is removed, to be made anew."""
    holders = [item for item in plan.objects if item.kind == CONTAINER and item.name == plan.plan.lab.holder]
    for holder in holders:
        if read_container_state(plan.work.engine, holder.id).running:
            return holder.id
    _remove_objects(plan, owner, holders)
    return ""


def _remove_unplanned(plan: CreatePlan, owner: Owner) -> None:
    """What stood and is no longer planned: other holders first, then the volumes and networks that nobody has."""
    lab = plan.plan.lab
    planned_names = {lab.holder, *lab.networks, *lab.volumes, *(service.container for service in lab.services.values())}
    _remove_objects(plan, owner, [item for item in plan.objects if item.name not in planned_names])
    for name in plan.changes.remove:
        DevStore(plan.work.paths.state).delete_uploads(name)


def _remove_objects(plan: CreatePlan, owner: Owner, items: Sequence[OwnedObject]) -> None:
    removed, failed = remove_objects(plan.work.engine, items)
    owner.record_removed(plan.work.engine, removed)
    if failed:
        item, reason = next(iter(failed.items()))
        raise PreconditionError(f"the {item.kind} {item.name} could not be removed: {reason}", hint="run `dev.stop`")


def _upload_sources(plan: CreatePlan, lab: Lab, store: DevStore, uploads: list[UploadResult]) -> None:
    """Carry the source into every volume; a new one is given to its service's user first."""
    record = _build_record(plan, lab)
    new_volumes = set(lab.plan.volumes)
    for name, sync in find_source_syncs(plan.work, record).items():
        if sync.source.volume in new_volumes:
            store.delete_uploads(name)
            set_volume_owner(sync.engine, sync.holder, sync.holder_path, sync.source.uid, sync.source.gid)
        uploads.append(upload_changes(sync))
    if not plan.is_new:
        store.write(record)


def _build_record(create_plan: CreatePlan, lab: Lab) -> DevLab:
    work, plan = create_plan.work, create_plan.plan
    ids = {name: container.id for name, container in create_plan.containers.items()} | {
        name: service.id for name, service in lab.services.items()
    }
    return DevLab(
        run=plan.lab.run,
        engine=work.engine.facts.id,
        config=profile_hash(work.config),
        holder=lab.holder,
        services={name: _build_service_record(create_plan, name, ids[name]) for name in plan.lab.services},
    )


def _build_service_record(plan: CreatePlan, name: str, identity: str) -> DevService:
    engine, planned_service = plan.work.engine, plan.plan.lab.services[name]
    published_ports = read_container_state(engine, identity).ports
    source = plan.plan.sources.get(name)
    uid, gid = (0, 0) if source is None else resolve_user_ids(engine, identity, read_container_user(engine, identity))
    return DevService(
        id=identity,
        ports={
            key: published_ports[port] for key, port in planned_service.service.ports.items() if port in published_ports
        },
        source=source and DevSource(volume=source.volume, path=source.path, context=source.context, uid=uid, gid=gid),
        is_developed=planned_service.service.dev is not None,
        secret_variables=[key for key, variable in planned_service.service.environment.items() if variable.secret],
    )


def _startup_failure(service: RunningService) -> CheckFailedError | None:
    state = read_container_state(service.engine, service.id)
    has_succeeded = service.planned.service.oneshot and state.exit_code == 0
    return None if state.running or has_succeeded else exit_error(service, state)
