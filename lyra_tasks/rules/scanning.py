"""Scan the images of a project for the rules: new images in one stream from the engine, known ones not again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.platforms import Variant, variants_by_key
from lyra_tasks.digests import json_sha256
from lyra_tasks.dockerfile.input_hashes import dockerfile_path
from lyra_tasks.dockerfile.parse import Stage, read_dockerfile
from lyra_tasks.dockerfile.stages import resolve_stage_chain
from lyra_tasks.engine.bases.inputs import collect_from_arguments
from lyra_tasks.engine.buildx.save_stream import open_save_stream
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.images.scan.layer_cache import LayerCache
from lyra_tasks.images.scan.layers import (
    ScannedImage,
    ScannedLayer,
    count_programs,
    find_setuid_files,
    resolve_directories,
    scan_images,
)
from lyra_tasks.images.scan.secrets import SecretMatcher
from lyra_tasks.images.stream.cache import LayerCache as BlobCache
from lyra_tasks.images.stream.pack import ImageRequest
from lyra_tasks.images.stream.packages import (
    ImagePackages,
    LayerPackages,
    load_layer_packages,
    merge_layer_packages,
    save_layer_packages,
)
from lyra_tasks.images.stream.tar import Readable
from lyra_tasks.records.images import ImageRecord, ImageScan, ScanStore, SecretFinding
from lyra_tasks.redaction import is_secret_name
from lyra_tasks.rules.catalogue import rule_set_version
from lyra_tasks.rules.images import count_base_layers, read_own_variables
from lyra_tasks.rules.secrets import fingerprint_secrets, read_declared_secrets
from lyra_tasks.rules.tokens import TextSampler, find_tokens, has_detect_secrets

_MAX_PLACES = 5
_PLAIN_KEY = re.compile(r"[A-Za-z0-9._-]{1,60}")


def read_project_stages(work: Workspace, build: Variant) -> tuple[Stage, ...]:
    """Return the stages of the project's Dockerfile that an image consists of."""
    table = work.config.images[build.image]
    return resolve_stage_chain(
        read_dockerfile(dockerfile_path(work.root, table)), table.target, collect_from_arguments(work, build)
    )[0]


def scan_project_images(work: Workspace, records: Mapping[str, ImageRecord]) -> dict[str, ImageScan]:
    """Return the scan of each image in `records`, by build.

    An image is scanned again only if the rules, the secrets or its Dockerfile have changed.
    """
    store = ScanStore(work.paths.state)
    secrets = read_declared_secrets(work.config, work.root)
    secrets_fingerprint = fingerprint_secrets(secrets, work.paths.project_id)
    builds = variants_by_key(work.config)
    scan_keys = {name: _scan_key(work, builds[name], secrets_fingerprint) for name in records}
    scans = {name: store.read(name, record.config_digest, scan_keys[name]) for name, record in records.items()}
    unread = {name: records[name] for name, scan in scans.items() if scan is None}
    if unread:
        console.info(f"scanning {', '.join(sorted(unread))}")
        layer_cache = LayerCache(work.paths.state / "scans" / "layers", _layer_query(work, secrets_fingerprint))
        for name, scan in _scan_unread_images(work, unread, SecretMatcher(secrets), scan_keys, layer_cache):
            store.write(name, scan)
            scans[name] = scan
    return {name: scan for name, scan in scans.items() if scan is not None}


def read_image_packages(work: Workspace, records: Mapping[str, ImageRecord]) -> dict[str, ImagePackages]:
    """Return the packages of images by build: those that the test has read, unless the cache was removed since."""
    cache = work.paths.cache
    missing = {
        name: record
        for name, record in records.items()
        if any(load_layer_packages(cache, diff_id) is None for diff_id in record.diff_ids)
    }
    read: dict[str, LayerPackages] = {}
    if missing:
        with console.progress(f"reading {', '.join(missing)}"), _open_images(work, missing) as (stream, requests):
            images = scan_images(stream, requests, matcher=SecretMatcher({}), directories=())
        read = {layer.diff_id: layer.packages for image in images.values() for layer in image.layers}
        for diff_id, packages in read.items():
            save_layer_packages(cache, diff_id, packages)
    return {
        name: merge_layer_packages(
            read.get(diff_id) or load_layer_packages(cache, diff_id) or LayerPackages.empty()
            for diff_id in record.diff_ids
        )
        for name, record in records.items()
    }


def _list_volume_directories(work: Workspace, image: str) -> tuple[str, ...]:
    """Return the directories of all volumes of the services that run an image."""
    config = work.config
    services = [service for name, service in config.services.items() if config.image_name(name) == image]
    return tuple(sorted({volume.path.rstrip("/") for service in services for volume in service.volumes.values()}))


def _list_all_directories(work: Workspace) -> tuple[str, ...]:
    images = {build.image for build in variants_by_key(work.config).values()}
    return tuple(sorted({directory for image in images for directory in _list_volume_directories(work, image)}))


def _layer_query(work: Workspace, secrets: str) -> str:
    """Return a digest of what is asked about a layer below the project's own."""
    return json_sha256({"rules": rule_set_version(), "secrets": secrets, "directories": _list_all_directories(work)})


def _scan_key(work: Workspace, build: Variant, secrets: str) -> str:
    stages = _list_own_stages(work, build)
    inputs = {
        "rules": rule_set_version(),
        "secrets": secrets,
        "tokens": has_detect_secrets(),
        "directories": _list_volume_directories(work, build.image),
        "instructions": [stage.instructions for stage in stages],
        "environment": [[assignment.name for assignment in stage.assignments] for stage in stages],
    }
    return json_sha256(inputs)


def _scan_unread_images(
    work: Workspace,
    records: Mapping[str, ImageRecord],
    matcher: SecretMatcher,
    scan_keys: Mapping[str, str],
    layer_cache: LayerCache,
) -> Iterator[tuple[str, ImageScan]]:
    builds = variants_by_key(work.config)
    stages = {name: _list_own_stages(work, builds[name]) for name in records}
    blob_cache = BlobCache(work.paths.cache / "layers", work.config.resources.cache)
    with ExitStack() as stack:
        stack.enter_context(console.progress(f"reading {', '.join(records)}"))
        images = _read_images(work, records, matcher, stack, layer_cache.load)
        base_layer_counts = {
            name: _count_lower_layers(image, stages[name], records[name]) for name, image in images.items()
        }
        if any(layer.is_cached for name, image in images.items() for layer in image.layers[base_layer_counts[name] :]):
            # a layer of a base has become one of the project's own, of which more is asked
            images = _read_images(work, records, matcher, stack, lambda _: None)
        for name, image in images.items():
            for layer in image.layers:
                if load_layer_packages(work.paths.cache, layer.diff_id) is None:
                    save_layer_packages(work.paths.cache, layer.diff_id, layer.packages)
                if layer.blob is not None:  # so that a promotion need not unpack it again
                    blob_cache.save_unpacked(layer.blob)
            for layer in image.layers[: base_layer_counts[name]]:
                layer_cache.save(layer)
            is_own = records[name].origin is None
            yield name, _summarize_scan(image, stages[name], matcher, scan_keys[name], is_own=is_own)


def _read_images(
    work: Workspace,
    records: Mapping[str, ImageRecord],
    matcher: SecretMatcher,
    stack: ExitStack,
    load_layer: Callable[[str], ScannedLayer | None],
) -> dict[str, ScannedImage]:
    """Scan images in one stream; `stack` closes the samples of their texts.

    Those with links from the directories of volumes to others are read a second time, for the owners behind the links.
    """
    directories = _list_all_directories(work)
    watcher = (lambda: stack.enter_context(closing(TextSampler()))) if has_detect_secrets() else None
    with _open_images(work, records) as (stream, requests):
        images = scan_images(
            stream,
            requests,
            matcher=matcher,
            directories=directories,
            create_watcher=watcher,
            load_layer=load_layer,
        )
    linked = {
        name: records[name]
        for name, image in images.items()
        if not set(resolve_directories(image.layers, directories).values()) <= set(directories)
    }
    if not linked:
        return images
    with _open_images(work, linked) as (stream, requests):
        followed = scan_images(stream, requests, matcher=SecretMatcher({}), directories=directories, follow_links=True)
    return images | {
        name: replace(images[name], directory_owners=image.directory_owners) for name, image in followed.items()
    }


@contextmanager
def _open_images(
    work: Workspace, records: Mapping[str, ImageRecord]
) -> Iterator[tuple[Readable, dict[str, ImageRequest]]]:
    """Yield the stream of a `docker save` of images, and what to read of it."""
    requests = {name: ImageRequest(record.image_id, record.platform) for name, record in records.items()}
    with open_save_stream(work.engine, sorted({record.image_id for record in records.values()})) as stream:
        yield stream, requests


def _count_lower_layers(image: ScannedImage, stages: tuple[Stage, ...], record: ImageRecord) -> int:
    """Return the number of layers in which nobody looks for tokens: those of a base, or all of a third-party image."""
    if record.origin is not None:
        return len(image.layers)
    return count_base_layers(image.config, [instruction for stage in stages for instruction in stage.instructions])


def _list_own_stages(work: Workspace, build: Variant) -> tuple[Stage, ...]:
    return read_project_stages(work, build) if build.image in work.config.images else ()


def _summarize_scan(
    image: ScannedImage, stages: tuple[Stage, ...], matcher: SecretMatcher, scan_key: str, *, is_own: bool
) -> ImageScan:
    instructions = [instruction for stage in stages for instruction in stage.instructions]
    base_layer_count = count_base_layers(image.config, instructions) if is_own else 0
    setuid_files = find_setuid_files(image.layers)
    names = {assignment.name for stage in stages for assignment in stage.assignments}
    variables = read_own_variables(image.config, names, len(instructions))
    return ImageScan(
        config_digest=image.config_digest,
        query_digest=scan_key,
        setuid_programs={
            path: f"{mode:04o}" for path, (layer, mode) in setuid_files.items() if layer >= base_layer_count
        },
        volume_owners=image.directory_owners,
        programs_by_architecture=count_programs(image.layers),
        secrets=_find_secrets(image, matcher),
        secret_like_names=[
            name
            for name, value in variables.items()
            # A path is not the secret itself.
            if value and not value.startswith("/") and is_secret_name(name.partition(" ")[2])
        ],
        tokens=find_tokens(image, base_layer_count, variables) if is_own and has_detect_secrets() else None,
    )


def _find_secrets(image: ScannedImage, matcher: SecretMatcher) -> list[SecretFinding]:
    """Return where declared secrets are; the first few places of each secret and encoding."""
    matches = [
        (match, place)
        for place, text in _iter_strings(image.config, "the configuration")
        for match in matcher.search(text.encode("utf-8", "surrogatepass"))
    ]
    matches += [
        (match, f"layer {number}: /{path}")
        for number, layer in enumerate(image.layers, start=1)
        for path, match in layer.secret_matches
    ]
    places_by_secret: dict[tuple[str, str], list[str]] = {}
    for match, place in matches:
        places_by_secret.setdefault((match.secret, match.form), []).append(place)
    return [
        SecretFinding(secret=secret, encoding=form, location=_redact_place(place, matcher))
        for (secret, form), places in sorted(places_by_secret.items())
        for place in sorted(places)[:_MAX_PLACES]
    ]


def _redact_place(place: str, matcher: SecretMatcher) -> str:
    """Return a place without a file name that contains a secret."""
    layer, _, path = place.partition(": ")
    return f"{layer}: a file name" if path and matcher.search(path.encode("utf-8", "surrogateescape")) else place


def _iter_strings(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield all strings of a document, keys too, with their places."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield place, key
            yield from _iter_strings(item, f"{place}, {key}" if _PLAIN_KEY.fullmatch(key) else place)
    elif isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield from _iter_strings(item, f"{place} {number}")
    elif isinstance(value, str):
        yield place, value
