"""From the stream of a `docker save` to images that can be archived, whichever store the engine has."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from lyra_tasks.errors import BundleError
from lyra_tasks.images import documents
from lyra_tasks.images.cache import LayerCache
from lyra_tasks.images.codec import Compression
from lyra_tasks.images.documents import Descriptor, ImageConfig, Index, Layout, Manifest, SavedImage, digest_of, parse
from lyra_tasks.images.identity import ImageIdentity, Layer
from lyra_tasks.images.layers import Spool, SpooledLayer, adopt_layer, blob_path, spool_layer
from lyra_tasks.images.packages import LayerPackages
from lyra_tasks.images.references import full_name
from lyra_tasks.images.saved import WHERE, Incoming, Saved, read_save
from lyra_tasks.images.stage import Block
from lyra_tasks.images.tarball import Readable
from lyra_tasks.records.store import canonical

K = TypeVar("K", bound=Hashable)

_MAX_NESTING = 4
_SAVED = "manifest.json"


@dataclass(frozen=True)
class Wanted:
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
    fresh: frozenset[str]
    packages: Mapping[str, LayerPackages] = field(default_factory=dict)

    def blobs(self) -> dict[str, bytes | Path]:
        """Every blob by its digest: small ones as bytes, layers as files; a layer that is used twice is there once."""
        layers = {layer.digest: blob_path(self.spool, layer.digest) for layer in self.identity.layers}
        return {self.identity.config_digest: self.config, self.identity.manifest_digest: self.manifest, **layers}


@dataclass(frozen=True)
class FoundImage:
    """An image of the save under every name and digest that leads to it; `manifest` is None in the legacy layout."""

    keys: frozenset[str]
    config: bytes
    config_digest: str
    layers: tuple[Layer, ...]
    manifest: bytes | None


def pack(
    stream: Readable,
    wanted: Mapping[K, Wanted],
    spool: Path,
    compression: Compression,
    cache: LayerCache | None = None,
    *,
    packages: bool = False,
    read_back: bool = False,
) -> dict[K, PackedImage]:
    """Read a `docker save` in one pass and return the wanted images, their layers compressed in `spool`.

    A blob that is compressed already is kept, and where all of an image's are, so is its manifest: the digest by which
    the engine knows it stays. With `packages`, layers are looked into while they are unpacked. With `read_back`, the
    caller is going to unpack and compare what is `fresh`, which is not hashed here as well. `spool` must exist; what it
    holds afterwards belongs to the caller. BundleError if the stream is damaged, does not hold a wanted image, or
    holds other layers than the image's config says; CacheMissError if it must be called again, with a new stream and
    without the `cache`.
    """
    place = Spool(spool, compression, cache, packages, read_back)
    spooled: list[SpooledLayer] = []

    def keep(blocks: Iterator[Block], entry: Incoming) -> Layer:
        spooled.append(spool_layer(blocks, place, entry.where, size=entry.size, claimed=entry.claimed))
        return spooled[-1].layer

    images = chosen(read_save(stream, keep), wanted)
    return {key: _packed(image, spool, spooled) for key, image in images.items()}


def pack_blobs(
    wanted: Mapping[K, str],
    spool: Path,
    compression: Compression,
    known: Mapping[str, Layer],
    cache: LayerCache | None = None,
    *,
    packages: bool = False,
) -> dict[K, PackedImage]:
    """The images with the `wanted` manifest digests out of a `spool` that holds all their blobs, named by digest.

    `known` are layers whose blobs there were hashed by the caller, by their digest; all others are hashed and unpacked,
    or compressed where an engine in question would not read them. Otherwise as `pack`.
    """
    place = Spool(spool, compression, cache, packages)
    spooled = {digest: SpooledLayer(layer, fresh=False) for digest, layer in known.items()}
    images = {}
    for key, digest in wanted.items():
        manifest = parse(_document(spool, digest), Manifest, digest)
        saved = Saved({_path(each): _document(spool, each) for each in (digest, manifest.config.digest)})
        for each in (layer.digest for layer in manifest.layers):
            if each not in spooled:
                spooled[each] = adopt_layer(each, place, each)
            saved.layers[_path(each)] = spooled[each].layer
        (image,) = _images_of(saved, Descriptor(mediaType=manifest.media_type, digest=digest, size=0), set(), 0)
        images[key] = _require_layers(image)
    return {key: _packed(image, spool, spooled.values()) for key, image in images.items()}


def _document(spool: Path, digest: str) -> bytes:
    path = blob_path(spool, digest)
    try:
        if path.stat().st_size > documents.MAX_DOCUMENT:
            raise BundleError(f"{digest}: too large for a document")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{digest} is missing") from error


def chosen(saved: Saved, wanted: Mapping[K, Wanted]) -> dict[K, FoundImage]:
    """The wanted images of a save that was read.

    BundleError if one is not in it, or if it holds other layers than the image's config says.
    """
    found = list(_layout_images(saved)) if "index.json" in saved else []
    if not found or _SAVED in saved:
        # of several images without names, a classic store of Engine 25 and newer puts the last alone into the index
        found += _legacy_images(saved, without={image.config_digest for image in found})
    images = {key: _choose(found, want) for key, want in wanted.items()}
    return {key: _require_layers(image) for key, image in images.items()}


def _require_layers(image: FoundImage) -> FoundImage:
    if [layer.diff_id for layer in image.layers] != _config(image).rootfs.diff_ids:
        raise BundleError(f"{WHERE}: the layers of {image.config_digest} are not the ones its config names")
    return image


def _legacy_images(saved: Saved, without: Set[str]) -> Iterator[FoundImage]:
    for entry in parse(saved.document(_SAVED), list[SavedImage], f"{WHERE}: {_SAVED}"):
        config = saved.document(entry.config)
        digest = digest_of(config)
        plain = digest.removeprefix("sha256:")
        if entry.config not in {f"{plain}.json", f"blobs/sha256/{plain}"}:
            raise BundleError(f"{WHERE}: {entry.config} does not have the digest that it is named by")
        if digest in without:
            continue
        names = {full_name(name) for name in entry.repo_tags or ()}
        layers = tuple(saved.layer(path) for path in entry.layers)
        yield FoundImage(frozenset({digest, *names}), config, digest, layers, None)


def _layout_images(saved: Saved) -> Iterator[FoundImage]:
    parse(saved.document("oci-layout"), Layout, f"{WHERE}: oci-layout")
    index = parse(saved.document("index.json"), Index, f"{WHERE}: index.json")
    for descriptor in index.manifests:
        name = (descriptor.annotations or {}).get(documents.NAME_ANNOTATION)
        yield from _images_of(saved, descriptor, {full_name(name)} if name else set(), 0)


def _images_of(saved: Saved, descriptor: Descriptor, keys: set[str], depth: int) -> Iterator[FoundImage]:
    """The images a descriptor leads to; a save holds one platform of an index, and the rest is only mentioned."""
    path = _blob(descriptor)
    if path not in saved or depth > _MAX_NESTING or _is_attestation(descriptor):
        return
    data = _checked(saved, descriptor)
    keys = keys | {descriptor.digest}
    if descriptor.media_type in documents.INDEXES:
        for child in parse(data, Index, f"{WHERE}: {path}").manifests:
            yield from _images_of(saved, child, keys, depth + 1)
        return
    manifest = parse(data, Manifest, f"{WHERE}: {path}")
    config = _checked(saved, manifest.config)
    layers = tuple(saved.layer(_blob(layer)) for layer in manifest.layers)
    original = [layer.digest for layer in layers] == [layer.digest for layer in manifest.layers]
    if original:
        layers = tuple(
            replace(layer, media_type=known.media_type) for layer, known in zip(layers, manifest.layers, strict=True)
        )
    digest = manifest.config.digest
    yield FoundImage(frozenset({*keys, digest}), config, digest, layers, data if original else None)


def _is_attestation(descriptor: Descriptor) -> bool:
    return "vnd.docker.reference.type" in (descriptor.annotations or {})


def _blob(descriptor: Descriptor) -> str:
    return _path(descriptor.digest)


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _checked(saved: Saved, descriptor: Descriptor) -> bytes:
    data = saved.document(_blob(descriptor))
    if digest_of(data) != descriptor.digest:
        raise BundleError(f"{WHERE}: {_blob(descriptor)} does not have the digest that it is named by")
    return data


def _choose(found: list[FoundImage], want: Wanted) -> FoundImage:
    name, at, digest = want.reference.rpartition("@")
    key = digest if at or digest.startswith("sha256:") else full_name(name or digest)
    images = {image.config_digest: image for image in found if key in image.keys}
    platforms = {digest: _config(image).platform for digest, image in images.items()}
    fitting = [image for digest, image in images.items() if want.platform in ("", platforms[digest])]
    if not fitting:
        others = ", ".join(sorted(set(platforms.values()))) or "nothing of that name"
        wish = f" for {want.platform}" if want.platform else ""
        raise BundleError(f"{WHERE}: {want.reference}{wish} is not in it, only {others}")
    if len(fitting) > 1:
        raise BundleError(f"{WHERE}: {want.reference} is there for {', '.join(sorted(platforms.values()))}; say which")
    return fitting[0]


def _config(image: FoundImage) -> ImageConfig:
    return parse(image.config, ImageConfig, f"{WHERE}: config {image.config_digest}")


def _packed(image: FoundImage, spool: Path, spooled: Iterable[SpooledLayer]) -> PackedImage:
    manifest = image.manifest or _manifest(image)
    identity = ImageIdentity(image.config_digest, digest_of(manifest), _config(image).platform, image.layers)
    digests = {layer.digest for layer in image.layers}
    own = [each for each in spooled if each.layer.digest in digests]
    return PackedImage(
        identity,
        image.config,
        manifest,
        spool,
        fresh=frozenset(each.layer.digest for each in own if each.fresh),
        packages={each.layer.diff_id: each.packages for each in own if each.packages},
    )


def _manifest(image: FoundImage) -> bytes:
    layers = [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in image.layers]
    config = {"mediaType": documents.CONFIG, "digest": image.config_digest, "size": len(image.config)}
    document = {"schemaVersion": 2, "mediaType": documents.MANIFEST, "config": config, "layers": layers}
    return canonical(document).encode()
