"""`promote --to`: the bundle's bytes in a real registry on this machine's loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from lyra_tasks.images.oci import MANIFEST_MEDIA_TYPE
from tests.conftest import Project
from tests.engine.registries import PASSWORD, as_ada, get, signed_in
from tests.faults import refused


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """The tiny project, promoted as 1.2.0."""
    made = make_tiny()
    made.git("tag", "v1.2.0")
    done = made.lyra("build", "test", "promote")
    assert done.code == 0, done.text
    yield made
    made.clean()


@pytest.fixture
def ada(project: Project, registry: str, tmp_path: Path) -> Project:
    """The project of somebody who is signed in."""
    return as_ada(project, tmp_path / "docker", registry)


def test_a_registry_gets_the_very_bytes_of_the_bundle_under_all_its_tags(ada: Project, registry: str) -> None:
    pushed = ada.lyra("promote", "--to", f"oci://{registry}/team", "--json")
    assert pushed.code == 0, pushed.text
    assert PASSWORD not in pushed.text
    told = json.loads(pushed.out)
    (image,) = told["images"]
    assert {each["reference"] for each in told["pushed"]} == {
        f"{registry}/team/tiny/web:{tag}" for tag in ("1.2.0", "1.2", "1", "latest")
    }
    for tag in ("1.2.0", "1.2", "1", "latest"):
        answer = get(registry, f"team/tiny/web/manifests/{tag}")
        assert answer.headers["Docker-Content-Digest"] == image["manifest_digest"]
    manifest = answer.json()
    assert manifest["config"]["digest"] == image["config_digest"]
    assert [layer["digest"] for layer in manifest["layers"]] == [layer["digest"] for layer in image["layers"]]
    for blob in (manifest["config"], *manifest["layers"]):
        assert len(get(registry, f"team/tiny/web/blobs/{blob['digest']}").content) == blob["size"]
    again = json.loads(ada.lyra("promote", "--to", f"oci://{registry}/team", "--json").out)
    assert (again["made"], {each["uploaded"] for each in again["pushed"]}) == (False, {0})


def test_a_version_that_is_there_with_another_digest_is_refused(ada: Project, registry: str) -> None:
    assert ada.lyra("promote", "--to", f"oci://{registry}/taken").code == 0
    there = get(registry, "taken/tiny/web/manifests/1.2.0").json()
    there["annotations"] = {"made": "elsewhere"}
    with requests.Session() as session:
        session.trust_env = False
        put = session.put(
            f"http://{registry}/v2/taken/tiny/web/manifests/1.2.0", json.dumps(there).encode(),
            auth=("ada", PASSWORD), headers={"Content-Type": MANIFEST_MEDIA_TYPE}, timeout=10,
        )  # fmt: skip
    assert put.status_code == 201
    refused(ada.lyra("promote", "--to", f"oci://{registry}/taken"), 6, "taken/tiny/web:1.2.0 is there already")


def test_credentials_come_from_a_helper_and_without_any_it_is_said_how_to_sign_in(
    project: Project, registry: str, tmp_path: Path
) -> None:
    stranger = signed_in(project, tmp_path / "stranger", {})
    refused(stranger.lyra("promote", "--to", f"oci://{registry}"), 3, "does not let us write", "docker login")
    helped = signed_in(project, tmp_path / "helped", {"credHelpers": {registry: "throwaway"}})
    helper = tmp_path / "docker-credential-throwaway"
    helper.write_text(f'#!/bin/sh\nprintf \'{{"Username": "ada", "Secret": "{PASSWORD}"}}\'\n')
    helper.chmod(0o755)
    done = helped.lyra("promote", "--to", f"oci://{registry}", PATH=f"{tmp_path}:{helped.environment['PATH']}")
    assert done.code == 0, done.text
    assert f"pushed {registry}/tiny/web:1.2.0" in done.out


def test_what_is_no_place_or_does_not_answer_is_said_and_the_bundle_stays(project: Project) -> None:
    refused(project.lyra("promote", "--to", "registry.example/team"), 2, "write oci://HOST")
    refused(project.lyra("promote", "--to", "oci://127.0.0.1:1/team"), 3, "127.0.0.1:1 does not answer")
    assert project.lyra("verify").code == 0


def test_a_version_that_is_pushed_again_takes_no_tag_back_from_a_newer_one(ada: Project, registry: str) -> None:
    newer = ada.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "newer").strip()
    ada.git("tag", "v1.3.0", newer)
    try:
        pushed = ada.lyra("promote", "--to", f"oci://{registry}/again", "--json")
    finally:
        ada.git("tag", "--delete", "v1.3.0")
    assert pushed.code == 0, pushed.text
    assert [each["reference"].rpartition(":")[2] for each in json.loads(pushed.out)["pushed"]] == ["1.2.0", "1.2"]
