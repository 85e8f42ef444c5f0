"""Check that images match the files, that the set was tested, and that its source is committed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.containers import UserIds
from lyra_tasks.config.platforms import image_from_key, image_platforms, list_variants, native_platform
from lyra_tasks.config.services import effective_user
from lyra_tasks.digests import file_sha256, json_sha256, sha256_hex
from lyra_tasks.dockerfile.context import format_names, list_changes
from lyra_tasks.dockerfile.input_hashes import ImageInputs, list_changed_inputs
from lyra_tasks.engine.bases.inputs import hash_current_inputs, hash_stage_inputs
from lyra_tasks.engine.objects.containers import inspect_image
from lyra_tasks.engine.objects.users import resolve_image_user
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import EngineUnavailableError, StaleError
from lyra_tasks.files import escape_name
from lyra_tasks.images.third_party.prepare import compare_third_party_images
from lyra_tasks.records.evidence import Evidence, SetKey
from lyra_tasks.records.images import ImageRecord, ImageStore
from lyra_tasks.records.recorded_test import INPUT_PREFIX, RecordedTest
from lyra_tasks.rules.catalogue import rule_set_version

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine


@dataclass(frozen=True)
class ImageState:
    """The record of an image; `problem` says how it differs from its files or the lock file, or is empty."""

    name: str
    record: ImageRecord | None
    problem: str
    is_own: bool = True


def compare_set(work: Workspace, engine: Engine | None) -> tuple[ImageState, ...]:
    """Compare all own images with their files, and all third-party images with the lock file."""
    own = compare_images(work.images, engine, hash_current_inputs(work, work.snapshots))
    return (*own, *compare_fetched_images(work, engine))


def compare_fetched_images(work: Workspace, engine: Engine | None) -> tuple[ImageState, ...]:
    """Compare all third-party images with configuration, lock file and, if given, the engine."""
    states = compare_third_party_images(work, engine)
    return tuple(ImageState(state.variant.key, state.record, state.problem, is_own=False) for state in states)


def compare_images(
    store: ImageStore, engine: Engine | None, inputs: Mapping[str, ImageInputs]
) -> tuple[ImageState, ...]:
    """Compare the builds in `inputs` (as they are now) with their records and, if given, with the engine."""
    states = []
    for key, current in inputs.items():
        record = store.read(image_from_key(key), current["platform"])
        if record is not None and record.origin is not None:
            record = None  # of a third-party image that had this name
        if record is None:
            problem = "has not been built"
        elif changes := list_changed_inputs(record.inputs, current):
            problem = f"was built before its {' and '.join(changes)} changed{_name_files(store, record, current)}"
        elif engine is not None and inspect_image(engine, record.image_id) is None:
            problem = "is no longer in the engine"
        else:
            problem = ""
        states.append(ImageState(key, record, problem))
    return tuple(states)


def _name_files(store: ImageStore, record: ImageRecord, current: ImageInputs) -> str:
    """Return the files of the context that changed since a build, for the end of a message."""
    if record.inputs["context"] == current["context"]:
        return ""
    files = store.read_files(record.inputs["context"])
    return f": {format_names(list_changes(files, current.source.digests))}" if files is not None else ""


def require_current_images(states: Sequence[ImageState], *, fetching_command: str = "test") -> dict[str, ImageRecord]:
    """Return the records by build; raise StaleError with every image that is not current, and the reason.

    The hint names `fetching_command` if only third-party images are not.
    """
    stale = [state for state in states if state.problem]
    if stale:
        command = "build" if any(state.is_own for state in stale) else fetching_command
        problems = "; ".join(f"{state.name} {state.problem}" for state in stale)
        raise StaleError(problems, hint=f"Run `{command}` first")
    return {state.name: state.record for state in states if state.record is not None}


def build_set_key(
    work: Workspace, records: Mapping[str, ImageRecord], parts: Mapping[str, str] | None = None
) -> SetKey:
    """Return the key of a tested set: digests of images and test doubles, and a hash of everything else that counts.

    `parts` are the hashes of the latter, by default those of the checkout as it is now.
    """
    digests = {key: record.config_digest for key, record in sorted(records.items())}
    doubles = {name for name in work.config.third_party_images if not work.config.services[name].is_promoted}
    return SetKey(
        images={key: digest for key, digest in digests.items() if image_from_key(key) not in doubles},
        test_doubles={key: digest for key, digest in digests.items() if image_from_key(key) in doubles},
        effective_hash=json_sha256(dict(parts if parts is not None else hash_effective_parts(work, records))),
    )


def read_input_files(work: Workspace) -> dict[str, bytes]:
    """Return the content of the configs of services and of the files of `structure` checks, by their paths."""
    paths = work.config.config_sources | {test.structure for test in work.config.tests if test.structure is not None}
    return {path: (work.root / path).read_bytes() for path in sorted(paths)}


def hash_effective_parts(
    work: Workspace, records: Mapping[str, ImageRecord], files: Mapping[str, bytes] | None = None
) -> dict[str, str]:
    """Return hashes, by name (`services.web.limits`, `tests.NAME`), of all that a test result depends on but images.

    Tests include the files that they name, and the inputs of their stages that are in no image. `files` are the content
    of `read_input_files`, if that has been read already.
    """
    config = work.config
    parts = {
        f"services.{name}.{key}": json_sha256(value)
        for name, service in config.services.items()
        for key, value in service.model_dump(mode="json", exclude={"dev"}).items()
    }
    parts |= {f"tests.{test.name}": json_sha256(test.model_dump(mode="json", by_alias=True)) for test in config.tests}
    parts["order of tests"] = json_sha256([test.name for test in config.tests])
    parts |= {f"proxima.{key}": json_sha256(value) for key, value in config.proxima.model_dump(mode="json").items()}
    parts["deviations"] = json_sha256([deviation.model_dump(mode="json") for deviation in config.deviations])
    parts["rules"] = rule_set_version()
    builds = [build for build in list_variants(config) if build.key in records]
    for test in config.tests:
        if test.stage is not None:
            test_builds = [build for build in builds if build.image == test.image]
            inputs = [hash_stage_inputs(work, build, test.stage, records[build.key].inputs) for build in test_builds]
            parts[f"stage of tests.{test.name}"] = json_sha256(inputs)
        elif test.pytest is not None:
            parts[f"files of tests.{test.name}"] = json_sha256(_hash_test_files(work.root, test.pytest))
    files = read_input_files(work) if files is None else files
    parts |= {f"{INPUT_PREFIX}{path}": sha256_hex(content) for path, content in files.items()}
    return dict(sorted(parts.items()))


def _hash_test_files(root: Path, path: str) -> dict[str, str]:
    """Return the SHA-256 of the files of a suite by path, with each `conftest.py` above them."""
    top = root / path
    files = [top] if top.is_file() else []
    for directory, subdirectories, names in os.walk(top):
        subdirectories[:] = [name for name in subdirectories if name != "__pycache__" and not name.startswith(".")]
        files += [Path(directory, name) for name in names]
    files += [parent / "conftest.py" for parent in top.parents if parent.is_relative_to(root)]
    existing = [file for file in files if file.is_file()]
    return {escape_name(file.relative_to(root).as_posix()): file_sha256(file) for file in sorted(existing)}


def list_failures(evidence: Evidence) -> tuple[str, ...]:
    """Return the failed checks and violated rules."""
    checks = [check.title for check in evidence.checks if check.outcome != "passed"]
    rules = [f"rule {result.rule} for {result.scope}" for result in evidence.rules if result.outcome == "failed"]
    return (*checks, *rules)


@dataclass(frozen=True)
class TestedSet:
    """A set that passed its test.

    `records` are by build; `image_configs` and `user_ids` by service, for the engine's own platform.
    """

    __test__ = False

    key: SetKey
    recorded: RecordedTest
    records: Mapping[str, ImageRecord]
    image_configs: Mapping[str, Mapping[str, Any]]
    user_ids: Mapping[str, UserIds | None]

    @property
    def evidence(self) -> Evidence:
        """Return the evidence of its newest test run."""
        return self.recorded.evidence


def require_tested_set(work: Workspace) -> TestedSet:
    """Return the tested set of the checkout.

    Raises StaleError if it is stale or untested, if its test failed, or if evidence and journal disagree.
    """
    config = work.config
    records = require_current_images(compare_set(work, work.engine))
    services = {name: _inspect_service_image(work, name, records) for name in config.services}
    key = build_set_key(work, records)
    recorded = _require_passed_test(work, key)
    image_configs = {name: image["Config"] for name, image in services.items()}
    user_ids = {
        name: resolve_image_user(
            work.engine,
            work.owner,
            services[name]["Id"],
            effective_user(service, image_configs[name]),
            work.paths.cache,
        )
        for name, service in config.services.items()
    }
    return TestedSet(key, recorded, records, image_configs, user_ids)


def require_passed_evidence(work: Workspace) -> Evidence:
    """Return the evidence of the tested set, as `require_tested_set` does.

    Where no engine may be started, files and records decide.
    """
    try:
        return require_tested_set(work).evidence
    except EngineUnavailableError:
        if work.starts_engine:
            raise
    return _require_passed_test(work, build_set_key(work, require_current_images(compare_set(work, None)))).evidence


def require_fresh_tests(work: Workspace, evidence: Evidence) -> None:
    """Raise StaleError for results of earlier runs, if the project does not accept them in a release."""
    if work.config.release.fresh_tests and (cached := evidence.cached_runs):
        raise StaleError(
            f"{len(cached)} result(s) of run {evidence.run} are from earlier runs", hint="Run `test --fresh`"
        )


def _require_passed_test(work: Workspace, key: SetKey) -> RecordedTest:
    recorded = work.evidence.find_recorded_test(key)
    if recorded is None:
        raise StaleError("These images, services and tests have not been tested", hint="Run `test` first")
    if not recorded.evidence.passed:
        failed = ", ".join(list_failures(recorded.evidence))
        raise StaleError(f"The last test run failed: {failed}", hint="Fix it, then run `build test`")
    return recorded


def _inspect_service_image(work: Workspace, name: str, records: Mapping[str, ImageRecord]) -> dict[str, Any]:
    image = work.config.image_name(name)
    platform = native_platform(image_platforms(work.config, image), work.engine.facts.platform)
    (variant,) = (variant for variant in list_variants(work.config, [image]) if variant.platform == platform)
    details = inspect_image(work.engine, records[variant.key].image_id)
    if details is None:
        raise StaleError(f"services.{name}: image {image} is no longer in the engine", hint="Run `build test` first")
    return details
