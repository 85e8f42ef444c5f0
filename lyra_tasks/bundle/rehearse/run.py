"""Run a rehearsal: follow the pages of the bundles on new engines, run the checks, remove everything."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.bundle.format.index import BundleStore
from lyra_tasks.bundle.format.layout import IMAGES_DIRECTORY, SIGNATURE_FILE
from lyra_tasks.bundle.format.signature import read_signing_key
from lyra_tasks.bundle.pack.plan import collect_pack_facts, plan_pack
from lyra_tasks.bundle.pack.run import write_pack
from lyra_tasks.bundle.rehearse import page
from lyra_tasks.bundle.rehearse.data import read_marks, write_marks
from lyra_tasks.bundle.rehearse.operator import Operator
from lyra_tasks.bundle.rehearse.plan import (
    RehearsalPlan,
    RehearsedBundle,
    answer,
    compute_start_timeout,
    remove_compose_variables,
    render_choices,
)
from lyra_tasks.bundle.verify import verify_bundle
from lyra_tasks.config.models import Test
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import connect_sandbox
from lyra_tasks.engine.objects.compose_services import (
    DeployedService,
    VolumeMount,
    list_compose_services,
    list_compose_volumes,
)
from lyra_tasks.engine.objects.containers import ContainerFile
from lyra_tasks.engine.objects.inventory import list_images
from lyra_tasks.errors import CheckFailedError, LyraError
from lyra_tasks.files import copy_directory, link_or_copy
from lyra_tasks.locks import file_lock
from lyra_tasks.processes import create_environment, run_captured
from lyra_tasks.records.evidence import CheckResult
from lyra_tasks.results.bundle import Rehearsal, RehearsedEngine

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

RunChecks = Callable[[Mapping[str, DeployedService], Sequence[Test]], Sequence[CheckResult]]

_BEFORE, _AFTER = ".lyra-rehearsal-before", ".lyra-rehearsal-after"
"""Files that are written before the backup and after the upgrade."""
_LOGS_TIMEOUT_S = 60.0


def run_rehearsal(plan: RehearsalPlan, work: Workspace, run_checks: RunChecks) -> Rehearsal:
    """Run the rehearsal on each engine, and remove it with everything on it in any case."""
    facts = plan.facts
    for rehearsed in facts.bundles:
        verify_bundle(rehearsed.bundle.directory)
    if facts.commit != facts.newer.bundle.manifest.source.commit:
        console.warn("The checks are those of the current commit, not those of the bundle's commit")
    state = work.paths.state / "rehearsal"
    engines: list[RehearsedEngine] = []
    with file_lock(work.paths.state / "rehearsal.lock", resource="the rehearsal of this checkout"):
        _remove_sandbox(state)  # of a killed rehearsal
        for suite in plan.suites:
            try:
                state.mkdir(parents=True)
                engines.append(_rehearse(plan, work, state, suite, run_checks))
            except LyraError as error:
                _record(plan, work, engines, error.message)
                raise
            finally:
                _remove_sandbox(state)
    _record(plan, work, engines, "")
    passed = all(engine.passed for engine in engines)
    older = facts.older.version if facts.older else None
    return Rehearsal(facts.newer.version, older, passed, tuple(engines))


def _record(plan: RehearsalPlan, work: Workspace, engines: Sequence[RehearsedEngine], problem: str) -> None:
    """Add the rehearsal to the journal; `problem` is the message of what ended it."""
    facts = plan.facts
    work.journal.append(
        work.run, "rehearsed", version=facts.newer.version, older=facts.older.version if facts.older else None,
        engines={engine.engine: engine.store for engine in engines}, problem=problem,
        passed=not problem and all(engine.passed for engine in engines),
        checks={check.title: check.outcome for engine in engines for check in engine.checks},
    )  # fmt: skip


def _remove_sandbox(state: Path) -> None:
    if state.exists():
        sandbox.require_clean_stop(sandbox.shut_down_sandbox(state, purge=True))
        shutil.rmtree(state)


def _rehearse(plan: RehearsalPlan, work: Workspace, state: Path, suite: str, run_checks: RunChecks) -> RehearsedEngine:
    """Run all steps on a new engine; it, the bundles and the secrets are below `state`."""
    facts = plan.facts
    node = sandbox.launch_sandbox(state, cache=work.paths.cache, suite=suite, memory=facts.memory, cpus=facts.cpus)
    console.info(f"Following {', '.join(bundle.version for bundle in facts.bundles)} on a throwaway engine of {suite}")
    rehearsal = _Rehearsal(plan, work, state, node, run_checks)
    try:
        checks = rehearsal.upgrade(facts.older) if facts.older else rehearsal.install(facts.newer)
    except CheckFailedError as error:
        raise CheckFailedError(
            error.message,
            hint=error.hint,
            details=(f"on the engine of {suite}", *error.details, *rehearsal.read_logs()),
        ) from error
    return RehearsedEngine(
        engine=rehearsal.engine.facts.version,
        store=rehearsal.engine.facts.store,
        services=tuple(sorted(rehearsal.list_services())),
        passed=bool(checks) and all(check.outcome == "passed" for check in checks),
        checks=tuple(checks),
        steps=tuple(rehearsal.operator.steps),
    )


class _Rehearsal:
    """A node with an engine, and what is carried to it; paths on it have blanks."""

    def __init__(
        self, plan: RehearsalPlan, work: Workspace, state: Path, node: sandbox.Sandbox, run_checks: RunChecks
    ) -> None:
        self._plan, self._work, self._run_checks, self._address = plan, work, run_checks, node.address
        self._place = state / "the node"
        self._place.mkdir()
        self._timeout = compute_start_timeout(plan)
        self._values = {"SECRETS": str(self._place / "etc"), "BACKUP": str(self._place / "backup")}
        self._environment = remove_compose_variables(plan, create_environment()) | node.environment()
        secret_values = [
            value for values in plan.service_values.values() for value in values.values() if len(value) >= 8
        ]
        self.operator = Operator(
            self._environment,
            answers=partial(answer, plan, node.address),
            secret_files=self._find_secret_file,
            values=self._values,
            secret_values=(*secret_values, *plan.secret_files.values()),
        )
        self.engine = connect_sandbox(node, is_own=False)

    def list_services(self) -> dict[str, DeployedService]:
        """Return the containers that are there, by service."""
        return list_compose_services(self.engine, self._plan.project)

    def install(self, rehearsed: RehearsedBundle) -> Sequence[CheckResult]:
        """Start the only bundle and run all checks."""
        self._start(self._carry(rehearsed), rehearsed)
        return self._check(self._plan.checks)

    def upgrade(self, older: RehearsedBundle) -> Sequence[CheckResult]:
        """Start the older bundle, upgrade with a pack, roll back, and look at the data each time."""
        plan, newer = self._plan, self._plan.facts.newer
        old = self._carry(older)
        self._start(old, older)
        checks = [*self._check(plan.writing_checks), *self._check(plan.reading_checks)]
        marks = write_marks(self.engine, self._list_volumes(), _BEFORE)

        new = self._pack(older)
        self._values |= {"OLD": str(old / "deploy"), "NEW": str(new / "deploy")}
        self._receive(new)
        self.operator.follow(new, page.PACK)
        self.operator.follow(new, page.UPGRADE, block=0)
        self.operator.configure(new, is_new=False)
        self._choose(new, newer)
        self.operator.follow(new, page.UPGRADE, block=1, timeout=self._timeout)
        self._identify(new, newer)
        volumes = self._list_volumes()
        self._require_marks(
            {name: mark for name, mark in marks.items() if name in volumes}, f"after the upgrade to {newer.version}"
        )
        write_marks(self.engine, volumes, _AFTER)
        checks += self._check(plan.checks)

        self.operator.follow(new, page.ROLL_BACK, timeout=self._timeout)
        self._values["OLDER"] = newer.bundle.manifest.images[0].references[0].rpartition(":")[2]
        self.operator.follow(new, page.MAKE_ROOM)
        self._require_room(newer, older)
        self._identify(old, older)
        self._require_marks(marks, f"after the roll back to {older.version}")
        if late := read_marks(self.engine, self._list_volumes(), _AFTER):
            raise CheckFailedError(f"Not restored from the backup: {', '.join(late)}")
        return [*checks, *self._check(plan.reading_checks)]

    def read_logs(self) -> list[str]:
        """Return the last lines of the services, if there are any."""
        command = ["docker", "compose", "--ansi=never", f"--project-name={self._plan.project}", "logs", "--tail=15"]
        with suppress(subprocess.TimeoutExpired):
            logs = run_captured(command, environment=self._environment, directory=self._place, timeout=_LOGS_TIMEOUT_S)
            return self.operator.redact(logs.stdout)
        return []

    def _start(self, directory: Path, rehearsed: RehearsedBundle) -> None:
        self._receive(directory)
        self.operator.configure(directory, is_new=True)
        self._choose(directory, rehearsed)
        self.operator.follow(directory, page.START, timeout=self._timeout)
        self._identify(directory, rehearsed)

    def _receive(self, directory: Path) -> None:
        if (directory / SIGNATURE_FILE).is_file():
            signers = self._place / "signers"
            signers.write_text(f"* {read_signing_key(directory)}\n")
            self._values["SIGNERS"] = str(signers)
        self.operator.follow(directory, page.TRUST)
        self.operator.follow(directory, page.LOAD)

    def _choose(self, directory: Path, rehearsed: RehearsedBundle) -> None:
        """Add values to `.env` that nobody has to set: where ports are published, and what tests set."""
        file = directory / "deploy" / ".env"
        text = file.read_text()
        with file.open("a") as stream:
            stream.write(render_choices(self._plan, rehearsed, self._address, text))

    def _identify(self, directory: Path, rehearsed: RehearsedBundle) -> None:
        """Follow the steps that show whether the right version is up."""
        self.operator.follow_until(directory, page.CHECK, self._timeout)
        output = self.operator.follow(directory, page.IDENTIFY)
        others = set(re.findall(r"sha256:[0-9a-f]{64}", output)) - _list_digests(rehearsed)
        if others:
            raise CheckFailedError(f"Running, but not of {rehearsed.version}: {', '.join(sorted(others))}")

    def _check(self, checks: Sequence[Test]) -> Sequence[CheckResult]:
        return self._run_checks(self.list_services(), checks) if checks else ()

    def _list_volumes(self) -> dict[str, VolumeMount]:
        return list_compose_volumes(self.engine, self._plan.project)

    def _require_marks(self, marks: Mapping[str, ContainerFile], when: str) -> None:
        present = read_marks(self.engine, self._list_volumes(), _BEFORE)
        if lost := [volume for volume, mark in marks.items() if present.get(volume) != mark]:
            raise CheckFailedError(
                f"Data lost {when}: {', '.join(lost)}",
                hint="The volumes lack a file that was written before, or it has another owner or mode",
            )

    def _require_room(self, removed: RehearsedBundle, kept: RehearsedBundle) -> None:
        """Require that the engine has no image of a version that another one does not have, too."""
        digests = _list_digests(removed) - _list_digests(kept)
        if names := [image.name for image in list_images(self.engine, {}) if image.id in digests]:
            raise CheckFailedError(f"Not removed to make room: {', '.join(names)}")

    def _carry(self, rehearsed: RehearsedBundle) -> Path:
        """Copy a bundle as to a medium; archives are hard-linked, since nothing changes them."""
        directory = rehearsed.bundle.directory
        copy_directory(directory, self._place / directory.name, _carry_file)
        return self._place / directory.name

    def _pack(self, older: RehearsedBundle) -> Path:
        store, version = BundleStore(self._work.bundles), self._plan.facts.newer.version
        facts = collect_pack_facts(store, version, to=str(self._place), since=older.version, split="")
        return write_pack(plan_pack(facts), self._work).directory

    def _find_secret_file(self, variable: str) -> Path:
        file = self._place / "typed" / variable
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_text(self._plan.secret_files.get(variable, ""))
        return file


def _list_digests(rehearsed: RehearsedBundle) -> set[str]:
    """Return the digests by which stores know the images of a bundle."""
    images = rehearsed.bundle.manifest.images
    return {digest for image in images for digest in (image.config_digest, image.manifest_digest)}


def _carry_file(source: Path, target: Path) -> None:
    (link_or_copy if source.parent.name == IMAGES_DIRECTORY else shutil.copy)(source, target)
