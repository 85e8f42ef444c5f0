"""Two images on one base: one archive, each layer once, also in a pack, on the oldest engine and in other tools."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lyra_tasks.bundle.format import layout
from lyra_tasks.engine import sandbox
from tests.conftest import Outcome, Project, tiny_project
from tests.engine.readers import READERS, podman_in, run_reader
from tests.engine.vendors import SERVICE, build_vendor_image
from tests.engines import ENGINES
from tests.images.saves import compressed_size
from tests.packages import unpacked
from tests.thorough import keep

DOCKERFILE = """\
FROM scratch AS base
COPY bin /bin
USER 65534:65534

FROM base AS web
COPY www /www
COPY --chown=65534:65534 data /data
EXPOSE 8080
CMD ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]

FROM base AS greeter
COPY motd.txt /motd.txt
CMD ["/bin/busybox", "cat", "/motd.txt"]
"""
GREETER = """
[images.greeter]
context = "app"
target = "greeter"

[services.greeter]
image = "greeter"
oneshot = true
limits = { cpus = 0.2, memory = "16m", pids = 16 }

[[tests]]
name = "the greeter greets"
service = "greeter"
log = "Good"
"""
MAX_OVERHEAD_BYTES = 64 * 1024


def add_greeter(project: Project, text: str = "") -> None:
    """Add a second image on the base of the first one, and more text to the configuration."""
    (project.root / "app/Dockerfile").write_text(DOCKERFILE)
    project.replace(".lyra.toml", 'context = "app"\n', 'context = "app"\ntarget = "web"\n')
    project.replace(".lyra.toml", 'body = "Good morning"', 'body = "Good"')
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(GREETER + text)
    project.commit("a second image")


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Create the tiny project with a second image on the same base."""
    project = make_tiny()
    add_greeter(project)
    yield project
    project.clean()


@pytest.fixture(scope="module")
def bundles(project: Project) -> tuple[Path, Path]:
    """Promote two releases; only the greeter changes."""
    for version, text in (("1.0.0", "Good morning\n"), ("1.1.0", "Good evening\n")):
        (project.root / "app/motd.txt").write_text(text)
        if version != "1.0.0":
            project.commit(version)
        project.git("tag", f"v{version}")
        result = project.lyra("build", "test", "promote")
        assert result.code == 0, result.text
    old, new = project.bundles()
    return old, new


def read_manifest(bundle: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((bundle / layout.MANIFEST_FILE).read_text())
    return manifest


def archive_of(bundle: Path) -> Path:
    (archive,) = read_manifest(bundle)["archives"]
    return bundle / str(archive["file"])


def docker(box: sandbox.Sandbox, *arguments: str) -> bytes:
    """Run docker with an engine."""
    result = subprocess.run(
        ["docker", *arguments], env={**os.environ, **box.environment()}, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def receive(box: sandbox.Sandbox, directory: Path) -> Outcome:
    command, environment = ["sh", str(directory / layout.RECEIVE_SCRIPT)], {**os.environ, **box.environment()}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return Outcome(result.returncode, result.stdout, result.stderr)


def test_archive_has_shared_layer_once(bundles: tuple[Path, Path]) -> None:
    images = read_manifest(bundles[0])["images"]
    layers = [layer["digest"] for image in images for layer in image["layers"]]
    assert len(set(layers)) == len(layers) - 1, "the layer with the programs is shared"
    with tarfile.open(archive_of(bundles[0])) as archive:
        names = archive.getnames()
    assert (len(names), len(set(names))) == (3 + 2 * len(images) + len(set(layers)),) * 2


def test_archive_is_no_larger_than_one_save_of_both(bundles: tuple[Path, Path], box: sandbox.Sandbox) -> None:
    """Compare with the layers of the save compressed alike."""
    manifest = read_manifest(bundles[0])
    compression, digest = "gzip", "manifest_digest" if box.store == "containerd" else "config_digest"
    assert {layer["media_type"].rpartition("+")[2] for image in manifest["images"] for layer in image["layers"]} == {
        compression
    }
    saved = docker(box, "save", *(image[digest] for image in manifest["images"]))
    compressed = compressed_size(io.BytesIO(saved))
    with tarfile.open(archive_of(bundles[0])) as archive:
        size = sum(member.size for member in archive if member.name.startswith("blobs/"))
    assert size <= 1.02 * compressed + 2 * len(manifest["images"]) * 2048, "with configs and manifests"


@pytest.mark.thorough
def test_same_set_promotes_to_same_bytes(project: Project, bundles: tuple[Path, Path]) -> None:
    new = bundles[1]
    before = {path.relative_to(new): path.read_bytes() for path in new.rglob("*") if path.is_file()}
    shutil.rmtree(new)
    result = project.lyra("promote")
    assert result.code == 0, result.text
    after = {path.relative_to(new): path.read_bytes() for path in new.rglob("*") if path.is_file()}
    assert [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)] == []


def test_sha256sum_detects_changed_byte(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    copy = shutil.copytree(bundles[0], tmp_path / "bundle")
    assert subprocess.run(command, cwd=copy, check=False, capture_output=True).returncode == 0
    with archive_of(copy).open("r+b") as archive:
        archive.seek(100_000)
        byte = archive.read(1)
        archive.seek(100_000)
        archive.write(bytes([byte[0] ^ 1]))
    assert subprocess.run(command, cwd=copy, check=False, capture_output=True).returncode == 1


@pytest.fixture(scope="module")
def readers(cache: Path) -> Path:
    """Return the directory of Debian's skopeo, umoci and podman."""
    return unpacked(cache, *READERS, suite="bookworm")


@pytest.mark.parametrize("transport", keep(1, ["docker-archive", "oci-archive"]))
def test_skopeo_reads_each_image_in_both_archive_formats(
    bundles: tuple[Path, Path], readers: Path, transport: str
) -> None:
    for image in read_manifest(bundles[0])["images"]:
        source = f"{transport}:{archive_of(bundles[0])}:{image['references'][0]}"
        manifest = json.loads(run_reader(readers, "skopeo", "inspect", "--raw", source))
        assert manifest["config"]["digest"] == image["config_digest"]
        assert len(manifest["layers"]) == len(image["diff_ids"])


def test_umoci_unpacks_the_image_layout(bundles: tuple[Path, Path], readers: Path, tmp_path: Path) -> None:
    images = read_manifest(bundles[0])["images"]
    image = next(image for image in images if image["name"] == "web")
    subprocess.run(["tar", "--extract", "--file", archive_of(bundles[0]), "--directory", tmp_path], check=True)
    tag = image["references"][0]
    names = [reference for image in images for reference in image["references"]]
    assert sorted(run_reader(readers, "umoci", "ls", "--layout", str(tmp_path)).split()) == sorted(names)
    stat = json.loads(run_reader(readers, "umoci", "stat", "--json", "--image", f"{tmp_path}:{tag}"))
    layers = [entry["layer"] for entry in stat["history"] if entry.get("layer")]
    assert [(layer["digest"], layer["size"]) for layer in layers] == [
        (layer["digest"], layer["size"]) for layer in image["layers"]
    ]
    run_reader(readers, "umoci", "unpack", "--image", f"{tmp_path}:{tag}", str(tmp_path / "unpacked"))
    assert (tmp_path / "unpacked/rootfs/www/index.html").read_text().startswith("<p>It is tiny.")


def test_podman_loads_each_image_with_name_and_id(bundles: tuple[Path, Path], readers: Path) -> None:
    with podman_in(readers) as podman:
        podman("load", "--input", str(archive_of(bundles[0])))
        for image in read_manifest(bundles[0])["images"]:
            (inspected,) = json.loads(podman("image", "inspect", image["references"][0]))
            assert f"sha256:{inspected['Id']}" == image["config_digest"]
            assert inspected["RootFS"]["Layers"] == image["diff_ids"]


@pytest.fixture(scope="module", params=keep(1, ["20.10", "newest"]))
def engine_of_node(
    request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sandbox.Sandbox]:
    """Run the oldest engine, or the newest."""
    kind, state = ENGINES[request.param], tmp_path_factory.mktemp("node")
    try:
        yield sandbox.launch_sandbox(state, cache=cache, suite=kind.suite, store=kind.store)
    finally:
        sandbox.shut_down_sandbox(state, purge=True)


@pytest.fixture
def node(engine_of_node: sandbox.Sandbox) -> Iterator[sandbox.Sandbox]:
    """Return the engine without images."""
    yield engine_of_node
    for image in set(docker(engine_of_node, "image", "ls", "--all", "--quiet").decode().split()):
        docker(engine_of_node, "image", "rm", "--force", image)


def test_node_loads_bundle_then_pack(
    node: sandbox.Sandbox, project: Project, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    medium = tmp_path / "medium"
    medium.mkdir()
    packed = project.lyra("bundle.pack", "1.1.0", "--since", "1.0.0", "--to", str(medium), "--json")
    assert packed.code == 0, packed.text
    (pack,) = medium.iterdir()
    old, new = ({layer["digest"]: layer["size"] for layer in list_layers(bundle)} for bundle in bundles)
    changed = sum(size for digest, size in new.items() if digest not in old)
    assert json.loads(packed.out)["size"] <= changed + MAX_OVERHEAD_BYTES
    (archive,) = json.loads((pack / layout.PACK_FILE).read_text())["archives"]
    assert set(archive["omitted_layers"]) == new.keys() & old.keys()
    assert [image["reference"] for image in archive["required_images"]] == ["tiny/greeter:1.0.0", "tiny/web:1.0.0"]

    refused = receive(node, pack)
    assert (refused.code, "Nothing was loaded" in refused.err) == (31, True), refused.text
    first = receive(node, bundles[0])
    assert (first.code, first.out.count("Loading images/")) == (0, 1), first.text
    second = receive(node, pack)
    assert second.code == 0, second.text
    for name in ("greeter", "web"):
        assert f"tiny/{name}:1.1.0 is loaded and verified" in second.out
    digest = "manifest_digest" if node.store == "containerd" else "config_digest"
    for image in read_manifest(bundles[1])["images"]:
        inspected = docker(node, "image", "inspect", "--format", "{{.Id}}", image["references"][0])
        assert inspected.decode().strip() == image[digest]
    greeting = docker(node, "run", "--rm", "--network", "none", "tiny/greeter:1.1.0")
    assert greeting == b"Good evening\n"
    again = receive(node, pack)
    assert (again.code, again.out.count("is already loaded"), "Loading" in again.out) == (0, 2, False), again.text
    docker(node, "image", "rm", "tiny/web:1.1.0")
    repaired = receive(node, bundles[1])
    assert (repaired.code, repaired.out.count("Loading images/")) == (0, 1), repaired.text
    assert "tiny/greeter:1.1.0 is already loaded" in repaired.out
    assert "tiny/web:1.1.0 is loaded and verified" in repaired.out


@pytest.fixture(scope="module")
def zstd_bundle(tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path) -> Iterator[Path]:
    """Promote from a classic store, whose layers Lyra compresses."""
    state, kind = tmp_path_factory.mktemp("classic"), ENGINES["26.1-classic"]
    box = sandbox.launch_sandbox(state, cache=cache, suite=kind.suite, store=kind.store)
    try:
        project = tiny_project(tmp_path_factory.mktemp("zstd"), busybox, cache, box)
        add_greeter(project, '\n[proxima]\nmin_engine = "26.1"\n')
        result = project.lyra("build", "test", "promote")
        assert result.code == 0, result.text
        (bundle,) = project.bundles()
        yield bundle
    finally:
        sandbox.shut_down_sandbox(state, purge=True)


@pytest.mark.parametrize("engine_name", keep(1, ["26.1-classic", "newest"]))
def test_both_stores_load_zstd_archive(engine_name: str, zstd_bundle: Path, cache: Path, tmp_path: Path) -> None:
    assert {layer["media_type"].rpartition("+")[2] for layer in list_layers(zstd_bundle)} == {"zstd"}
    kind = ENGINES[engine_name]
    box = sandbox.launch_sandbox(tmp_path / "state", cache=cache, suite=kind.suite, store=kind.store)
    try:
        received = receive(box, zstd_bundle)
        assert (received.code, received.out.count("is loaded and verified")) == (0, 2), received.text
    finally:
        sandbox.shut_down_sandbox(tmp_path / "state", purge=True)


@pytest.fixture(scope="module")
def vendor(box: sandbox.Sandbox, busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    build_vendor_image(box, busybox, tmp_path_factory.mktemp("vendor") / "files")
    yield
    docker(box, "image", "rm", "vendor/cache:1")


@pytest.fixture(scope="module")
def mixed(make_tiny: Callable[[], Project], vendor: None) -> Iterator[Project]:
    """Promote the tiny project with two services of a vendor's image, and one that only tests run."""
    project = make_tiny()
    queue = SERVICE.replace("services.cache", "services.queue").replace('"cache"', '"queue"')
    queue = queue.replace("the cache answers", "the queue answers")
    double = '\n[services.double]\nimage = "vendor/cache:1"\npromote = false\n'
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(SERVICE + queue + double)
    project.commit("services of a vendor")
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    for outcome in (result, project.lyra("promote", "--dry-run")):
        assert "not included: double (vendor/cache:1), which only tests run" in outcome.out
    yield project
    project.clean()


@pytest.fixture(scope="module")
def mixed_bundle(mixed: Project) -> Path:
    (bundle,) = mixed.bundles()
    return bundle


def test_third_party_image_travels_under_the_projects_name(mixed_bundle: Path) -> None:
    manifest = read_manifest(mixed_bundle)
    tag = manifest["version"].replace("+", "_")
    images = {image["name"]: image for image in manifest["images"]}
    assert {name: image["references"][0] for name, image in images.items()} == {
        name: f"tiny/{name}:{tag}" for name in ("cache", "queue", "web")
    }
    origin = images["cache"]["origin"]
    assert (images["web"]["origin"], origin["reference"]) == (None, "vendor/cache:1")
    assert images["queue"]["origin"] == origin
    assert manifest["test_doubles"] == [{"service": "double", "reference": "vendor/cache:1"}]
    with tarfile.open(archive_of(mixed_bundle)) as archive:
        index = json.loads(archive.extractfile("index.json").read())  # type: ignore[union-attr]
        saved = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
    annotations = {
        entry["annotations"]["org.opencontainers.image.ref.name"]: entry["annotations"] for entry in index["manifests"]
    }
    for name in ("cache", "queue"):
        assert annotations[f"tiny/{name}:{tag}"]["lyra.origin.reference"] == "vendor/cache:1"
        assert annotations[f"tiny/{name}:{tag}"]["lyra.origin.digest"] == origin["digest"]
        assert "org.opencontainers.image.source" not in annotations[f"tiny/{name}:{tag}"], "that of the project"
    assert "lyra.origin.reference" not in annotations[f"tiny/web:{tag}"]
    assert sorted(names for entry in saved for names in entry["RepoTags"]) == sorted(annotations)
    assert len(saved) == 2, "cache and queue are one image"


def test_documents_name_origin_and_test_double(mixed_bundle: Path) -> None:
    manifest = read_manifest(mixed_bundle)
    digest = next(image["origin"]["digest"] for image in manifest["images"] if image["name"] == "cache")
    page = (mixed_bundle / layout.SUMMARY_FILE).read_text()
    assert "vendor/cache:1" in page and digest in page
    assert "Not included, since only tests run it:" in page
    compose = yaml.safe_load((mixed_bundle / layout.COMPOSE_FILE).read_text())["services"]
    tag = manifest["version"].replace("+", "_")
    assert {name: service["image"] for name, service in compose.items()} == {
        name: f"tiny/{name}:{tag}" for name in ("cache", "queue", "web")
    }
    definition = json.loads((mixed_bundle / layout.PROVENANCE_FILE).read_text())["predicate"]["buildDefinition"]
    assert {"name": "vendor/cache:1", "digest": {"sha256": digest[7:]}} in definition["resolvedDependencies"]
    assert definition["externalParameters"]["images"]["cache"]["reference"] == "vendor/cache:1"
    packages = json.loads((mixed_bundle / layout.sbom_file("cache")).read_text())
    assert packages["metadata"]["component"]["name"] == "tiny/cache"
    assert digest in (mixed_bundle / layout.REPORT_FILE).read_text()


def test_node_loads_third_party_images(node: sandbox.Sandbox, mixed: Project, mixed_bundle: Path) -> None:
    assert mixed.lyra("verify", str(mixed_bundle)).code == 0
    received = receive(node, mixed_bundle)
    assert (received.code, received.out.count("is loaded and verified")) == (0, 3), received.text
    names = docker(node, "image", "ls", "--format", "{{.Repository}}").decode().split()
    assert sorted(names) == ["tiny/cache", "tiny/queue", "tiny/web"], "no name of the vendor"


def list_layers(bundle: Path) -> list[dict[str, Any]]:
    return [layer for image in read_manifest(bundle)["images"] for layer in image["layers"]]
