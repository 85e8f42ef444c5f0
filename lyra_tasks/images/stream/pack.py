"""From the stream of a `docker save` to images that can be archived, whichever store the engine has."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from lyra_tasks.errors import BundleError
from lyra_tasks.images.oci import (
    CONFIG_MEDIA_TYPE,
    INDEX_MEDIA_TYPES,
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
    parse_document,
    sha256_digest,
)
from lyra_tasks.images.scan.packages import LayerPackages
from lyra_tasks.images.stream.cache import LayerCache
from lyra_tasks.images.stream.codec import Compression
from lyra_tasks.images.stream.docker_save import SAVE_LABEL, IncomingLayer, SaveContents, read_docker_save
from lyra_tasks.images.stream.layers import Spool, SpooledLayer, adopt_layer, blob_path, spool_layer
from lyra_tasks.images.stream.pipeline import Block
from lyra_tasks.images.stream.tar import Readable
from lyra_tasks.records.record import canonical_json
from lyra_tasks.references import normalize_reference

K = TypeVar("K", bound=Hashable)

_MAX_NESTING = 4
_SAVE_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ImageRequest:
    """An image to take out of a save: by reference or `sha256:…` (of config, manifest or index), for one platform."""

    reference: str
    platform: str = ""


@dataclass(frozen=True)
class PackedImage:
    """An image whose config and manifest are at hand and whose layers lie in `spool`, named by their digest.

    `fresh` are the digests of the layers that were compressed just now: nobody has unpacked these bytes yet. All others
    were unpacked and hashed, on the way or, as the cache of layers remembers, before. `packages` is what layers say, by
    diff id, of those that were looked at on the way.
    """

    identity: ImageIdentity
    config: bytes
    manifest: bytes
    spool: Path
    unverified: frozenset[str]
    packages: Mapping[str, LayerPackages] = field(default_factory=dict)

    def blobs(self) -> dict[str, bytes | Path]:
        """Every blob by its digest: small ones as bytes, layers as files; a layer that is used twice is there once."""
        layers = {layer.digest: blob_path(self.spool, layer.digest) for layer in self.identity.layers}
        return {self.identity.config_digest: self.config, self.identity.manifest_digest: self.manifest, **layers}


@dataclass(frozen=True)
class ExtractedImage:
    """An image of the save under every name and digest that leads to it; `manifest` is None in the legacy layout."""

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
    """Read a `docker save` in one pass and return the wanted images, their layers compressed in `spool`.

    A blob that is compressed already is kept, and where all of an image's are, so is its manifest: the digest by which
    the engine knows it stays. With `packages`, layers are looked into while they are unpacked. With `read_back`, the
    caller is going to unpack and compare what is `fresh`, which is not hashed here as well. `spool` must exist; what it
    holds afterwards belongs to the caller. BundleError if the stream is damaged, does not hold a wanted image, or
    holds other layers than the image's config says; CacheMissError if it must be called again, with a new stream and
    without the `cache`.
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
) -> dict[K, PackedImage]:
    """The images with the `wanted` manifest digests out of a `spool` that holds all their blobs, named by digest.

    `known` are layers whose blobs there were hashed by the caller, by their digest; all others are hashed and unpacked,
    or compressed where an engine in question would not read them. Otherwise as `pack`.
    """
    spool_settings = Spool(spool, compression, cache, read_packages)
    spooled = {digest: SpooledLayer(layer, is_unverified=False) for digest, layer in known.items()}
    images = {}
    for key, digest in manifest_digests.items():
        manifest = parse_document(_read_document(spool, digest), ImageManifest, digest)
        save = SaveContents(
            {
                _blob_member(document_digest): _read_document(spool, document_digest)
                for document_digest in (digest, manifest.config.digest)
            }
        )
        for layer_digest in (layer.digest for layer in manifest.layers):
            if layer_digest not in spooled:
                spooled[layer_digest] = adopt_layer(layer_digest, spool_settings, layer_digest)
            save.layers[_blob_member(layer_digest)] = spooled[layer_digest].layer
        (image,) = _images_of(save, Descriptor(mediaType=manifest.media_type, digest=digest, size=0), set(), 0)
        images[key] = _require_layers(image)
    return {key: _create_packed_image(image, spool, spooled.values()) for key, image in images.items()}


def _read_document(spool: Path, digest: str) -> bytes:
    path = blob_path(spool, digest)
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise BundleError(f"{digest}: too large for a document")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{digest} is missing") from error


def select_images(save: SaveContents, requests: Mapping[K, ImageRequest]) -> dict[K, ExtractedImage]:
    """The wanted images of a save that was read.

    BundleError if one is not in it, or if it holds other layers than the image's config says.
    """
    candidates = list(_layout_images(save)) if "index.json" in save else []
    if not candidates or _SAVE_MANIFEST in save:
        # of several images without names, a classic store of Engine 25 and newer puts the last alone into the index
        candidates += _legacy_images(save, excluded={image.config_digest for image in candidates})
    images = {key: _select_image(candidates, request) for key, request in requests.items()}
    return {key: _require_layers(image) for key, image in images.items()}


def _require_layers(image: ExtractedImage) -> ExtractedImage:
    if [layer.diff_id for layer in image.layers] != _parse_config(image).rootfs.diff_ids:
        raise BundleError(f"{SAVE_LABEL}: the layers of {image.config_digest} are not the ones its config names")
    return image


def _legacy_images(save: SaveContents, excluded: Set[str]) -> Iterator[ExtractedImage]:
    for entry in parse_document(save.document(_SAVE_MANIFEST), list[SavedImage], f"{SAVE_LABEL}: {_SAVE_MANIFEST}"):
        config = save.document(entry.config)
        digest = sha256_digest(config)
        hex_digest = digest.removeprefix("sha256:")
        if entry.config not in {f"{hex_digest}.json", f"blobs/sha256/{hex_digest}"}:
            raise BundleError(f"{SAVE_LABEL}: {entry.config} does not have the digest that it is named by")
        if digest in excluded:
            continue
        names = {normalize_reference(name) for name in entry.repo_tags or ()}
        layers = tuple(save.layer(path) for path in entry.layers)
        yield ExtractedImage(frozenset({digest, *names}), config, digest, layers, None)


def _layout_images(save: SaveContents) -> Iterator[ExtractedImage]:
    parse_document(save.document("oci-layout"), LayoutDocument, f"{SAVE_LABEL}: oci-layout")
    index = parse_document(save.document("index.json"), ImageIndex, f"{SAVE_LABEL}: index.json")
    for descriptor in index.manifests:
        name = (descriptor.annotations or {}).get(NAME_ANNOTATION)
        yield from _images_of(save, descriptor, {normalize_reference(name)} if name else set(), 0)


def _images_of(save: SaveContents, descriptor: Descriptor, keys: set[str], depth: int) -> Iterator[ExtractedImage]:
    """The images a descriptor leads to; a save holds one platform of an index, and the rest is only mentioned."""
    path = _descriptor_member(descriptor)
    if path not in save or depth > _MAX_NESTING or _is_attestation(descriptor):
        return
    data = _read_verified(save, descriptor)
    keys = keys | {descriptor.digest}
    if descriptor.media_type in INDEX_MEDIA_TYPES:
        for child in parse_document(data, ImageIndex, f"{SAVE_LABEL}: {path}").manifests:
            yield from _images_of(save, child, keys, depth + 1)
        return
    manifest = parse_document(data, ImageManifest, f"{SAVE_LABEL}: {path}")
    config = _read_verified(save, manifest.config)
    layers = tuple(save.layer(_descriptor_member(layer)) for layer in manifest.layers)
    is_original = [layer.digest for layer in layers] == [layer.digest for layer in manifest.layers]
    if is_original:
        layers = tuple(
            replace(layer, media_type=known.media_type) for layer, known in zip(layers, manifest.layers, strict=True)
        )
    digest = manifest.config.digest
    yield ExtractedImage(frozenset({*keys, digest}), config, digest, layers, data if is_original else None)


def _is_attestation(descriptor: Descriptor) -> bool:
    return "vnd.docker.reference.type" in (descriptor.annotations or {})


def _descriptor_member(descriptor: Descriptor) -> str:
    return _blob_member(descriptor.digest)


def _blob_member(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _read_verified(save: SaveContents, descriptor: Descriptor) -> bytes:
    data = save.document(_descriptor_member(descriptor))
    if sha256_digest(data) != descriptor.digest:
        raise BundleError(
            f"{SAVE_LABEL}: {_descriptor_member(descriptor)} does not have the digest that it is named by"
        )
    return data


def _select_image(candidates: list[ExtractedImage], request: ImageRequest) -> ExtractedImage:
    name, separator, digest = request.reference.rpartition("@")
    key = digest if separator or digest.startswith("sha256:") else normalize_reference(name or digest)
    images = {image.config_digest: image for image in candidates if key in image.keys}
    platforms = {digest: _parse_config(image).platform for digest, image in images.items()}
    matches = [image for digest, image in images.items() if request.platform in ("", platforms[digest])]
    if not matches:
        available = ", ".join(sorted(set(platforms.values()))) or "nothing of that name"
        platform_note = f" for {request.platform}" if request.platform else ""
        raise BundleError(f"{SAVE_LABEL}: {request.reference}{platform_note} is not in it, only {available}")
    if len(matches) > 1:
        raise BundleError(
            f"{SAVE_LABEL}: {request.reference} is there for {', '.join(sorted(platforms.values()))}; say which"
        )
    return matches[0]


def _parse_config(image: ExtractedImage) -> ImageConfig:
    return parse_document(image.config, ImageConfig, f"{SAVE_LABEL}: config {image.config_digest}")


def _create_packed_image(image: ExtractedImage, spool: Path, spooled: Iterable[SpooledLayer]) -> PackedImage:
    manifest = image.manifest or _create_manifest(image)
    identity = ImageIdentity(image.config_digest, sha256_digest(manifest), _parse_config(image).platform, image.layers)
    digests = {layer.digest for layer in image.layers}
    own_layers = [spooled_layer for spooled_layer in spooled if spooled_layer.layer.digest in digests]
    return PackedImage(
        identity,
        image.config,
        manifest,
        spool,
        unverified=frozenset(spooled_layer.layer.digest for spooled_layer in own_layers if spooled_layer.is_unverified),
        packages={
            spooled_layer.layer.diff_id: spooled_layer.packages
            for spooled_layer in own_layers
            if spooled_layer.packages
        },
    )


def _create_manifest(image: ExtractedImage) -> bytes:
    layers = [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in image.layers]
    config = {"mediaType": CONFIG_MEDIA_TYPE, "digest": image.config_digest, "size": len(image.config)}
    document = {"schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE, "config": config, "layers": layers}
    return canonical_json(document).encode()
