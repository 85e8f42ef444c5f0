"""`promote --to`: bundles in a real registry on this machine's loopback."""

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
    """Yield the tiny project, promoted as 1.2.0."""
    project = make_tiny()
    project.git("tag", "v1.2.0")
    outcome = project.lyra("build", "test", "promote")
    assert outcome.code == 0, outcome.text
    yield project
    project.clean()


@pytest.fixture
def ada(project: Project, registry: str, tmp_path: Path) -> Project:
    """Return the project of a signed-in user."""
    return as_ada(project, tmp_path / "docker", registry)


def test_push_uploads_bundle_under_all_tags(ada: Project, registry: str) -> None:
    pushed = ada.lyra("promote", "--to", f"oci://{registry}/team", "--json")
    assert pushed.code == 0, pushed.text
    assert PASSWORD not in pushed.text
    document = json.loads(pushed.out)
    (image,) = document["images"]
    assert {tag["reference"] for tag in document["pushed"]} == {
        f"{registry}/team/tiny/web:{tag}" for tag in ("1.2.0", "1.2", "1", "latest")
    }
    for tag in ("1.2.0", "1.2", "1", "latest"):
        response = get(registry, f"team/tiny/web/manifests/{tag}")
        assert response.headers["Docker-Content-Digest"] == image["manifest_digest"]
    manifest = response.json()
    assert manifest["config"]["digest"] == image["config_digest"]
    assert [layer["digest"] for layer in manifest["layers"]] == [layer["digest"] for layer in image["layers"]]
    for blob in (manifest["config"], *manifest["layers"]):
        assert len(get(registry, f"team/tiny/web/blobs/{blob['digest']}").content) == blob["size"]
    again = json.loads(ada.lyra("promote", "--to", f"oci://{registry}/team", "--json").out)
    assert (again["is_new"], {tag["uploaded_bytes"] for tag in again["pushed"]}) == (False, {0})


def test_push_refuses_existing_version_with_other_digest(ada: Project, registry: str) -> None:
    assert ada.lyra("promote", "--to", f"oci://{registry}/taken").code == 0
    manifest = get(registry, "taken/tiny/web/manifests/1.2.0").json()
    manifest["annotations"] = {"changed": "yes"}
    with requests.Session() as session:
        session.trust_env = False
        put = session.put(
            f"http://{registry}/v2/taken/tiny/web/manifests/1.2.0", json.dumps(manifest).encode(),
            auth=("ada", PASSWORD), headers={"Content-Type": MANIFEST_MEDIA_TYPE}, timeout=10,
        )  # fmt: skip
    assert put.status_code == 201
    refused(ada.lyra("promote", "--to", f"oci://{registry}/taken"), 6, "taken/tiny/web:1.2.0 already exists")


def test_push_uses_credential_helper_or_hints_at_login(project: Project, registry: str, tmp_path: Path) -> None:
    signed_out = signed_in(project, tmp_path / "signed-out", {})
    refused(signed_out.lyra("promote", "--to", f"oci://{registry}"), 3, "Access to tiny/web denied", "docker login")
    with_helper = signed_in(project, tmp_path / "helper", {"credHelpers": {registry: "throwaway"}})
    helper = tmp_path / "docker-credential-throwaway"
    helper.write_text(f'#!/bin/sh\nprintf \'{{"Username": "ada", "Secret": "{PASSWORD}"}}\'\n')
    helper.chmod(0o755)
    outcome = with_helper.lyra(
        "promote", "--to", f"oci://{registry}", PATH=f"{tmp_path}:{with_helper.environment['PATH']}"
    )
    assert outcome.code == 0, outcome.text
    assert f"pushed {registry}/tiny/web:1.2.0" in outcome.out


def test_push_to_invalid_destination_keeps_bundle(project: Project) -> None:
    refused(project.lyra("promote", "--to", "registry.example/team"), 2, "Write oci://HOST")
    refused(project.lyra("promote", "--to", "oci://127.0.0.1:1/team"), 3, "127.0.0.1:1 does not respond")
    assert project.lyra("verify").code == 0


def test_push_does_not_move_tag_of_newer_version(ada: Project, registry: str) -> None:
    newer = ada.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "newer").strip()
    ada.git("tag", "v1.3.0", newer)
    try:
        pushed = ada.lyra("promote", "--to", f"oci://{registry}/again", "--json")
    finally:
        ada.git("tag", "--delete", "v1.3.0")
    assert pushed.code == 0, pushed.text
    assert [tag["reference"].rpartition(":")[2] for tag in json.loads(pushed.out)["pushed"]] == ["1.2.0", "1.2"]
