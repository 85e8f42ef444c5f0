"""Pack the images of a `docker save` for the archive, from engines with any image store."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from lyra_tasks.digests import canonical_json, hex_part, sha256_digest
from lyra_tasks.errors import BundleError
from lyra_tasks.images.oci import (
    CONFIG_MEDIA_TYPE,
    DOCKER_MANIFEST_FILE,
    INDEX_FILE,
    INDEX_MEDIA_TYPES,
    LAYOUT_FILE,
    MANIFEST_MEDIA_TYPE,
    MAX_DOCUMENT_BYTES,
    NAME_ANNOTATION,
    Descriptor,
    ImageConfig,
    ImageIdentity,
    ImageIndex,
    ImageManifest,
    Layer,
    LayoutDocument,
    SavedImage,
    blob_name,
    normalize_platform,
    parse_document,
)
from lyra_tasks.images.stream.cache import LayerCache
from lyra_tasks.images.stream.codec import Compression
from lyra_tasks.images.stream.docker_save import SAVE_LABEL, IncomingLayer, SaveContents, read_docker_save
from lyra_tasks.images.stream.layers import Spool, SpooledLayer, adopt_layer, blob_path, spool_layer
from lyra_tasks.images.stream.packages import LayerPackages
from lyra_tasks.images.stream.tar import Block, Readable
from lyra_tasks.references import is_attestation, normalize_reference

K = TypeVar("K", bound=Hashable)

_MAX_NESTING = 4


@dataclass(frozen=True)
class ImageRequest:
    """An image to find in a save: a reference or a digest of its config, manifest or index, and a platform."""

    reference: str
    platform: str = ""


@dataclass(frozen=True)
class PackedImage:
    """An image with its config and manifest, whose layers are files in `spool`.

    `unverified` are the digests of the layers that were just compressed and not yet unpacked again. All others were
    unpacked and hashed, now or earlier, as the layer cache records. `packages` are those of the layers that were read
    on the way, by diff id.
    """

    identity: ImageIdentity
    config: bytes
    manifest: bytes
    spool: Path
    unverified: frozenset[str]
    packages: Mapping[str, LayerPackages] = field(default_factory=dict)

    def blobs(self) -> dict[str, bytes | Path]:
        """Return all blobs by digest: documents as bytes, layers as paths."""
        layers = {layer.digest: blob_path(self.spool, layer.digest) for layer in self.identity.layers}
        return {self.identity.config_digest: self.config, self.identity.manifest_digest: self.manifest, **layers}


@dataclass(frozen=True)
class ImageDocuments:
    """The manifest and the config of an image."""

    manifest: bytes
    config: bytes

    @property
    def manifest_digest(self) -> str:
        """Return the digest of the manifest."""
        return sha256_digest(self.manifest)

    @property
    def config_digest(self) -> str:
        """Return the digest of the config."""
        return sha256_digest(self.config)


@dataclass(frozen=True)
class ExtractedImage:
    """An image of a save; `keys` are its names and digests, `manifest` is None in the legacy layout."""

    keys: frozenset[str]
    config: bytes
    config_digest: str
    layers: tuple[Layer, ...]
    manifest: bytes | None


def pack_saved_images(
    stream: Readable,
    requests: Mapping[K, ImageRequest],
    spool: Path,
    compression: Compression,
    cache: LayerCache | None = None,
    *,
    read_packages: bool = False,
    verified_later: bool = False,
) -> dict[K, PackedImage]:
    """Read a `docker save` in one pass and return the requested images, their layers compressed in `spool`.

    Compressed blobs are kept. If all layers of an image are, so is its manifest, and with it the digest by which the
    engine knows the image. `spool` must exist and then belongs to the caller. See `Spool` for the options. After a
    CacheMissError, the stream must be read again without the cache.
    """
    spool_settings = Spool(spool, compression, cache, read_packages, verified_later)
    spooled: list[SpooledLayer] = []

    def store_layer(blocks: Iterator[Block], layer: IncomingLayer) -> Layer:
        spooled.append(
            spool_layer(blocks, spool_settings, layer.where, size=layer.size, claimed_digest=layer.claimed_digest)
        )
        return spooled[-1].layer

    images = select_images(read_docker_save(stream, store_layer), requests)
    return {key: _create_packed_image(image, spool, spooled) for key, image in images.items()}


def pack_spooled_images(
    manifest_digests: Mapping[K, str],
    spool: Path,
    compression: Compression,
    known: Mapping[str, Layer],
    cache: LayerCache | None = None,
    *,
    read_packages: bool = False,
    verified_later: bool = False,
) -> dict[K, PackedImage]:
    """Return the images with these manifest digests from a `spool` with all their blobs, named by digest.

    `known` are the layers, by digest, whose blobs the caller has verified; all others are hashed and unpacked, or
    compressed if needed. Otherwise like `pack_saved_images`.
    """
    spool_settings = Spool(spool, compression, cache, read_packages, verified_later)
    spooled = {digest: SpooledLayer(layer, is_unverified=False) for digest, layer in known.items()}
    images = {}
    for key, digest in manifest_digests.items():
        manifest = parse_document(_read_document(spool, digest), ImageManifest, digest)
        documents = (digest, manifest.config.digest)
        save = SaveContents({blob_name(document): _read_document(spool, document) for document in documents})
        for layer_digest in (layer.digest for layer in manifest.layers):
            if layer_digest not in spooled:
                spooled[layer_digest] = adopt_layer(layer_digest, spool_settings, layer_digest)
            save.layers[blob_name(layer_digest)] = spooled[layer_digest].layer
        (image,) = _images_of(save, Descriptor(mediaType=manifest.media_type, digest=digest, size=0), set(), 0)
        images[key] = _require_layers(image)
    return {key: _create_packed_image(image, spool, spooled.values()) for key, image in images.items()}


def _read_document(spool: Path, digest: str) -> bytes:
    path = blob_path(spool, digest)
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise BundleError(f"{digest}: larger than {MAX_DOCUMENT_BYTES} bytes")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{digest} is missing") from error


def read_image_documents(stream: Readable, request: ImageRequest) -> ImageDocuments:
    """Return manifest and config of an image in a `docker save`, without reading its layers; BundleError if missing."""

    def skip_layer(blocks: Iterator[Block], layer: IncomingLayer) -> Layer:
        for _ in blocks:
            pass
        return Layer("", layer.claimed_digest, layer.size, "", layer.size)

    image = _select_image(list(_layout_images(read_docker_save(stream, skip_layer))), request)
    if image.manifest is None:
        raise BundleError(f"{SAVE_LABEL}: the layers of {request.reference} are not those of its manifest")
    return ImageDocuments(image.manifest, image.config)


def select_images(save: SaveContents, requests: Mapping[K, ImageRequest]) -> dict[K, ExtractedImage]:
    """Return the requested images of a save; BundleError if one is missing, or has other layers than its config."""
    candidates = list(_layout_images(save)) if INDEX_FILE in save else []
    if not candidates or DOCKER_MANIFEST_FILE in save:
        # Of several images without names, the classic store of Engine 25 and newer lists only the last in the index.
        candidates += _legacy_images(save, excluded={image.config_digest for image in candidates})
    images = {key: _select_image(candidates, request) for key, request in requests.items()}
    return {key: _require_layers(image) for key, image in images.items()}


def _require_layers(image: ExtractedImage) -> ExtractedImage:
    if [layer.diff_id for layer in image.layers] != _parse_config(image).rootfs.diff_ids:
        raise BundleError(f"{SAVE_LABEL}: {image.config_digest} has other layers than its config")
    return image


def _legacy_images(save: SaveContents, excluded: Set[str]) -> Iterator[ExtractedImage]:
    for entry in parse_document(
        save.document(DOCKER_MANIFEST_FILE), list[SavedImage], f"{SAVE_LABEL}: {DOCKER_MANIFEST_FILE}"
    ):
        config = save.document(entry.config)
        digest = sha256_digest(config)
        if entry.config not in {f"{hex_part(digest)}.json", blob_name(digest)}:
            raise BundleError(f"{SAVE_LABEL}: {entry.config} does not have the digest in its name")
        if digest in excluded:
            continue
        names = {normalize_reference(name) for name in entry.repo_tags or ()}
        layers = tuple(save.layer(path) for path in entry.layers)
        yield ExtractedImage(frozenset({digest, *names}), config, digest, layers, None)


def _layout_images(save: SaveContents) -> Iterator[ExtractedImage]:
    parse_document(save.document(LAYOUT_FILE), LayoutDocument, f"{SAVE_LABEL}: {LAYOUT_FILE}")
    index = parse_document(save.document(INDEX_FILE), ImageIndex, f"{SAVE_LABEL}: {INDEX_FILE}")
    for descriptor in index.manifests:
        name = (descriptor.annotations or {}).get(NAME_ANNOTATION)
        yield from _images_of(save, descriptor, {normalize_reference(name)} if name else set(), 0)


def _images_of(save: SaveContents, descriptor: Descriptor, keys: set[str], depth: int) -> Iterator[ExtractedImage]:
    """Yield the images of a descriptor; a save has the blobs of only one platform of an index."""
    path = blob_name(descriptor.digest)
    if path not in save or depth > _MAX_NESTING or is_attestation(descriptor.annotations):
        return
    data = _read_verified(save, descriptor)
    keys = keys | {descriptor.digest}
    if descriptor.media_type in INDEX_MEDIA_TYPES:
        for child in parse_document(data, ImageIndex, f"{SAVE_LABEL}: {path}").manifests:
            yield from _images_of(save, child, keys, depth + 1)
        return
    manifest = parse_document(data, ImageManifest, f"{SAVE_LABEL}: {path}")
    config = _read_verified(save, manifest.config)
    layers = tuple(save.layer(blob_name(layer.digest)) for layer in manifest.layers)
    is_original = [layer.digest for layer in layers] == [layer.digest for layer in manifest.layers]
    if is_original:
        layers = tuple(
            replace(layer, media_type=known.media_type) for layer, known in zip(layers, manifest.layers, strict=True)
        )
    digest = manifest.config.digest
    yield ExtractedImage(frozenset({*keys, digest}), config, digest, layers, data if is_original else None)


def _read_verified(save: SaveContents, descriptor: Descriptor) -> bytes:
    path = blob_name(descriptor.digest)
    data = save.document(path)
    if sha256_digest(data) != descriptor.digest:
        raise BundleError(f"{SAVE_LABEL}: {path} does not have the digest in its name")
    return data


def _select_image(candidates: list[ExtractedImage], request: ImageRequest) -> ExtractedImage:
    name, separator, digest = request.reference.rpartition("@")
    key = digest if separator or digest.startswith("sha256:") else normalize_reference(name or digest)
    images = {image.config_digest: image for image in candidates if key in image.keys}
    platforms = {digest: _parse_config(image).platform for digest, image in images.items()}
    required = normalize_platform(request.platform)
    matches = [image for digest, image in images.items() if required in ("", platforms[digest])]
    if not matches:
        platform_note = f" for {request.platform}" if request.platform else ""
        others = f", only for {', '.join(sorted(set(platforms.values())))}" if platforms else ""
        raise BundleError(f"{SAVE_LABEL}: {request.reference}{platform_note} not found{others}")
    if len(matches) > 1:
        available = ", ".join(sorted(platforms.values()))
        raise BundleError(f"{SAVE_LABEL}: {request.reference} has several platforms, and none is selected: {available}")
    return matches[0]


def _parse_config(image: ExtractedImage) -> ImageConfig:
    return parse_document(image.config, ImageConfig, f"{SAVE_LABEL}: config {image.config_digest}")


def _create_packed_image(image: ExtractedImage, spool: Path, spooled: Iterable[SpooledLayer]) -> PackedImage:
    manifest = image.manifest or _create_manifest(image)
    identity = ImageIdentity(image.config_digest, sha256_digest(manifest), _parse_config(image).platform, image.layers)
    digests = {layer.digest for layer in image.layers}
    own = [entry for entry in spooled if entry.layer.digest in digests]
    return PackedImage(
        identity,
        image.config,
        manifest,
        spool,
        unverified=frozenset(entry.layer.digest for entry in own if entry.is_unverified),
        packages={entry.layer.diff_id: entry.packages for entry in own if entry.packages},
    )


def _create_manifest(image: ExtractedImage) -> bytes:
    layers = [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in image.layers]
    config = {"mediaType": CONFIG_MEDIA_TYPE, "digest": image.config_digest, "size": len(image.config)}
    document = {"schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE, "config": config, "layers": layers}
    return canonical_json(document).encode()
