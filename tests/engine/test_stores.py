"""The same words on other engines: the classic store of today, and Engine 20.10."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.engine import sandbox
from tests.conftest import Project, tiny_project

Make = Callable[[sandbox.Sandbox], Project]

WITHOUT_ARGUMENT = "FROM debian:12\nCOPY --from=alpine:3 /etc/os-release /other\n"
ON_PACKAGES = """\
ARG ROOT=debian:12
FROM ${ROOT}
COPY bin /bin
COPY www /www
COPY --chown=65534:65534 data /data
USER 65534:65534
EXPOSE 8080
CMD ["busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]
"""
PACKAGES = """
[bases.root]
rootfs = { suite = "bookworm", packages = ["busybox-static"], variant = "extract" }

[images.web]
context = "app"
bases = { "debian:12" = "root" }
"""


@dataclass(frozen=True)
class Bundled:
    """The tiny project after all the words, the engine it ran on, and its image as the manifest and the engine say."""

    project: Project
    box: sandbox.Sandbox
    image: dict[str, Any]
    engine_id: str

    @property
    def archive(self) -> Path:
        (bundle,) = self.project.bundles()
        return bundle / str(self.image["file"])


def files_of(bundled: Bundled) -> list[tuple[str, int, int, int, str]]:
    """Every entry of every layer: name, mode, owner, group and the digest of its content; times are the build's own."""
    found = []
    with tarfile.open(bundled.archive) as archive:
        for layer in bundled.image["layers"]:
            blob = archive.extractfile(f"blobs/sha256/{str(layer['digest'])[7:]}")
            with tarfile.open(fileobj=blob, mode="r:gz") as content:
                for entry in content:
                    data = content.extractfile(entry)
                    digest = hashlib.sha256(data.read() if data else b"").hexdigest()
                    found.append((entry.name.rstrip("/"), entry.mode, entry.uid, entry.gid, digest))
    assert found
    return found


def docker(box: sandbox.Sandbox, *words: str) -> str:
    """Run the docker command of an engine's own packages."""
    done = subprocess.run(
        ["docker", *words], env={**os.environ, **box.environment()}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def leftovers(box: sandbox.Sandbox) -> str:
    """Everything in an engine that somebody made."""
    lists = (("ps", "--all"), ("image", "ls", "--all"), ("volume", "ls"), ("network", "ls", "--filter", "type=custom"))
    return "".join(docker(box, *words, "--quiet") for words in lists)


@pytest.fixture(scope="module")
def containerd(
    box: sandbox.Sandbox, tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> Iterator[sandbox.Sandbox]:
    """The session's engine if it has the containerd store, else one that has."""
    if box.store == "containerd":
        yield box
        return
    state = tmp_path_factory.mktemp("containerd")
    yield sandbox.launch_sandbox(state, cache=cache)
    sandbox.shut_down_sandbox(state, purge=True)


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[sandbox.Sandbox]:
    """Today's engine with the classic store."""
    state = tmp_path_factory.mktemp("classic")
    yield sandbox.launch_sandbox(state, cache=cache, store="graph")
    sandbox.shut_down_sandbox(state, purge=True)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[sandbox.Sandbox]:
    """Engine 20.10: no named contexts, no single files of volumes, no other store."""
    state = tmp_path_factory.mktemp("old")
    yield sandbox.launch_sandbox(state, cache=cache, suite="bookworm")
    sandbox.shut_down_sandbox(state, purge=True)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path) -> Make:
    """Makes a tiny project for an engine."""
    return lambda box: tiny_project(tmp_path_factory.mktemp("tiny"), busybox, cache, box)


def bundled(project: Project, box: sandbox.Sandbox) -> Bundled:
    """Build, test and promote."""
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    (bundle,) = project.bundles()
    (image,) = json.loads((bundle / "manifest.json").read_text())["images"]
    (reference,) = image["references"]
    return Bundled(project, box, image, docker(box, "image", "inspect", "--format", "{{.Id}}", reference).strip())


@pytest.fixture(scope="module")
def from_classic(make: Make, classic: sandbox.Sandbox) -> Bundled:
    return bundled(make(classic), classic)


@pytest.fixture(scope="module")
def from_containerd(make: Make, containerd: sandbox.Sandbox) -> Iterator[Bundled]:
    made = bundled(make(containerd), containerd)
    yield made
    made.project.clean()


@pytest.fixture(scope="module")
def from_old(make: Make, old: sandbox.Sandbox) -> Bundled:
    return bundled(make(old), old)


def test_each_store_knows_an_image_by_the_digest_that_the_manifest_says(
    from_classic: Bundled, from_containerd: Bundled, from_old: Bundled
) -> None:
    assert from_classic.engine_id == from_classic.image["config_digest"]
    assert from_old.engine_id == from_old.image["config_digest"]
    assert from_containerd.engine_id == from_containerd.image["manifest_digest"]


def test_either_store_gives_the_same_files(from_classic: Bundled, from_containerd: Bundled) -> None:
    assert files_of(from_classic) == files_of(from_containerd)


def test_what_one_store_gave_the_other_loads(from_classic: Bundled, from_containerd: Bundled) -> None:
    for given, taker, digest in (
        (from_classic, from_containerd.box, from_classic.image["manifest_digest"]),
        (from_containerd, from_classic.box, from_containerd.image["config_digest"]),
    ):
        (reference,) = given.image["references"]
        docker(taker, "image", "rm", "--force", reference)
        docker(taker, "load", "--input", str(given.archive))
        assert docker(taker, "image", "inspect", "--format", "{{.Id}}", reference).strip() == digest
        name = docker(taker, "create", reference).strip()
        docker(taker, "rm", name)
        docker(taker, "image", "rm", reference)


def test_what_engine_20_gave_loads_into_a_containerd_store(from_old: Bundled, from_containerd: Bundled) -> None:
    (reference,) = from_old.image["references"]
    docker(from_containerd.box, "load", "--input", str(from_old.archive))
    seen = json.loads(docker(from_containerd.box, "image", "inspect", reference))[0]
    assert seen["Id"] == from_old.image["manifest_digest"]
    assert seen["RootFS"]["Layers"] == from_old.image["diff_ids"]
    docker(from_containerd.box, "image", "rm", reference)


def test_nothing_changed_is_nothing_done_on_the_classic_store(from_classic: Bundled) -> None:
    again = from_classic.project.lyra("build", "test", "promote")
    assert again.code == 0, again.text
    assert "unchanged" in again.out
    assert "is promoted already, with the same digests" in again.out


def test_after_clean_the_engine_holds_nothing(
    from_classic: Bundled, from_old: Bundled, classic: sandbox.Sandbox, old: sandbox.Sandbox
) -> None:
    for made, box in ((from_classic, classic), (from_old, old)):
        assert made.project.lyra("build").code == 0
        assert leftovers(box) != ""
        made.project.clean()
        assert leftovers(box) == ""
        assert made.project.lyra("verify").code == 0


def test_engine_20_builds_on_a_base_of_packages_where_a_from_is_an_argument(make: Make, old: sandbox.Sandbox) -> None:
    project = make(old)
    (project.root / "app" / "Dockerfile").write_text(ON_PACKAGES)
    project.replace(".lyra.toml", '\n[images.web]\ncontext = "app"\n', PACKAGES)
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    again = project.lyra("build")
    assert "unchanged" in again.out, again.text
    assert "127.0.0.1:1/lyra-base/root" in docker(old, "image", "ls")
    project.clean()
    assert leftovers(old) == ""


def test_engine_20_names_every_base_that_it_cannot_be_given(make: Make, old: sandbox.Sandbox) -> None:
    project = make(old)
    (project.root / "app" / "Dockerfile").write_text(WITHOUT_ARGUMENT)
    result = project.lyra("build")
    assert result.code == 3
    assert "takes a base only as the build argument that a FROM consists of" in result.err
    assert "app/Dockerfile:1: debian:12" in result.err
    assert "app/Dockerfile:2: alpine:3" in result.err
    assert "write `ARG BASE=…` and `FROM ${BASE}`" in result.err
    assert leftovers(old) == ""


def test_a_base_that_is_only_built_on_does_not_stay_as_an_image_without_a_name(
    make: Make, containerd: sandbox.Sandbox, classic: sandbox.Sandbox
) -> None:
    for each in (containerd, classic):
        project = make(each)
        (project.root / "app" / "Dockerfile").write_text(ON_PACKAGES)
        project.replace(".lyra.toml", '\n[images.web]\ncontext = "app"\n', PACKAGES)
        before = docker(each, "image", "ls", "--all", "--filter", "dangling=true", "--quiet")
        assert project.lyra("build").code == 0
        assert docker(each, "image", "ls", "--all", "--filter", "dangling=true", "--quiet") == before
        project.clean()
