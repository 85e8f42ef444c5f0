"""Is what was built still what the files say, and was that set tested?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.models import Service
from lyra_tasks.config.platforms import image_from_key, image_platforms, list_variants, native_platform
from lyra_tasks.dockerfile.input_hashes import list_changed_inputs
from lyra_tasks.engine.bases.inputs import hash_current_inputs, hash_stage_inputs
from lyra_tasks.engine.objects.containers import inspect_image
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import StaleError
from lyra_tasks.records.evidence import Evidence, EvidenceStore, RuleResult, SetKey
from lyra_tasks.records.images import ImageRecord, ImageStore
from lyra_tasks.records.record import canonical_json
from lyra_tasks.rules.catalogue import SOURCE_COMMITTED, TESTS_FRESH, TESTS_PASSED, rule_set_version
from lyra_tasks.versions.git import GitFacts

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.workspace import Workspace


@dataclass(frozen=True)
class ImageState:
    """The record of a build, by what it is called, against its files: `problem` is empty for a current one."""

    name: str
    record: ImageRecord | None
    problem: str


def compare_images(
    store: ImageStore, engine: Engine | None, inputs: Mapping[str, Mapping[str, str]]
) -> tuple[ImageState, ...]:
    """The state of every build in `inputs` (its current input hashes) on this engine; without one, by its files."""
    states = []
    for key, current in inputs.items():
        record = store.read(image_from_key(key), current["platform"])
        if record is None:
            problem = "has not been built"
        elif changes := list_changed_inputs(record.inputs, current):
            problem = f"was built before its {_join_names(changes)} changed"
        elif engine is not None and inspect_image(engine, record.image_id) is None:
            problem = "is no longer in the engine"
        else:
            problem = ""
        states.append(ImageState(key, record, problem))
    return tuple(states)


def require_current_images(states: Sequence[ImageState]) -> dict[str, ImageRecord]:
    """The records by what a build is called; StaleError naming every image that is not current and why."""
    stale = tuple(f"{state.name} {state.problem}" for state in states if state.problem)
    if stale:
        raise StaleError("; ".join(stale), hint="run `build` first")
    return {state.name: state.record for state in states if state.record is not None}


def build_set_key(work: Workspace, records: Mapping[str, ImageRecord], externals: Mapping[str, str]) -> SetKey:
    """The set that a test run is about: image digests, doubles, and the effective services, tests and configs."""
    return SetKey(
        images={key: record.config_digest for key, record in sorted(records.items())},
        test_doubles=dict(sorted(externals.items())),
        effective_hash=_hash_value(hash_effective_parts(work, records)),
    )


def hash_effective_parts(work: Workspace, records: Mapping[str, ImageRecord]) -> dict[str, str]:
    """Everything but images that a verdict depends on, as hashes by name: `services.web.limits`, `tests.NAME`.

    Tests are what they are made of, too: files that they name, and what stages are built from that no image shows.
    """
    config, root = work.config, work.root
    parts = {
        f"services.{name}.{key}": _hash_value(value)
        for name, service in config.services.items()
        for key, value in service.model_dump(mode="json", exclude={"dev"}).items()
    }
    parts |= {f"tests.{test.name}": _hash_value(test.model_dump(mode="json", by_alias=True)) for test in config.tests}
    parts["order of tests"] = _hash_value([test.name for test in config.tests])
    parts |= {f"proxima.{key}": _hash_value(value) for key, value in config.proxima.model_dump(mode="json").items()}
    parts["deviations"] = _hash_value([deviation.model_dump(mode="json") for deviation in config.deviations])
    parts["rules"] = rule_set_version()
    builds = [build for build in list_variants(config) if build.key in records]
    for test in config.tests:
        if test.stage is not None:
            test_builds = [build for build in builds if build.image == test.image]
            inputs = [hash_stage_inputs(work, build, test.stage, records[build.key].inputs) for build in test_builds]
            parts[f"stage of tests.{test.name}"] = _hash_value(inputs)
    sources = {file.source for service in config.services.values() for file in service.configs.values()}
    sources |= {test.structure for test in config.tests if test.structure is not None}
    parts |= {f"file {path}": hashlib.sha256((root / path).read_bytes()).hexdigest() for path in sources}
    return dict(sorted(parts.items()))


def require_passed_evidence(store: EvidenceStore, key: SetKey) -> Evidence:
    """The passed evidence of this very set; StaleError if it was not tested, or did not pass."""
    evidence = store.read(key)
    if evidence is None:
        raise StaleError("this set of images, services and tests has not been tested", hint="run `test` first")
    if not evidence.passed:
        failed = ", ".join(list_failures(evidence))
        raise StaleError(f"the last test of this set failed ({failed})", hint="mend it, then run `build test`")
    return evidence


def list_failures(evidence: Evidence) -> tuple[str, ...]:
    """The checks that did not pass, and the rules that were not kept."""
    checks = tuple(check.title for check in evidence.checks if check.outcome != "passed")
    return checks + tuple(
        f"rule {result.rule} for {result.scope}" for result in evidence.rules if result.outcome == "broken"
    )


def _hash_value(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _join_names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True)
class TestedSet:
    """A set whose evidence passed; `records` are by build, `image_configs` the images' configurations by service.

    Of an image for several platforms it is the configuration of the engine's own.
    """

    __test__ = False

    key: SetKey
    evidence: Evidence
    records: Mapping[str, ImageRecord]
    image_configs: Mapping[str, Mapping[str, Any]]


def require_tested_set(work: Workspace) -> TestedSet:
    """The tested set of the checkout; StaleError with the word to run first where it is stale or untested."""
    config = work.config
    records = require_current_images(compare_images(work.images, work.engine, hash_current_inputs(work)))
    services = {name: _inspect_service_image(work, name, service, records) for name, service in config.services.items()}
    externals = {
        name: services[name]["Id"] for name, service in config.services.items() if service.external is not None
    }
    key = build_set_key(work, records, externals)
    evidence = require_passed_evidence(work.evidence, key)
    return TestedSet(key, evidence, records, {name: image["Config"] for name, image in services.items()})


def _inspect_service_image(
    work: Workspace, name: str, service: Service, records: Mapping[str, ImageRecord]
) -> dict[str, Any]:
    image = str(service.external)
    if service.image is not None:
        platform = native_platform(image_platforms(work.config, service.image), work.engine.facts.platform)
        (build,) = (build for build in list_variants(work.config, [service.image]) if build.platform == platform)
        image = records[build.key].image_id
    details = inspect_image(work.engine, image)
    if details is None:
        raise StaleError(f"services.{name}: the engine no longer holds {image}", hint="run `build test` first")
    return details


_MAX_LISTED_FILES = 5


def check_promotion(git: GitFacts) -> tuple[RuleResult, ...]:
    """What is known of the source, and of a set that got as far as this: `tested_set` lets no other through."""
    return (
        _check_committed(git),
        RuleResult(rule=TESTS_FRESH, scope="project", outcome="kept"),
        RuleResult(rule=TESTS_PASSED, scope="project", outcome="kept"),
    )


def _check_committed(git: GitFacts) -> RuleResult:
    if not git.is_dirty:
        return RuleResult(rule=SOURCE_COMMITTED, scope="source", outcome="kept")
    names = ", ".join(git.changed_paths[:_MAX_LISTED_FILES])
    more = len(git.changed_paths) - _MAX_LISTED_FILES
    message = f"not committed: {names}{f' and {more} more' if more > 0 else ''}"
    return RuleResult(rule=SOURCE_COMMITTED, scope="source", outcome="warning", message=message)
