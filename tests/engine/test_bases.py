"""Bases in a real engine: resolved, locked, loaded under their own tags, and used without a registry."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.dockerfile.lock_file import LockedArchive, LockedImage, LockedRootfs, LockFile
from lyra_tasks.dockerfile.parse import read_dockerfile
from lyra_tasks.dockerfile.stages import list_base_images
from lyra_tasks.engine.bases.inputs import collect_base_requests
from lyra_tasks.engine.bases.materials import group_bases_by_build, install_bases
from lyra_tasks.engine.bases.resolve import BASE_REPOSITORY, BaseResolution, plan_base_installs, resolve_bases
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.errors import ConfigurationError, PreconditionError
from tests.thorough import keep

if TYPE_CHECKING:
    import docker

_FACTS = {
    "BUILDX_METADATA_PROVENANCE": "disabled",
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    "BUILDX_BAKE_ENTITLEMENTS_FS": "0",
}


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    """Return the session's engine for the SDK, and set the environment of the `docker` command."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in engine.cli_environment.items():
            patch.setenv(name, value)
        yield engine.client


def buildx(*arguments: str, **environment: str) -> str:
    """Run `docker buildx` with the engine and return its output."""
    result = subprocess.run(
        ["docker", "buildx", *arguments],
        env={**os.environ, **_FACTS, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def packed(members: Mapping[str, bytes]) -> bytes:
    """Return a tar archive of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(kind: str, data: bytes, **fields: Any) -> dict[str, Any]:
    """Return the descriptor of a blob."""
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(data), "size": len(data), **fields}


def oci_layout(config: bytes, layer: bytes, reference: str) -> dict[str, bytes]:
    """Return the members of an OCI image layout with one image."""
    parts = {"config": descriptor("config.v1+json", config), "layers": [descriptor("layer.v1.tar+gzip", layer)]}
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, **parts}).encode()
    names = {"annotations": {"io.containerd.image.name": f"docker.io/{reference}"}} if reference else {}
    index = {"schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", manifest, **names)]}
    blobs = {f"blobs/sha256/{digest(blob)[7:]}": blob for blob in (config, layer, manifest)}
    return {**blobs, "oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}


def with_attestation(members: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the layout as BuildKit writes it with provenance: a nested index with an attestation manifest."""
    (image,) = json.loads(members["index.json"])["manifests"]
    note = json.dumps({"schemaVersion": 2, "layers": []}).encode()
    unknown = {"os": "unknown", "architecture": "unknown"}
    manifests = [image | {"annotations": {}}, descriptor("manifest.v1+json", note, platform=unknown)]
    inner = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    outer = {"schemaVersion": 2, "manifests": [descriptor("index.v1+json", inner, annotations=image["annotations"])]}
    blobs = {f"blobs/sha256/{digest(blob)[7:]}": blob for blob in (note, inner)}
    return {**members, **blobs, "index.json": json.dumps(outer).encode()}


def platform(client: docker.DockerClient) -> str:
    """Return the engine's architecture as images name it."""
    return str(client.version()["Arch"])


@dataclass
class Workshop:
    """A project with one image `web`, and the images it created in the engine."""

    client: docker.DockerClient
    root: Path
    cache: Path
    id: str = field(default_factory=lambda: f"lyra-bases-{secrets.token_hex(4)}")
    references: list[str] = field(default_factory=list)
    config: Configuration = field(init=False)

    @property
    def release(self) -> int:
        """Return the engine's major version."""
        return int(self.client.version()["Version"].split(".")[0])

    def image(self, text: str, *, name: str = "base") -> str:
        """Build an image of one layer with `text` in the engine."""
        directory = self.root / "source"
        directory.mkdir(exist_ok=True)
        (directory / "content").write_text(text)
        (directory / "Dockerfile").write_text("FROM scratch\nCOPY content /content\nENV TEXT=set\n")
        reference = f"{self.id}/{name}:1"
        buildx("build", "--load", "--tag", reference, str(directory))
        self.references.append(reference)
        return reference

    def archive(self, text: str, *, form: str = "oci") -> None:
        """Write `base.tar` with such an image in the format of one of several programs."""
        reference = f"{self.id}/archived:1"
        layer = packed({"content": text.encode()})
        config = json.dumps(
            {
                "os": "linux",
                "architecture": platform(self.client),
                "config": {"Env": ["TEXT=set"]},
                "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            }
        ).encode()
        if form == "docker-20.10":
            entry = {"Config": "abc.json", "RepoTags": [reference], "Layers": ["abc/layer.tar"]}
            members = {"abc.json": config, "abc/layer.tar": layer, "manifest.json": json.dumps([entry]).encode()}
            members["repositories"] = json.dumps({f"{self.id}/archived": {"1": "abc"}}).encode()
        else:
            members = oci_layout(config, gzip.compress(layer), "" if form == "oci-unnamed" else reference)
        if form == "oci-attested":
            members = with_attestation(members)
        (self.root / "base.tar").write_bytes(packed(members))

    def resolve(
        self,
        dockerfile: str,
        bases: Mapping[str, Any] | None = None,
        *,
        names: Mapping[str, str] | None = None,
        lock: LockFile | None = None,
        update: bool = False,
    ) -> BaseResolution:
        """Resolve the bases of `dockerfile` with these tables of [bases] and `bases` of the image."""
        (self.root / "Dockerfile").write_text(dockerfile)
        images = {"web": {"context": ".", "bases": names or {}}}
        document = {"schema": 1, "project": {"name": "demo"}, "images": images, "bases": bases or {}}
        self.config = Configuration.model_validate(document)
        requests = collect_base_requests(self.config, self.uses())
        return resolve_bases(
            requests,
            lock or LockFile(),
            client=self.client,
            root=self.root,
            cache=self.cache,
            moved=[request.key for request in requests] if update else (),
        )

    def uses(self) -> dict[str, Any]:
        own = f"linux/{platform(self.client)}"
        return {
            "web": [replace(use, platform=own) for use in list_base_images(read_dockerfile(self.root / "Dockerfile"))]
        }

    def install(self, resolution: BaseResolution) -> dict[str, str]:
        installs = plan_base_installs(resolution.bases.values())
        self.references += [install.tag for install in installs]
        return install_bases(installs, self.client, scratch=self.cache / "scratch")

    def bake(self, resolution: BaseResolution) -> str:
        """Build the project's image on its bases as Lyra does, and return BuildKit's output."""
        bases = group_bases_by_build(self.config, self.uses(), resolution.bases)["web"]
        targets: dict[str, Any] = {base.target_name: base.bake_target for base in bases.values() if base.bake_target}
        web: dict[str, Any] = {"context": str(self.root), "output": ["type=cacheonly"]}
        if self.release >= 23:
            web["contexts"] = {reference: base.context for reference, base in bases.items()}
            return self._bake({**targets, "web": web}, "web")
        text = (self.root / "Dockerfile").read_text()
        for reference, base in bases.items():
            text = text.replace(f"FROM {reference}\n", f"FROM {base.reference}\n")
            if base.bake_target:
                self.references.append(base.tag)
                target = {**base.bake_target, "tags": [base.tag], "output": ["type=docker"]}
                self._bake({base.target_name: target}, base.target_name)
        return self._bake({"web": {**web, "dockerfile-inline": text}}, "web")

    def _bake(self, targets: Mapping[str, Any], target: str) -> str:
        definition = self.root / "bake.json"
        definition.write_text(json.dumps({"target": targets}))
        return buildx("bake", "--progress", "plain", "--file", str(definition), target)

    def clean(self) -> None:
        from docker.errors import ImageNotFound

        for reference in self.references:
            with suppress(ImageNotFound):
                self.client.api.remove_image(reference)


@pytest.fixture
def workshop(client: docker.DockerClient, tmp_path: Path, cache: Path) -> Iterator[Workshop]:
    workshop = Workshop(client, tmp_path, cache)
    yield workshop
    workshop.clean()


def tags(client: docker.DockerClient, part: str) -> dict[str, str]:
    images = client.api.images()
    return {tag: image["Id"] for image in images for tag in image.get("RepoTags") or [] if part in tag}


CONFIGURED = {"rootfs": {"suite": "bookworm", "packages": ["ca-certificates"]}}
SMALL = {"rootfs": {"suite": "bookworm", "packages": ["busybox-static"], "variant": "extract"}}


def test_rootfs_replaces_image_without_registry(workshop: Workshop) -> None:
    dockerfile = """\
FROM debian:bookworm-slim
RUN test -s /etc/ssl/certs/ca-certificates.crt && test -L /bin && id nobody
"""
    resolution = workshop.resolve(dockerfile, {"debian": CONFIGURED}, names={"debian:bookworm-slim": "debian"})
    assert isinstance(resolution.lock.bases["debian"], LockedRootfs)
    assert plan_base_installs(resolution.bases.values()) == ()
    assert "docker.io" not in workshop.bake(resolution)


@pytest.fixture(scope="module")
def small(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> LockFile:
    """A lock file with the small root file system, which is built and in the cache."""
    workshop = Workshop(client, tmp_path_factory.mktemp("small"), cache)
    return workshop.resolve("FROM small\n", bases={"small": SMALL}).lock


def test_base_target_digest_is_reproducible(workshop: Workshop, small: LockFile, tmp_path: Path) -> None:
    if workshop.release < 23:
        pytest.skip("BuildKit of this age writes the time of the build into an image")
    base = workshop.resolve("FROM small\n", bases={"small": SMALL}, lock=small).bases["small"]
    reference = f"{workshop.id}/root:1"
    target = {**(base.bake_target or {}), "tags": [reference], "output": ["type=docker"]}
    definition = tmp_path / "bake.json"
    definition.write_text(json.dumps({"target": {base.target_name: target}}))
    workshop.references.append(reference)
    digests = set()
    for arguments, epoch in (((), "1700000000"), (("--no-cache",), "1700000000"), (("--no-cache",), "1800000000")):
        buildx("bake", "--file", str(definition), *arguments, base.target_name, SOURCE_DATE_EPOCH=epoch)
        digests.add(workshop.client.images.get(reference).id)
    assert len(digests) == 1


def test_local_image_is_locked_and_tagged(workshop: Workshop) -> None:
    reference = workshop.image("local")
    resolution = workshop.resolve(f"FROM {reference}\nCOPY Dockerfile /\n")
    pin = resolution.lock.bases[reference]
    assert isinstance(pin, LockedImage)
    assert pin.local
    (install,) = plan_base_installs(resolution.bases.values())
    assert install.tag.startswith(f"{BASE_REPOSITORY}/{workshop.id}-base-1:")
    ids = workshop.install(resolution)
    assert ids == {install.tag: workshop.client.images.get(reference).id}
    assert "docker.io" not in workshop.bake(resolution)

    again = workshop.resolve(f"FROM {reference}\n", lock=resolution.lock)
    assert again.lock == resolution.lock
    assert plan_base_installs(again.bases.values()) == ()


def test_locked_local_image_is_found_by_own_tag(workshop: Workshop) -> None:
    reference = workshop.image("kept")
    resolution = workshop.resolve(f"FROM {reference}\n")
    workshop.install(resolution)
    workshop.client.api.remove_image(reference)
    again = workshop.resolve(f"FROM {reference}\n", lock=resolution.lock)
    assert plan_base_installs(again.bases.values()) == ()


def test_changed_local_image_is_refused_until_update(workshop: Workshop) -> None:
    reference = workshop.image("first")
    lock = workshop.resolve(f"FROM {reference}\n").lock
    workshop.image("second")
    with pytest.raises(PreconditionError) as caught:
        workshop.resolve(f"FROM {reference}\n", lock=lock)
    assert lock.bases[reference].digest[7:19] in caught.value.message  # type: ignore[union-attr]
    assert "lock.update" in caught.value.hint
    assert caught.value.details == (f"{workshop.root}/Dockerfile:1: {reference}",)
    moved = workshop.resolve(f"FROM {reference}\n", lock=lock, update=True).lock
    assert moved.bases[reference] != lock.bases[reference]


@pytest.mark.parametrize("form", keep(2, ["docker-20.10", "oci", "oci-unnamed", "oci-attested", "save"]))
def test_archive_is_loaded_under_own_tag_only(workshop: Workshop, form: str) -> None:
    reference = workshop.image(f"in the engine {form}", name="archived")
    if form == "save":
        (workshop.root / "base.tar").write_bytes(b"".join(workshop.client.api.get_image(reference)))
        workshop.image("another one of that name", name="archived")
    else:
        workshop.archive(f"archived as {form}", form=form)
    before = tags(workshop.client, workshop.id)

    resolution = workshop.resolve("FROM vendor\nCOPY Dockerfile /\n", bases={"vendor": {"archive": "base.tar"}})
    pin = resolution.lock.bases["vendor"]
    assert isinstance(pin, LockedArchive)
    (tag,) = workshop.install(resolution)
    assert tag == f"{BASE_REPOSITORY}/vendor:{pin.digest[7:19]}"
    assert tags(workshop.client, workshop.id) == before
    assert "docker.io" not in workshop.bake(resolution)

    again = workshop.resolve("FROM vendor\n", lock=resolution.lock, bases={"vendor": {"archive": "base.tar"}})
    assert plan_base_installs(again.bases.values()) == ()


def test_replaced_archive_is_refused(workshop: Workshop) -> None:
    file = workshop.root / "base.tar"
    workshop.archive("one")
    lock = workshop.resolve("FROM vendor\n", bases={"vendor": {"archive": "base.tar"}}).lock
    workshop.archive("two")
    with pytest.raises(PreconditionError, match=r"base\.tar contains"):
        workshop.resolve("FROM vendor\n", lock=lock, bases={"vendor": {"archive": "base.tar"}})
    file.unlink()
    with pytest.raises(PreconditionError, match=r"base\.tar does not exist"):
        workshop.resolve("FROM vendor\n", lock=lock, bases={"vendor": {"archive": "base.tar"}})


@pytest.mark.parametrize("spoil", [lambda data: data[:700], lambda data: b"no archive", lambda data: b""])
def test_invalid_archive_is_refused(workshop: Workshop, spoil: Callable[[bytes], bytes]) -> None:
    file = workshop.root / "base.tar"
    workshop.archive("x")
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ConfigurationError, match="is not an image archive"):
        workshop.resolve("FROM vendor\n", bases={"vendor": {"archive": "base.tar"}})


def test_archive_of_several_images_is_refused_but_not_of_several_names(workshop: Workshop) -> None:
    api: Any = workshop.client.api

    def save(names: list[str]) -> None:
        answer = api._get(api._url("/images/get"), params={"names": names})
        (workshop.root / "base.tar").write_bytes(answer.content)

    names = [workshop.image("a", name="a"), workshop.image("b", name="b")]
    repository, _, tag = names[0].rpartition(":")
    api.tag(names[0], repository, f"{tag}-too")
    save([names[0], f"{names[0]}-too"])
    assert workshop.resolve("FROM vendor\n", bases={"vendor": {"archive": "base.tar"}}).lock.bases["vendor"]
    api.remove_image(f"{names[0]}-too")
    save(names)
    with pytest.raises(ConfigurationError, match="contains 2 images"):
        workshop.resolve("FROM vendor\n", bases={"vendor": {"archive": "base.tar"}})


def test_first_available_source_is_locked(workshop: Workshop) -> None:
    absent = f"127.0.0.1:1/{workshop.id}:none"
    tables = {"small": {"image": absent, "archive": "base.tar"} | SMALL}
    resolution = workshop.resolve(f"FROM {absent}\n", tables)
    assert isinstance(resolution.lock.bases["small"], LockedRootfs)
    workshop.archive("now there")
    assert workshop.resolve(f"FROM {absent}\n", bases=tables, lock=resolution.lock).lock == resolution.lock
    updated = workshop.resolve(f"FROM {absent}\n", bases=tables, lock=resolution.lock, update=True)
    assert isinstance(updated.lock.bases["small"], LockedArchive)


def test_changed_source_replaces_pin(workshop: Workshop, small: LockFile) -> None:
    assert isinstance(small.bases["small"], LockedRootfs)
    workshop.archive("x")
    changed = workshop.resolve("FROM small\n", lock=small, bases={"small": {"archive": "base.tar"}}).lock
    assert isinstance(changed.bases["small"], LockedArchive)


def test_unused_pins_are_kept(workshop: Workshop) -> None:
    other = LockedImage(reference="other", digest=f"sha256:{'0' * 64}")
    reference = workshop.image("x")
    assert workshop.resolve(f"FROM {reference}\n", lock=LockFile(bases={"other": other})).lock.bases["other"] == other


def test_unavailable_base_is_reported_with_location(workshop: Workshop) -> None:
    absent = f"127.0.0.1:1/{workshop.id}:none"
    with pytest.raises(PreconditionError) as caught:
        workshop.resolve(f"FROM scratch AS x\nFROM {absent}\n")
    assert absent in caught.value.message
    assert caught.value.details[0] == f"{workshop.root}/Dockerfile:2: {absent}"
    assert "is not in the engine and not available from its registry: " in caught.value.details[1]
    assert "docker load" in caught.value.hint
    assert "rootfs" in caught.value.hint


def test_invalid_reference_is_configuration_error(workshop: Workshop) -> None:
    with pytest.raises(ConfigurationError, match="'UPPER/Case' is not an image reference"):
        workshop.resolve("FROM UPPER/Case\n")
