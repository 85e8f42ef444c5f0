"""The same commands on other engines: today's classic image store, and Engine 20.10."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
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
    """The promoted tiny project, its engine, and its image as described by the manifest and the engine."""

    project: Project
    box: sandbox.Sandbox
    image: dict[str, Any]
    engine_id: str
    dangling: tuple[str, str]
    """The ids of unnamed images in the engine before and after."""

    @property
    def archive(self) -> Path:
        (bundle,) = self.project.bundles()
        (archive,) = (bundle / "images").iterdir()
        return archive


def files_of(bundled: Bundled) -> list[tuple[str, int, int, int, str]]:
    """Return name, mode, owner, group and content digest of each entry of each layer."""
    files = []
    with tarfile.open(bundled.archive) as archive:
        for layer in bundled.image["layers"]:
            blob = archive.extractfile(f"blobs/sha256/{str(layer['digest'])[7:]}")
            with tarfile.open(fileobj=blob, mode="r:gz") as content:
                for entry in content:
                    data = content.extractfile(entry)
                    digest = hashlib.sha256(data.read() if data else b"").hexdigest()
                    files.append((entry.name.rstrip("/"), entry.mode, entry.uid, entry.gid, digest))
    assert files
    return files


def docker(box: sandbox.Sandbox, *arguments: str) -> str:
    """Run the docker command of an engine's own packages."""
    result = subprocess.run(
        ["docker", *arguments], env={**os.environ, **box.environment()}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def leftovers(box: sandbox.Sandbox) -> str:
    """Return the ids of all objects in an engine."""
    lists = (("ps", "--all"), ("image", "ls", "--all"), ("volume", "ls"), ("network", "ls", "--filter", "type=custom"))
    return "".join(docker(box, *command, "--quiet") for command in lists)


@pytest.fixture(scope="module")
def containerd(
    box: sandbox.Sandbox, tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> Iterator[sandbox.Sandbox]:
    """An engine with the containerd store: the session's if it has one."""
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
    """Creates a tiny project for an engine."""
    return lambda box: tiny_project(tmp_path_factory.mktemp("tiny"), busybox, cache, box)


def list_dangling(box: sandbox.Sandbox) -> str:
    return docker(box, "image", "ls", "--all", "--filter", "dangling=true", "--quiet")


def promote_tiny(project: Project, box: sandbox.Sandbox, pinned_by: Bundled | None = None) -> Bundled:
    """Build, test and promote the tiny project on a root file system, which is `pinned_by` another one."""
    (project.root / "app" / "Dockerfile").write_text(ON_PACKAGES)
    project.replace(".lyra.toml", '\n[images.web]\ncontext = "app"\n', PACKAGES)
    if pinned_by:
        shutil.copy(pinned_by.project.root / ".lyra.lock.toml", project.root)
    else:
        assert project.lyra("lock.update").code == 0
    project.commit("a root file system as base")
    before = list_dangling(box)
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    assert "4 of 4 checks passed" in result.out
    dangling = before, list_dangling(box)
    (bundle,) = project.bundles()
    (image,) = json.loads((bundle / "manifest.json").read_text())["images"]
    (reference,) = image["references"]
    engine_id = docker(box, "image", "inspect", "--format", "{{.Id}}", reference).strip()
    return Bundled(project, box, image, engine_id, dangling)


@pytest.fixture(scope="module")
def from_classic(make: Make, classic: sandbox.Sandbox) -> Bundled:
    return promote_tiny(make(classic), classic)


@pytest.fixture(scope="module")
def from_containerd(make: Make, containerd: sandbox.Sandbox, from_classic: Bundled) -> Iterator[Bundled]:
    promoted = promote_tiny(make(containerd), containerd, from_classic)
    yield promoted
    promoted.project.clean()


@pytest.fixture(scope="module")
def from_old(make: Make, old: sandbox.Sandbox, from_classic: Bundled) -> Bundled:
    return promote_tiny(make(old), old, from_classic)


def test_engine_20_lists_unsupported_base_references(make: Make, old: sandbox.Sandbox) -> None:
    project = make(old)
    (project.root / "app" / "Dockerfile").write_text(WITHOUT_ARGUMENT)
    result = project.lyra("build")
    assert result.code == 3
    assert "can only replace a base that is named by a build argument" in result.err
    assert "app/Dockerfile:1: debian:12" in result.err
    assert "app/Dockerfile:2: alpine:3" in result.err
    assert "Write `ARG BASE=…` and `FROM ${BASE}`" in result.err
    assert leftovers(old) == ""


def test_engine_id_is_the_digest_in_the_manifest(
    from_classic: Bundled, from_containerd: Bundled, from_old: Bundled
) -> None:
    assert from_classic.engine_id == from_classic.image["config_digest"]
    assert from_old.engine_id == from_old.image["config_digest"]
    assert from_containerd.engine_id == from_containerd.image["manifest_digest"]


def test_base_leaves_no_dangling_image(from_classic: Bundled, from_containerd: Bundled) -> None:
    for promoted in (from_classic, from_containerd):
        before, after = promoted.dangling
        assert after == before


def test_both_stores_export_the_same_files(from_classic: Bundled, from_containerd: Bundled) -> None:
    assert files_of(from_classic) == files_of(from_containerd)


def test_each_store_loads_archives_of_the_other(from_classic: Bundled, from_containerd: Bundled) -> None:
    for source, target, digest in (
        (from_classic, from_containerd.box, from_classic.image["manifest_digest"]),
        (from_containerd, from_classic.box, from_containerd.image["config_digest"]),
    ):
        (reference,) = source.image["references"]
        docker(target, "image", "rm", "--force", reference)
        docker(target, "load", "--input", str(source.archive))
        assert docker(target, "image", "inspect", "--format", "{{.Id}}", reference).strip() == digest
        name = docker(target, "create", reference).strip()
        docker(target, "rm", name)
        docker(target, "image", "rm", reference)


def test_containerd_store_loads_archive_of_engine_20(from_old: Bundled, from_containerd: Bundled) -> None:
    (reference,) = from_old.image["references"]
    docker(from_containerd.box, "load", "--input", str(from_old.archive))
    image = json.loads(docker(from_containerd.box, "image", "inspect", reference))[0]
    assert image["Id"] == from_old.image["manifest_digest"]
    assert image["RootFS"]["Layers"] == from_old.image["diff_ids"]
    docker(from_containerd.box, "image", "rm", reference)


def test_unchanged_project_is_not_rebuilt_on_classic_store(from_classic: Bundled) -> None:
    again = from_classic.project.lyra("build", "promote")
    assert again.code == 0, again.text
    assert "unchanged" in again.out
    assert "is already promoted with the same digests" in again.out


def test_engine_20_develops_on_rootfs_base_by_build_argument(from_old: Bundled, old: sandbox.Sandbox) -> None:
    again = from_old.project.lyra("build", "create")
    assert again.code == 0, again.text
    assert "unchanged" in again.out, again.text
    assert from_old.project.lyra("dev.exec", "--", "sh", "-c", "echo to errors >&2; exit 7").code == 7
    assert "127.0.0.1:1/lyra-base/root" in docker(old, "image", "ls")


def test_clean_leaves_nothing_in_classic_and_old_engine(
    from_classic: Bundled, from_old: Bundled, classic: sandbox.Sandbox, old: sandbox.Sandbox
) -> None:
    for promoted, box in ((from_classic, classic), (from_old, old)):
        assert leftovers(box) != ""
        cleaned = promoted.project.lyra("clean", "verify")
        assert cleaned.code == 0, cleaned.text
        assert leftovers(box) == ""
