"""Create the development lab, or update it to the current configuration."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

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
from lyra_tasks.develop.ports import choose_ports, probe_ports
from lyra_tasks.develop.sync import find_container_edits, find_source_syncs, upload_changes
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.containers import read_container_state, read_container_user
from lyra_tasks.engine.objects.inventory import CONTAINER
from lyra_tasks.engine.objects.lifeline import hold_lifeline
from lyra_tasks.engine.objects.ownership import (
    LABEL_RUN,
    LABEL_SERVICE,
    OwnedObject,
    Owner,
    list_owned_objects,
    read_object_entries,
)
from lyra_tasks.engine.objects.removal import remove_objects, remove_run
from lyra_tasks.engine.objects.volumes import resolve_user_ids, set_volume_owner
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError, PreconditionError
from lyra_tasks.lab.admission import Reservation, compute_lab_capacity, reserve_capacity
from lyra_tasks.lab.facts import collect_lab_facts
from lyra_tasks.lab.lab import Lab
from lyra_tasks.lab.mounted_files import write_mounted_files
from lyra_tasks.lab.service import RunningService, exit_error
from lyra_tasks.locks import file_lock
from lyra_tasks.records.dev import DevLab, DevService, DevSource, DevStore
from lyra_tasks.records.evidence import LOGS_DIRECTORY
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.results.development import Upload
from lyra_tasks.rules.catalogue import EGRESS, READ_ONLY
from lyra_tasks.rules.deviations import enforce_rules
from lyra_tasks.rules.services import check_service_settings

_STABLE_AFTER_S = 0.5  # a command that fails at once has exited by then


@dataclass(frozen=True)
class CreatePlan:
    """A planned `create`.

    `work` is the workspace with the development profile, `objects` are the lab's existing objects in the engine.
    """

    work: Workspace
    plan: DevLabPlan
    changes: ServiceChanges
    containers: Mapping[str, ExistingContainer]
    objects: tuple[OwnedObject, ...]
    is_new: bool

    @property
    def leaving_ids(self) -> set[str]:
        """Ids of the containers to replace or remove."""
        return {self.containers[name].id for name in (*self.changes.replace, *self.changes.remove)}


@dataclass(frozen=True)
class CreateResult:
    """The result of a `create`; `failures` are the errors of services that exited right after their start."""

    work: Workspace
    lab: DevLab
    plan: DevLabPlan
    changes: ServiceChanges
    uploads: tuple[Upload, ...]
    failures: tuple[CheckFailedError, ...]
    seconds: float


def lock_dev_lab(work: Workspace) -> AbstractContextManager[int]:
    """Hold the development lab's lock; raise LockedError if another process holds it."""
    return file_lock(work.paths.state / "dev.lock", resource="the development environment")


def plan_create(work: Workspace, records: Mapping[str, ImageRecord]) -> CreatePlan:
    """Plan the changes that bring the development lab to the profile in `work`.

    Raises CheckFailedError if a rule is violated without a deviation.
    """
    store = DevStore(work.paths.state)
    previous_lab = store.read()
    if previous_lab is not None and previous_lab.engine != work.engine.facts.id:
        raise PreconditionError(
            "The development environment is on another engine",
            hint="Switch back to that engine, or run `dev.stop` to forget the environment",
        )
    run = previous_lab.run if previous_lab is not None else work.run
    facts = collect_lab_facts(work, records, run=run, files_directory=store.mounts_directory)
    for name, service in work.config.services.items():
        relaxed_rules = {READ_ONLY, EGRESS} if service.dev is not None else set()
        checks = check_service_settings(name, service, facts.services[name].image_config)
        applied_checks = [check for check in checks if check.rule not in relaxed_rules]
        enforce_rules(work.config, applied_checks, datetime.date.today())
    previous_ports = {name: service.ports for name, service in previous_lab.services.items()} if previous_lab else {}
    is_free = probe_ports(work.engine, run)
    ports = choose_ports(work.config.services, previous_ports, is_free, work.paths.project_id)
    plan = plan_dev_lab(work.config, facts, ports)
    with translate_errors("looking for the development lab"):
        listed = work.engine.api.containers(all=True, filters={"label": f"{LABEL_RUN}={run}"})
    containers = {
        container["Labels"][LABEL_SERVICE]: ExistingContainer(
            container["Id"], container["State"] == "running", container["Labels"].get(LABEL_PLAN, "")
        )
        for container in listed
        if LABEL_SERVICE in container["Labels"]
    }
    lab_objects = tuple(list_owned_objects(work.engine, read_object_entries(work.journal), run=run))
    return CreatePlan(work, plan, diff_services(plan, containers), containers, lab_objects, is_new=not containers)


def create_dev_lab(create_plan: CreatePlan, *, yes: bool) -> CreateResult:
    """Run a planned `create`; if a new lab fails to start, remove all of it.

    Unless `yes` is set, it refuses to remove a service with edits that exist only in its container.
    """
    started = time.monotonic()
    work, plan, changes = create_plan.work, create_plan.plan, create_plan.changes
    engine, store = work.engine, DevStore(work.paths.state)
    owner = Owner(work.journal, plan.lab.run, work.paths.project_id)
    work.mark_active(work.run, plan.lab.run)
    if not yes:
        _refuse_losing_edits(create_plan, store)
    uploads: list[Upload] = []
    with (
        _admit_new_containers(create_plan) as release_admission,
        hold_lifeline(engine, owner, work.paths.state) if create_plan.is_new else nullcontext(),
    ):
        leaving = [
            item for item in create_plan.objects if item.kind == CONTAINER and item.id in create_plan.leaving_ids
        ]
        _remove_objects(create_plan, owner, leaving)
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
    if not all(_has_known_state(service) for service in lab.services.values()):
        time.sleep(_STABLE_AFTER_S)
    failures = [failure for service in lab.services.values() if (failure := _startup_failure(service))]
    lab.leave()
    seconds = round(time.monotonic() - started, 3)
    return CreateResult(work, record, plan, changes, tuple(uploads), tuple(failures), seconds)


def _has_known_state(service: RunningService) -> bool:
    """Return whether the lab waited for the service and a check reported its state.

    Services in development are not waited for: they need not work yet.
    """
    plan = service.planned
    reports_state = (
        plan.service.oneshot or plan.service.healthcheck or read_container_state(service.engine, service.id).health
    )
    return plan.must_be_ready and bool(reports_state)


def require_dev_lab(work: Workspace) -> DevLab:
    """Return the development lab of this checkout; raise PreconditionError if it is not on this engine."""
    lab = DevStore(work.paths.state).read()
    if lab is None:
        raise PreconditionError("No development environment", hint="Run `create` first")
    if lab.engine != work.engine.facts.id:
        raise PreconditionError("The development environment is on another engine", hint="Switch back to that engine")
    return lab


def _refuse_losing_edits(plan: CreatePlan, store: DevStore) -> None:
    previous_lab = store.read()
    if previous_lab is None or not plan.changes.remove:
        return
    syncs = find_source_syncs(plan.work, previous_lab)
    edited_services = [name for name in plan.changes.remove if name in syncs and find_container_edits(syncs[name])]
    if edited_services:
        raise PreconditionError(
            f"Removing {', '.join(edited_services)} would lose edits that exist only in the container",
            hint="Copy them out with `dev.sync --back PATH`, or pass --yes",
        )


def _admit_new_containers(plan: CreatePlan) -> AbstractContextManager[Callable[[str], None]]:
    """Reserve capacity for the new containers; replaced, removed and stopped ones do not count."""
    work = plan.work
    leaving_ids = plan.leaving_ids | {container.id for container in plan.containers.values() if not container.running}
    services = plan.plan.lab.services
    reservations = [
        Reservation(f"this environment: {name}", services[name].cpus, services[name].memory)
        for name in plan.changes.new_containers
    ]
    return reserve_capacity(work.engine, reservations, compute_lab_capacity(work), excluding=leaving_ids)


def _find_running_holder(plan: CreatePlan, owner: Owner) -> str:
    """Return the id of the planned holder if it runs; a stopped one is removed, so that it is created again."""
    holders = [item for item in plan.objects if item.kind == CONTAINER and item.name == plan.plan.lab.holder]
    for holder in holders:
        if read_container_state(plan.work.engine, holder.id).running:
            return holder.id
    _remove_objects(plan, owner, holders)
    return ""


def _remove_unplanned(plan: CreatePlan, owner: Owner) -> None:
    """Remove existing objects that are no longer planned: old holders, volumes and networks."""
    lab = plan.plan.lab
    planned_names = {lab.holder, *lab.networks, *lab.volumes, *(service.container for service in lab.services.values())}
    _remove_objects(plan, owner, [item for item in plan.objects if item.name not in planned_names])
    for name in plan.changes.remove:
        DevStore(plan.work.paths.state).delete_uploads(name)


def _remove_objects(plan: CreatePlan, owner: Owner, items: Sequence[OwnedObject]) -> None:
    failed = remove_objects(plan.work.engine, owner, items).failed
    if failed:
        item, reason = next(iter(failed.items()))
        raise PreconditionError(f"Cannot remove {item.kind} {item.name}: {reason}", hint="Run `dev.stop`")


def _upload_sources(plan: CreatePlan, lab: Lab, store: DevStore, uploads: list[Upload]) -> None:
    """Upload the source into every volume; a new volume is first handed to its service's user."""
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
    work, plan, engine = create_plan.work, create_plan.plan, create_plan.work.engine
    services = {}
    for name, planned in plan.lab.services.items():
        id = lab.services[name].id if name in lab.services else create_plan.containers[name].id
        published_ports, ports = read_container_state(engine, id).ports, planned.service.ports
        source = plan.sources.get(name)
        uid, gid = resolve_user_ids(engine, id, read_container_user(engine, id)) if source is not None else (0, 0)
        services[name] = DevService(
            id=id,
            ports={key: published_ports[port] for key, port in ports.items() if port in published_ports},
            source=source and DevSource(**asdict(source), uid=uid, gid=gid),
            is_developed=planned.service.dev is not None,
            secret_variables=[key for key, variable in planned.service.environment.items() if variable.secret],
        )
    return DevLab(
        run=plan.lab.run,
        engine=engine.facts.id,
        config=profile_hash(work.config),
        holder=lab.holder,
        services=services,
    )


def _startup_failure(service: RunningService) -> CheckFailedError | None:
    state = read_container_state(service.engine, service.id)
    has_succeeded = service.planned.service.oneshot and state.exit_code == 0
    return None if state.running or has_succeeded else exit_error(service, state)
