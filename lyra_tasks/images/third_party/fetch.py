"""Fetch a locked image into the engine, byte for byte as its origin has it, under a reference of the project."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.digests import hex_part, sha256_digest
from lyra_tasks.dockerfile.lock_file import LockedArchive, LockedBase, LockedRootfs
from lyra_tasks.engine.bases.archive import read_archived_image
from lyra_tasks.engine.bases.inputs import BaseRequest
from lyra_tasks.engine.bases.materials import inspect_built_image, install_bases
from lyra_tasks.engine.bases.pull import find_or_pull, missing_platform_error
from lyra_tasks.engine.bases.registry import find_local_image
from lyra_tasks.engine.bases.resolve import BaseInstall, create_rootfs_target, missing_pin_error
from lyra_tasks.engine.bases.rootfs import build_rootfs
from lyra_tasks.engine.buildx.bake import bake_targets, require_buildx, select_target_metadata
from lyra_tasks.engine.buildx.contexts import escape_bake_definition
from lyra_tasks.engine.buildx.save_stream import open_save_stream
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.debian.mirror import to_debian_architecture
from lyra_tasks.engine.objects.containers import ContainerFile, create_tar
from lyra_tasks.errors import BundleError, PreconditionError
from lyra_tasks.images.oci import (
    BLOBS_PREFIX,
    INDEX_FILE,
    LAYOUT_FILE,
    MANIFEST_MEDIA_TYPE,
    NAME_ANNOTATION,
    TAG_ANNOTATION,
)
from lyra_tasks.images.stream.pack import ImageDocuments, ImageRequest, read_image_documents
from lyra_tasks.records.evidence import BUILD_LOG, LOGS_DIRECTORY
from lyra_tasks.references import normalize_reference

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


def fetch_image(work: Workspace, request: BaseRequest, pin: LockedBase, reference: str) -> str:
    """Bring a locked image into the engine as `reference`, and return its config digest.

    The journal has the reference before it is there. Raises PreconditionError if the image is not available.
    """
    work.owner.record_image_intents(work.engine, [reference], private=True)
    if isinstance(pin, LockedArchive):
        config_digest = _load_archive(work, request, pin, reference)
    elif isinstance(pin, LockedRootfs):
        config_digest = _build_rootfs(work, request, pin, reference)
    else:
        with find_or_pull(work, request, pin, reference) as source:
            config_digest = _tag_platform(work, request, source, reference)
    image_id = str(inspect_built_image(work.engine, reference)["Id"])
    work.owner.record_created_images(work.engine, {reference: image_id}, foreign=True)
    return config_digest


def _load_archive(work: Workspace, request: BaseRequest, pin: LockedArchive, reference: str) -> str:
    path = work.root / pin.path
    if not path.exists():
        raise missing_pin_error(request, pin, f"{pin.path} does not exist")
    image = read_archived_image(path, request.platform)
    if image.digest != pin.digest:
        raise missing_pin_error(request, pin, f"{pin.path} contains {image.digest[7:19]}")
    with console.progress(f"loading {pin.path}"):
        install_bases([BaseInstall(reference, archive=image)], work.engine.client, scratch=work.paths.cache)
    if work.engine.facts.store == "containerd":
        _read_documents(work, request, reference)
    return image.digest


def _build_rootfs(work: Workspace, request: BaseRequest, pin: LockedRootfs, reference: str) -> str:
    engine, directory, target = work.engine, work.run_directory, "third-party"
    require_buildx(engine)
    built = build_rootfs(
        pin.spec,
        cache=work.paths.cache,
        pin=pin,
        architecture=to_debian_architecture(request.platform),
        locations=request.locations,
    )
    is_containerd = engine.facts.store == "containerd"
    output = "type=image,oci-mediatypes=true" if is_containerd else "type=docker"
    document = {"target": {target: {**create_rootfs_target(built), "tags": [reference], "output": [output]}}}
    definition = directory / "bake-third-party.json"
    definition.write_text(escape_bake_definition(json.dumps(document)))
    (directory / LOGS_DIRECTORY).mkdir(exist_ok=True)
    metadata = bake_targets(
        engine,
        definition,
        metadata=directory / "bake-third-party-metadata.json",
        log=directory / LOGS_DIRECTORY / BUILD_LOG,
        epoch=pin.source_date_epoch,
        targets=(target,),
        quiet=True,
    )
    image_id = str(inspect_built_image(engine, reference)["Id"])
    digest = select_target_metadata(metadata, target).get("containerimage.config.digest")
    return str(digest) if digest and is_containerd else image_id


def _tag_platform(work: Workspace, request: BaseRequest, name: str, reference: str) -> str:
    """Tag the image of one platform, which may be a part of the index `name`; return its config digest."""
    client = work.engine.client
    image = find_local_image(client, name)
    if image is None:
        raise PreconditionError(f"{name} is not in the engine any more", hint="Run the command again")
    repository, _, tag = reference.rpartition(":")
    if work.engine.facts.store != "containerd":
        client.api.tag(image["Id"], repository, tag)
        return str(image["Id"])
    documents = _read_documents(work, request, name)
    if documents.manifest_digest == image["Id"]:
        client.api.tag(image["Id"], repository, tag)
    else:
        archive = _archive_without_layers(reference, documents.manifest, documents.config)
        with translate_errors(f"tagging {reference}"):
            for _ in work.engine.api.load_image(archive):
                pass
    return documents.config_digest


def _read_documents(work: Workspace, request: BaseRequest, name: str) -> ImageDocuments:
    """Return manifest and config of an image in the engine, and keep them for the promotion."""
    try:
        with (
            console.progress(f"reading {request.name}"),
            open_save_stream(work.engine, [name], platform=request.platform) as stream,
        ):
            documents = read_image_documents(stream, ImageRequest(name, request.platform))
    except BundleError as error:
        raise missing_platform_error(request, error.message) from error
    work.images.write_document(documents.manifest)
    work.images.write_document(documents.config)
    return documents


def _archive_without_layers(reference: str, manifest: bytes, config: bytes) -> bytes:
    """Return an archive that gives a name to an image whose layers the engine has."""
    media_type = json.loads(manifest).get("mediaType", MANIFEST_MEDIA_TYPE)
    names = {NAME_ANNOTATION: normalize_reference(reference), TAG_ANNOTATION: reference.rpartition(":")[2]}
    descriptor = {"mediaType": media_type, "digest": sha256_digest(manifest), "size": len(manifest)}
    index = {"schemaVersion": 2, "manifests": [{**descriptor, "annotations": names}]}
    members = {
        LAYOUT_FILE: b'{"imageLayoutVersion": "1.0.0"}',
        INDEX_FILE: json.dumps(index).encode(),
        **{f"{BLOBS_PREFIX}{hex_part(sha256_digest(blob))}": blob for blob in (manifest, config)},
    }
    return create_tar(ContainerFile(path, content) for path, content in members.items())
