"""Third-party images: locked like bases, fetched unchanged, and tagged with the project's own name.

In the engine each has the reference `PROJECT/SERVICE:locked-…`, one for each platform. It names a single image, never
an index, and the tag of the vendor may move, or be removed by others. What the engine had to pull for it has no other
name afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import Variant, list_variants
from lyra_tasks.digests import sha256_hex
from lyra_tasks.dockerfile.lock_file import (
    LOCK_FILE_NAME,
    LockedBase,
    LockFile,
    pin_digest,
    read_lock_file,
    third_party_lock_key,
    write_lock_file,
)
from lyra_tasks.engine.bases.inputs import (
    BaseRequest,
    create_third_party_request,
    find_unused_bases,
    list_requests,
    merge_requests,
)
from lyra_tasks.engine.bases.registry import image_platform, is_for_platform
from lyra_tasks.engine.bases.resolve import is_configured_source, lock_images, resolve_bases
from lyra_tasks.engine.bases.sources import MissingImages, name_table
from lyra_tasks.engine.objects.containers import inspect_image
from lyra_tasks.errors import PreconditionError
from lyra_tasks.images.third_party.fetch import fetch_image
from lyra_tasks.records.images import ImageOrigin, ImageRecord

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.workspace import Workspace

_TAG_LENGTH = 12


@dataclass(frozen=True)
class ThirdPartyState:
    """The record of a third-party image; `problem` says how it differs from what is locked, or is empty."""

    variant: Variant
    record: ImageRecord | None
    problem: str


def compare_third_party_images(
    work: Workspace, engine: Engine | None, variants: Iterable[Variant] | None = None
) -> tuple[ThirdPartyState, ...]:
    """Compare third-party images (default: all) with configuration, lock file and, if given, the engine."""
    config, lock = work.config, read_lock_file(work.root / LOCK_FILE_NAME)
    states = []
    for variant in list_third_party_variants(config) if variants is None else variants:
        record = work.images.read(variant.image, variant.platform)
        if record is not None and record.origin is None:
            record = None  # of an own image that had the name of the service
        states.append(ThirdPartyState(variant, record, _describe_problem(config, lock, variant, record, engine)))
    return tuple(states)


def list_third_party_variants(config: Configuration) -> tuple[Variant, ...]:
    """Return the variants of all third-party images."""
    return list_variants(config, config.third_party_images)


def _describe_problem(
    config: Configuration, lock: LockFile, variant: Variant, record: ImageRecord | None, engine: Engine | None
) -> str:
    reference = config.services[variant.image].image
    pin = lock.bases.get(third_party_lock_key(config, variant.image, variant.platform))
    if record is None or record.origin is None:
        return "has not been fetched"
    if record.origin.reference != reference:
        return f"is {record.origin.reference}, and now has to be {reference}"
    if pin is None:
        return "is not locked"
    if (record.origin.source, record.origin.digest) != (pin.source, pin_digest(pin)):
        return "was fetched before its lock changed"
    if not is_configured_source(create_third_party_request(config, variant), pin):
        return "was fetched before its source in [bases] changed"
    if engine is not None and inspect_image(engine, record.image_id) is None:
        return "is no longer in the engine"
    return ""


def read_locked_origin(work: Workspace, variant: Variant) -> str:
    """Return the digest that a third-party image is locked to, or an empty text."""
    pin = read_lock_file(work.root / LOCK_FILE_NAME).bases.get(
        third_party_lock_key(work.config, variant.image, variant.platform)
    )
    return pin_digest(pin) if pin is not None else ""


def prepare_third_party_images(work: Workspace, variants: Iterable[Variant] | None = None) -> dict[str, ImageRecord]:
    """Lock and fetch the third-party images (default: all) that the engine lacks; return all their records by key.

    Raises PreconditionError if an image is neither in a registry, nor in the engine, nor in another source.
    """
    engine = work.engine
    states = compare_third_party_images(work, engine, variants)
    missing = [state.variant for state in states if state.problem or not _has_tag(work, state.record)]
    records = {state.variant.key: state.record for state in states if state.record is not None}
    if missing:
        warn_about_unused_bases(work)
        requests = {variant: create_third_party_request(work.config, variant) for variant in missing}
        lock = _lock_requests(work, requests.values())
        unavailable = MissingImages()
        for variant, request in requests.items():
            with unavailable.collect():
                records[variant.key] = _fetch(work, variant, request, lock.bases[request.key])
        unavailable.require_none()
    return records


def plan_fetches(work: Workspace, variants: Iterable[Variant]) -> tuple[Variant, ...]:
    """Return the third-party images that a build would fetch, without changing anything.

    Raises UnavailableImagesError if one of them is neither in a registry, nor in the engine, nor in another source.
    """
    states = compare_third_party_images(work, work.engine, variants)
    missing = tuple(state.variant for state in states if state.problem or not _has_tag(work, state.record))
    requests = merge_requests(create_third_party_request(work.config, variant) for variant in missing)
    resolve_bases(
        [request for request in requests if request.base.rootfs is None],  # which Debian's mirror has
        read_lock_file(work.root / LOCK_FILE_NAME),
        client=work.engine.client,
        root=work.root,
        cache=work.paths.cache,
    )
    return missing


def warn_about_unused_bases(work: Workspace, requests: Iterable[BaseRequest] | None = None) -> None:
    """Warn about tables in `[bases]` that no FROM and no third-party image uses."""
    if not work.config.bases:
        return  # without reading the Dockerfiles once more
    for name in find_unused_bases(work.config, list_requests(work) if requests is None else requests):
        console.warn(
            f"[bases.{name_table(name)}] is not used: no FROM and no `image` has this name; name a table after the "
            f'reference, as in [bases."redis:7"]'
        )


def _lock_requests(work: Workspace, requests: Iterable[BaseRequest]) -> LockFile:
    path = work.root / LOCK_FILE_NAME
    lock = lock_images(
        merge_requests(requests),
        read_lock_file(path),
        client=work.engine.client,
        root=work.root,
        cache=work.paths.cache,
    )
    write_lock_file(path, lock)
    return lock


def _has_tag(work: Workspace, record: ImageRecord | None) -> bool:
    """Return whether a recorded image has its reference in the engine, which others may have removed."""
    image = inspect_image(work.engine, record.reference) if record is not None else None
    return image is not None and record is not None and str(image["Id"]) == record.image_id


def _fetch(work: Workspace, variant: Variant, request: BaseRequest, pin: LockedBase) -> ImageRecord:
    """Fetch one image, tag it, and record it."""
    reference = _create_reference(work.config, variant, pin)
    fetched = fetch_image(work, request, pin, reference)
    image = inspect_image(work.engine, reference)
    if image is None:
        raise PreconditionError(f"{reference} is not in the engine any more", hint="Run the command again")
    if not is_for_platform(image, variant.platform):
        raise PreconditionError(
            f"{request.name} is for {image_platform(image)}, not for {variant.platform}",
            hint=f"Set `platform` in [services.{variant.image}], or give [bases] an image for {variant.platform}",
            details=request.locations,
        )
    is_containerd = work.engine.facts.store == "containerd"
    record = ImageRecord(
        image=variant.image,
        reference=reference,
        engine=work.engine.facts.id,
        image_id=image["Id"],
        config_digest=fetched or image["Id"],
        manifest_digest=image["Id"] if is_containerd else None,
        diff_ids=list(image["RootFS"].get("Layers") or ()),
        platform=variant.platform,
        size=int(image["Size"]),
        commit="",
        dirty=False,
        version="",
        run=work.run,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs={},
        bases={},
        origin=ImageOrigin(
            reference=work.config.services[variant.image].image,
            digest=pin_digest(pin),
            source=pin.source,
        ),
    )
    work.images.write(record)
    return record


def _create_reference(config: Configuration, variant: Variant, pin: LockedBase) -> str:
    """Return a reference that only this image has, since a classic store keeps one platform per tag."""
    tag = sha256_hex(f"{pin_digest(pin)} {variant.platform}".encode())[:_TAG_LENGTH]
    return f"{config.project.name}/{variant.image}:locked-{tag}"
