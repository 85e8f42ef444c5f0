"""Is what was built still what the files say, and was that set tested?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lyra_tasks.config.inputs import changed
from lyra_tasks.config.platforms import image_of, variants
from lyra_tasks.engine.inputs import stage_inputs
from lyra_tasks.engine.objects import inspect_image
from lyra_tasks.errors import StaleError
from lyra_tasks.records.evidence import Evidence, EvidenceStore, SetKey
from lyra_tasks.records.images import ImageRecord, ImageStore
from lyra_tasks.records.store import canonical
from lyra_tasks.rules.catalogue import rule_set

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine
    from lyra_tasks.engine.workspace import Workspace


@dataclass(frozen=True)
class ImageState:
    """The record of a build, by what it is called, against its files: `problem` is empty for a current one."""

    name: str
    record: ImageRecord | None
    problem: str


def image_states(
    store: ImageStore, engine: Engine | None, inputs: Mapping[str, Mapping[str, str]]
) -> tuple[ImageState, ...]:
    """The state of every build in `inputs` (its current input hashes) on this engine; without one, by its files."""
    states = []
    for key, current in inputs.items():
        record = store.read(image_of(key), current["platform"])
        if record is None:
            problem = "has not been built"
        elif different := changed(record.inputs, current):
            problem = f"was built before its {_and(different)} changed"
        elif engine is not None and inspect_image(engine, record.engine_id) is None:
            problem = "is no longer in the engine"
        else:
            problem = ""
        states.append(ImageState(key, record, problem))
    return tuple(states)


def require_current(states: Sequence[ImageState]) -> dict[str, ImageRecord]:
    """The records by what a build is called; StaleError naming every image that is not current and why."""
    stale = tuple(f"{state.name} {state.problem}" for state in states if state.problem)
    if stale:
        raise StaleError("; ".join(stale), hint="run `build` first")
    return {state.name: state.record for state in states if state.record is not None}


def set_key(work: Workspace, records: Mapping[str, ImageRecord], externals: Mapping[str, str]) -> SetKey:
    """The set that a test run is about: image digests, doubles, and the effective services, tests and configs."""
    return SetKey(
        images={key: record.config_digest for key, record in sorted(records.items())},
        externals=dict(sorted(externals.items())),
        effective=_hash(effective_parts(work, records)),
    )


def effective_parts(work: Workspace, records: Mapping[str, ImageRecord]) -> dict[str, str]:
    """Everything but images that a verdict depends on, as hashes by name: `services.web.limits`, `tests.NAME`.

    Tests are what they are made of, too: files that they name, and what stages are built from that no image shows.
    """
    config, root = work.config, work.root
    parts = {
        f"services.{name}.{key}": _hash(value)
        for name, each in config.services.items()
        for key, value in each.model_dump(mode="json", exclude={"dev"}).items()
    }
    parts |= {f"tests.{test.name}": _hash(test.model_dump(mode="json", by_alias=True)) for test in config.tests}
    parts["order of tests"] = _hash([test.name for test in config.tests])
    parts |= {f"proxima.{key}": _hash(value) for key, value in config.proxima.model_dump(mode="json").items()}
    parts["deviations"] = _hash([deviation.model_dump(mode="json") for deviation in config.deviations])
    parts["rules"] = rule_set()
    built = [each for each in variants(config) if each.key in records]
    for test in config.tests:
        if test.stage is not None:
            own = [each for each in built if each.image == test.image]
            inputs = [stage_inputs(work, each, test.stage, records[each.key].inputs) for each in own]
            parts[f"stage of tests.{test.name}"] = _hash(inputs)
    sources = {file.source for service in config.services.values() for file in service.configs.values()}
    sources |= {test.structure for test in config.tests if test.structure is not None}
    parts |= {f"file {path}": hashlib.sha256((root / path).read_bytes()).hexdigest() for path in sources}
    return dict(sorted(parts.items()))


def require_tested(store: EvidenceStore, key: SetKey) -> Evidence:
    """The passed evidence of this very set; StaleError if it was not tested, or did not pass."""
    evidence = store.read(key)
    if evidence is None:
        raise StaleError("this set of images, services and tests has not been tested", hint="run `test` first")
    if not evidence.passed:
        failed = ", ".join(failures(evidence))
        raise StaleError(f"the last test of this set failed ({failed})", hint="mend it, then run `build test`")
    return evidence


def failures(evidence: Evidence) -> tuple[str, ...]:
    """The checks that did not pass, and the rules that were not kept."""
    checks = tuple(check.title for check in evidence.checks if check.outcome != "passed")
    return checks + tuple(f"rule {each.rule} for {each.scope}" for each in evidence.rules if each.outcome == "broken")


def _hash(value: object) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
