"""Reading the images of a project for the rules: all that are new in one stream of the engine, others not at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.dockerfile import Stage, read
from lyra_tasks.config.inputs import dockerfile_path
from lyra_tasks.config.platforms import Variant, variants_by_key
from lyra_tasks.config.problems import SECRET_NAME
from lyra_tasks.config.targets import stage_chain
from lyra_tasks.engine.inputs import arguments_of
from lyra_tasks.engine.save import saved
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.images.needles import Needles
from lyra_tasks.images.pack import Wanted
from lyra_tasks.images.packages import keep_packages, known_packages
from lyra_tasks.images.scan import ImageSight, final_owners, final_specials, look, programs
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.records.scans import ImageScan, ScanStore, SecretSeen
from lyra_tasks.records.store import canonical
from lyra_tasks.rules import tokens
from lyra_tasks.rules.catalogue import rule_set
from lyra_tasks.rules.declared import declared_secrets, fingerprint
from lyra_tasks.rules.images import base_layers

_MOST_PLACES = 5
_MOST_TOKENS = 20
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,60}")
_ARGUMENT = re.compile(r"(?:^|\s)([A-Za-z_]\w*)=(\S*)")
# `RUN |1 NAME=value /bin/sh -c …` is how a step keeps the arguments that it was run with
_WITH_ARGUMENTS = re.compile(r"RUN \|(\d+) ")


def project_stages(work: Workspace, build: Variant) -> tuple[Stage, ...]:
    """The stages of the project's own Dockerfile that an image consists of."""
    table = work.config.images[build.image]
    return stage_chain(read(dockerfile_path(work.root, table)), table.target, arguments_of(work, build))[0]


def scans_of(work: Workspace, records: Mapping[str, ImageRecord]) -> dict[str, ImageScan]:
    """What is in each image of `records`, by what its build is called; one that was read before is not read again.

    It is, where rules or secrets are others than then.
    """
    store = ScanStore(work.paths.state)
    secrets = declared_secrets(work.config, work.root)
    asked = fingerprint(secrets, work.paths.project_id)
    known = variants_by_key(work.config)
    questions = {name: _question(work, known[name], asked) for name in records}
    scans = {name: store.read(name, record.config_digest, questions[name]) for name, record in records.items()}
    unread = {name: records[name] for name, scan in scans.items() if scan is None}
    if unread:
        console.note(f"reading every byte of {', '.join(sorted(unread))}")
        for name, scan in _read(work, unread, Needles(secrets), questions):
            store.write(name, scan)
            scans[name] = scan
    return {name: scan for name, scan in scans.items() if scan is not None}


def volume_folders(work: Workspace, image: str) -> tuple[str, ...]:
    """The folders of all volumes of the services that run an image."""
    services = [each for each in work.config.services.values() if each.image == image]
    return tuple(sorted({volume.path for each in services for volume in each.volumes.values()}))


def _question(work: Workspace, build: Variant, secrets: str) -> str:
    stages = project_stages(work, build)
    asked = {
        "rules": rule_set(),
        "secrets": secrets,
        "tokens": tokens.available(),
        "folders": volume_folders(work, build.image),
        "instructions": [stage.instructions for stage in stages],
        "environment": [stage.environment for stage in stages],
    }
    return hashlib.sha256(canonical(asked).encode()).hexdigest()


def _read(
    work: Workspace, records: Mapping[str, ImageRecord], needles: Needles, questions: Mapping[str, str]
) -> Iterator[tuple[str, ImageScan]]:
    wanted = {name: Wanted(record.engine_id, record.platform) for name, record in records.items()}
    known = variants_by_key(work.config)
    folders = {folder for name in records for folder in volume_folders(work, known[name].image)}
    with ExitStack() as stack:

        def texts() -> tokens.Texts:
            return stack.enter_context(closing(tokens.Texts()))

        with saved(work.engine, sorted({record.engine_id for record in records.values()})) as stream:
            watcher = texts if tokens.available() else None
            sights = look(stream, wanted, needles=needles, folders=folders, watcher=watcher)
        for name, sight in sights.items():
            for layer in sight.layers:
                if known_packages(work.paths.cache, layer.diff_id) is None:
                    keep_packages(work.paths.cache, layer.diff_id, layer.packages)
            yield name, _scan(sight, project_stages(work, known[name]), needles, questions[name])


def _scan(sight: ImageSight, stages: tuple[Stage, ...], needles: Needles, question: str) -> ImageScan:
    instructions = [each for stage in stages for each in stage.instructions]
    below = base_layers(sight.config, instructions)
    specials = final_specials(sight.layers)
    variables = _variables(sight.config, {name for stage in stages for name in stage.environment}, len(instructions))
    return ImageScan(
        config_digest=sight.config_digest,
        question=question,
        special={path: f"{mode:04o}" for path, (layer, mode) in specials.items() if layer >= below},
        owners=final_owners(sight.layers),
        programs=programs(sight.layers),
        secrets=_secrets(sight, needles),
        secret_names=[name for name, value in variables.items() if _is_named_secret(name, value)],
        tokens=_tokens(sight, below, variables) if tokens.available() else None,
    )


def _secrets(sight: ImageSight, needles: Needles) -> list[SecretSeen]:
    """Where declared secrets stand; of each secret and form the first few places."""
    seen = [
        (hit, place)
        for place, text in _strings(sight.config, "the configuration")
        for hit in needles.search(text.encode("utf-8", "surrogatepass"))
    ]
    seen += [
        (hit, f"layer {number}: /{path}")
        for number, layer in enumerate(sight.layers, start=1)
        for path, hit in layer.hits
    ]
    found: dict[tuple[str, str], list[str]] = {}
    for hit, place in seen:
        found.setdefault((hit.secret, hit.form), []).append(place)
    return [
        SecretSeen(secret=secret, form=form, place=_without_secrets(place, needles))
        for (secret, form), places in sorted(found.items())
        for place in sorted(places)[:_MOST_PLACES]
    ]


def _without_secrets(place: str, needles: Needles) -> str:
    """A place as it may be told: a file may be named after the secret."""
    layer, _, path = place.partition(": ")
    return f"{layer}: the name of a file" if path and needles.search(path.encode("utf-8", "surrogateescape")) else place


def _strings(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every text in a document, keys too, with the place that it stands in."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield place, key
            yield from _strings(each, f"{place}, {key}" if _PLAIN.fullmatch(key) else place)
    elif isinstance(value, list):
        for number, each in enumerate(value, start=1):
            yield from _strings(each, f"{place} {number}")
    elif isinstance(value, str):
        yield place, value


def _variables(config: Mapping[str, Any], own: set[str], instructions: int) -> dict[str, str]:
    """ENV and ARG of the project's own stages, as the configuration and the history have them."""
    pairs = (str(pair).partition("=") for pair in (config.get("config") or {}).get("Env") or [])
    found = {f"ENV {name}": value for name, _, value in pairs if name in own}
    history = [str(entry.get("created_by", "")) for entry in config.get("history") or []]
    for step in history[max(0, len(history) - instructions) :]:
        for name, value in _arguments(step):
            if f"ENV {name}" not in found:
                found.setdefault(f"ARG {name}", value)
    return found


def _arguments(step: str) -> list[tuple[str, str]]:
    """The arguments that a step of the history names, and their values."""
    if step.startswith("ARG "):
        return _ARGUMENT.findall(step)
    run = _WITH_ARGUMENTS.match(step)
    return _ARGUMENT.findall(step[run.end() :])[: int(run[1])] if run else []


def _is_named_secret(name: str, value: str) -> bool:
    """A path says where a secret is, and not what it is."""
    return bool(value and not value.startswith("/") and SECRET_NAME.search(name.partition(" ")[2]))


def _tokens(sight: ImageSight, below: int, variables: Mapping[str, str]) -> list[str]:
    found = tokens.looks_random(variables)
    labels = (sight.config.get("config") or {}).get("Labels") or {}
    found += tokens.shapes((f"label {name}", str(value)) for name, value in sorted(labels.items()))
    for layer in sight.layers[below:]:
        if isinstance(layer.watcher, tokens.Texts):
            found += tokens.shapes((f"/{path}", text) for path, text in layer.watcher)
    return list(dict.fromkeys(found))[:_MOST_TOKENS]
