"""Third-party images: locked, fetched, tested and promoted like own ones."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.engine import registries
from tests.engine.registries import serving
from tests.engine.vendors import SERVICE, build_vendor_image, docker, push_index, save_image
from tests.faults import refused

REFERENCE = "vendor/cache:1"
OTHER = "vendor/queue:1"
OTHER_SERVICE = SERVICE.replace("services.cache", "services.queue").replace('"cache"', '"queue"')
OTHER_SERVICE = OTHER_SERVICE.replace("the cache answers", "the queue answers").replace(REFERENCE, OTHER)
ARCHIVE = '\n[bases.cache]\narchive = "vendor/cache.tar"\n'
UNUSED = '\n[bases.cash]\narchive = "cash.tar"\nimage = "cash:1"\n'
ROOTFS = """
[bases.busybox]
rootfs = { suite = "trixie", packages = ["busybox-static"], variant = "extract" }

[services.cache]
image = "busybox:1"
user = "65534:65534"
command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/bin"]
ports = { http = 8080 }
limits = { cpus = 0.1, memory = "16m", pids = 16, disk = "8m" }
healthcheck = { exec = ["/bin/busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/busybox"] }

[[tests]]
name = "it is busybox"
service = "cache"
exec = ["/bin/busybox", "true"]
"""
LIST_VOLUMES = "/bin/busybox stat -c %u:%g:%a /data /open /nowhere; cat /open/seed"
VOLUMES_CHECK = """
[services.cache.volumes.open]
path = "/open"
description = "for everybody"
size = "1m"

[services.cache.volumes.nowhere]
path = "/nowhere"
description = "for nobody"
size = "1m"

[[tests]]
name = "the volumes are as in the image"
service = "cache"
exec = "{command}"
output = \"\"\"
{output}\"\"\"
"""
ONLY_THIRD_PARTY = 'schema = 1\n\n[project]\nname = "tiny"\ndescription = "A cache"\n'


def add_service(project: Project, text: str = SERVICE) -> None:
    """Add the vendor's service to the project and commit it."""
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(text)
    project.commit("a service of a vendor")


def remove_own_image(project: Project, text: str = SERVICE) -> None:
    """Make the vendor's service the only one of the project."""
    (project.root / ".lyra.toml").write_text(ONLY_THIRD_PARTY + text)
    project.commit("only a vendor's service")


def succeed(project: Project, *arguments: str) -> str:
    """Run the program, which must succeed, and return what it printed."""
    outcome = project.lyra(*arguments)
    assert outcome.code == 0, outcome.text
    return outcome.text


def read_lock(project: Project) -> dict[str, Any]:
    """Return the pins of the lock file."""
    bases: dict[str, Any] = tomllib.loads((project.root / ".lyra.lock.toml").read_text())["bases"]
    return bases


def read_record(project: Project, name: str = "cache") -> dict[str, Any]:
    """Return the record of an image."""
    (path,) = project.state.glob(f"*/images/{name}@*.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def list_names(engine: Engine) -> list[str]:
    """Return the tags and digests that name the images in the engine."""
    images = engine.api.images()
    return [name for image in images for key in ("RepoTags", "RepoDigests") for name in image.get(key) or []]


@pytest.fixture(scope="module")
def kept(box: sandbox.Sandbox, busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build the vendor's image under a name that no project uses; return the name."""
    reference = "kept/cache:1"
    build_vendor_image(box, busybox, tmp_path_factory.mktemp("vendor") / "files", reference)
    yield reference
    docker(box, "image", "rm", reference)


@pytest.fixture
def vendor(box: sandbox.Sandbox, kept: str, engine: Engine) -> Iterator[None]:
    """Tag the vendor's image in the engine."""
    docker(box, "tag", kept, REFERENCE)
    yield
    if REFERENCE in list_names(engine):
        docker(box, "image", "rm", REFERENCE)


@pytest.mark.usefixtures("vendor")
def test_images_of_an_archive_and_of_the_engine_are_locked_tested_and_cleaned(
    tiny: Project, box: sandbox.Sandbox, engine: Engine
) -> None:
    docker(box, "tag", REFERENCE, OTHER)
    save_image(box, REFERENCE, tiny.root / "vendor" / "cache.tar")
    add_service(tiny, ARCHIVE + SERVICE + OTHER_SERVICE)
    try:
        assert "since they cannot be exported" not in succeed(tiny, "build", "test", "promote")
        pins, record = read_lock(tiny), read_record(tiny)
        assert pins["cache"]["path"] == "vendor/cache.tar"
        origin = {"reference": REFERENCE, "digest": pins["cache"]["digest"], "source": "archive"}
        assert record["origin"] == origin
        assert record["config_digest"] == pins["cache"]["digest"], "the bytes of the vendor"
        assert REFERENCE not in list_names(engine)
        assert record["reference"] in list_names(engine)
        shown = json.loads(succeed(tiny, "lock.show", "--json"))
        assert shown["images"]["cache"]["used_by"] == [f"services.cache.image: {REFERENCE}"]
        require_tag_setuid_programs_and_ports_kept(tiny)
        tiny.clean()
        assert record["reference"] not in list_names(engine)
        assert OTHER in list_names(engine), "the tag of the vendor was there before"
    finally:
        docker(box, "image", "rm", OTHER)


def require_tag_setuid_programs_and_ports_kept(tiny: Project) -> None:
    """Check the bundle and the rules of the image that was in the engine."""
    assert read_lock(tiny)[OTHER]["local"] is True
    (bundle,) = tiny.bundles()
    images = json.loads((bundle / "manifest.json").read_text())["images"]
    queue = next(image for image in images if image["name"] == "queue")
    assert queue["config_digest"] == read_record(tiny, "queue")["config_digest"]
    assert queue["origin"]["reference"] == OTHER
    assert queue["references"][0].startswith("tiny/queue:")
    succeed(tiny, "verify")
    (evidence,) = tiny.root.glob(".lyra/runs/*/tests.json")
    rules = {
        rule["rule"]: (rule["outcome"], rule["message"])
        for rule in json.loads(evidence.read_text())["rules"]
        if rule["scope"] in {"images.queue", "services.queue"}
    }
    assert rules["image.setuid"][0] == "skipped"
    assert "/bin/busybox has mode 4755" in rules["image.setuid"][1]
    assert rules["docs.complete"] == ("passed", "")
    assert rules["image.secrets"] == ("passed", "")


@pytest.mark.usefixtures("vendor")
def test_project_without_own_image_needs_no_build(tiny: Project, box: sandbox.Sandbox, engine: Engine) -> None:
    remove_own_image(tiny, UNUSED + SERVICE)
    assert "cache" in succeed(tiny, "build", "--dry-run")
    assert not (tiny.root / ".lyra.lock.toml").exists()
    save_image(box, REFERENCE, tiny.root / "cache-1.tar")
    follow_hint_for_missing_image(tiny)
    assert "[bases.cash] is not used" in succeed(tiny, "test", "promote")
    assert read_lock(tiny)[REFERENCE]["source"] == "archive"
    assert len(tiny.bundles()) == 1
    built = succeed(tiny, "build")
    assert "Nothing to build" in built
    assert "unchanged" in built
    succeed(tiny, "create")
    images = [container["ImageID"] for container in engine.api.containers() if "cache" in container["Names"][0]]
    assert images == [read_record(tiny)["image_id"]], "the development environment uses the tested image"


def follow_hint_for_missing_image(tiny: Project) -> None:
    """Test without the image, and append what the hint of the error says to the configuration."""
    outcome = tiny.lyra("test")
    refused(outcome, 3, f"Image {REFERENCE} is not available", f"services.cache.image: {REFERENCE}")
    lines = [line.strip() for line in outcome.err.splitlines()]
    table = lines.index(f'[bases."{REFERENCE}"]')
    with (tiny.root / ".lyra.toml").open("a") as file:
        file.write("\n".join(["", *lines[table : table + 2], ""]))


def test_dry_run_names_unavailable_third_party_images(tiny: Project) -> None:
    add_service(tiny)
    refused(tiny.lyra("build", "--dry-run"), 3, f"Image {REFERENCE} is not available", f'[bases."{REFERENCE}"]')
    remove_own_image(tiny)
    refused(tiny.lyra("build", "--dry-run"), 3, f"Image {REFERENCE} is not available", f'[bases."{REFERENCE}"]')
    assert not (tiny.root / ".lyra.lock.toml").exists()


@pytest.mark.usefixtures("vendor")
def test_volumes_are_as_docker_makes_them(tiny: Project, box: sandbox.Sandbox) -> None:
    """Docker copies content, owner and mode of the image's directory into a new volume; a missing one is root's."""
    directories = ("/data", "/open", "/nowhere")
    options = ("--rm", "--network=none", *(f"--volume={directory}" for directory in directories))
    by_docker = docker(box, "run", *options, REFERENCE, "sh", "-c", LIST_VOLUMES)
    assert by_docker.split() == ["65534:65534:755", "0:0:1777", "0:0:755", "cached"]
    check = VOLUMES_CHECK.format(command=LIST_VOLUMES, output=by_docker)
    remove_own_image(tiny, SERVICE.partition("\n[[tests]]")[0] + check)
    message = "volume nowhere: user 65534:65534 cannot write: /nowhere is not in the image"
    refused(tiny.lyra("test"), 5, message)
    tiny.replace(".lyra.toml", 'path = "/nowhere"\n', 'path = "/nowhere"\nowner = "0:0" # it need not write there\n')
    tiny.commit("an owner")
    succeed(tiny, "test")


@pytest.mark.usefixtures("named_contexts")
def test_hint_for_a_missing_base_ends_the_error(tiny: Project) -> None:
    (tiny.root / "app" / "Dockerfile").write_text("FROM busybox:1.36\nCOPY motd.txt /www/motd.txt\nUSER 65534\n")
    outcome = tiny.lyra("build")
    refused(outcome, 3, "Image busybox:1.36 is not available", "app/Dockerfile:1: busybox:1.36")
    lines = [line.strip() for line in outcome.err.splitlines()]
    table = lines.index('[bases."busybox:1.36"]')
    with (tiny.root / ".lyra.toml").open("a") as file:
        file.write("\n".join(["", *lines[table : table + 3], ""]))
    succeed(tiny, "build")
    assert read_lock(tiny)["busybox:1.36"]["source"] == "rootfs", "the archive is not there"


def test_short_name_of_several_references_is_refused(lonely: Project) -> None:
    other = SERVICE.replace("services.cache", "services.other").replace("cache:1", "cache:2")
    remove_own_image(lonely, ARCHIVE + SERVICE.partition("[[tests]]")[0] + other.partition("[[tests]]")[0])
    (lonely.root / "vendor").mkdir()
    (lonely.root / "vendor" / "cache.tar").touch()
    expected = "[bases.cache] may be any of vendor/cache:1, vendor/cache:2", '[bases."vendor/cache:1"]'
    refused(lonely.lyra("lock.show"), 2, *expected)


def test_lock_is_shown_without_an_engine(lonely: Project) -> None:
    remove_own_image(lonely)
    assert "not locked yet" in succeed(lonely, "lock.show")
    refused(lonely.lyra("lock.update", "cash"), 3, "engine")


def test_lock_wins_until_it_is_moved(
    tiny: Project, vendor: None, box: sandbox.Sandbox, busybox: Path, tmp_path: Path
) -> None:
    remove_own_image(tiny)
    succeed(tiny, "build")
    first = read_record(tiny)["config_digest"]
    build_vendor_image(box, busybox, tmp_path / "vendor", text="cached anew")
    succeed(tiny, "build")
    assert read_record(tiny)["config_digest"] == first, "the locked one is still there"
    refused(tiny.lyra("lock.update", "cash"), 2, "Nothing named 'cash' is used here", "Did you mean cache?")
    before = read_lock(tiny)
    succeed(tiny, "lock.update", "vendor/cache", "--dry-run")
    assert read_lock(tiny) == before
    succeed(tiny, "lock.update", "cache")
    refused(tiny.lyra("promote"), 3, "was fetched before its lock changed", "Run `lyra test` first")
    assert "was fetched before its lock changed" in succeed(tiny, "explain")
    succeed(tiny, "test")
    assert read_record(tiny)["config_digest"] != first
    tiny.clean()
    docker(box, "image", "rm", REFERENCE)
    build_vendor_image(box, busybox, tmp_path / "vendor", text="cached once more")
    refused(tiny.lyra("test"), 3, f"Locked image {REFERENCE}", f"lock.update {REFERENCE}")


def test_registry_image_is_pulled_by_digest(
    tiny: Project, vendor: None, box: sandbox.Sandbox, engine: Engine, tmp_path: Path, cache: Path
) -> None:
    remove_own_image(tiny)
    with serving(tmp_path, cache, users=registries.ADA, box=box) as host:
        reference = f"{host}/team/cache:1"
        tiny = registries.as_ada(tiny, tmp_path / "login", host)
        docker(box, "tag", REFERENCE, reference)
        docker(box, "--config", str(tmp_path / "login"), "push", "--quiet", reference)
        docker(box, "image", "rm", reference, REFERENCE)
        tiny.replace(".lyra.toml", REFERENCE, reference)
        tiny.commit("from a registry")
        succeed(tiny, "test", "promote")
        pin = read_lock(tiny)[reference]
        assert (pin["source"], pin["local"]) == ("image", False)
        names = [name for name in list_names(engine) if host in name]
        assert names == [], "the name that it was pulled by is gone"
        tiny.clean()
        succeed(tiny, "build")
        assert read_record(tiny)["reference"] in list_names(engine)
        assert read_lock(tiny)[reference] == pin


@pytest.mark.thorough
def test_debian_packages_are_a_source(tiny: Project, engine: Engine) -> None:
    remove_own_image(tiny, ROOTFS)
    succeed(tiny, "test", "promote")
    assert read_record(tiny)["origin"]["source"] == "rootfs"
    tiny.clean()
    assert not [name for name in list_names(engine) if name.startswith("tiny/")]


def test_image_without_a_platform_is_refused(tiny: Project, vendor: None, box: sandbox.Sandbox) -> None:
    save_image(box, REFERENCE, tiny.root / "vendor" / "cache.tar")
    proxima = '\n[proxima]\nplatforms = ["linux/amd64", "linux/arm64"]\n'
    remove_own_image(tiny, proxima + ARCHIVE + SERVICE)
    refused(tiny.lyra("test"), 2, "is for linux/amd64, not for linux/arm64")
    tiny.replace(".lyra.toml", 'image = "vendor/cache:1"\n', 'image = "vendor/cache:1"\nplatform = "linux/amd64"\n')
    tiny.commit("one platform")
    succeed(tiny, "build")


@pytest.mark.thorough
def test_each_platform_of_an_index_is_fetched(
    tiny: Project, box: sandbox.Sandbox, engine: Engine, busybox: Path, tmp_path: Path, cache: Path
) -> None:
    if engine.facts.store != "containerd":
        pytest.skip("the builder of a classic store builds for one platform")
    proxima = '\n[proxima]\nplatforms = ["linux/amd64", "linux/arm64"]\n'
    with serving(tmp_path, cache, box=box) as host:
        reference = push_index(box, busybox, tmp_path / "index", f"{host}/team/cache:1")
        remove_own_image(tiny, proxima + SERVICE.replace(REFERENCE, reference))
        succeed(tiny, "test")
        records = [json.loads(path.read_text()) for path in sorted(tiny.state.glob("*/images/cache@*.json"))]
        assert [record["platform"] for record in records] == ["linux/amd64", "linux/arm64"]
        assert len({record["config_digest"] for record in records}) == 2
        assert len({record["origin"]["digest"] for record in records}) == 1, "the lock has the digest of the index"
        assert [name for name in list_names(engine) if host in name] == []
        results = json.loads(next(tiny.root.glob(".lyra/runs/*/tests.json")).read_text())
        outcomes = {(rule["rule"], rule["scope"]): rule["outcome"] for rule in results["rules"]}
        assert outcomes["image.platform", "images.cache@linux/arm64"] == "passed"
        assert outcomes["test.platform", "images.cache@linux/arm64"] == "warning"
        tiny.replace(".lyra.toml", '"linux/arm64"]', '"linux/s390x"]')
        tiny.commit("another platform")
        refused(tiny.lyra("test"), 3, f"{reference} is not available for linux/s390x", "`platform`")
