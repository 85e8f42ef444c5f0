"""Differences between two versions, with an example for each section."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.content.compose import list_service_keys
from lyra_tasks.bundle.diff import SECTIONS, Change, compare_bundles
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.documents import (
    BundleDocuments,
    DescribedService,
    read_bundle_documents,
    read_previous_bundle,
)
from lyra_tasks.bundle.format.index import BundleStore, register_version
from lyra_tasks.bundle.format.manifest import open_bundle, write_document
from lyra_tasks.errors import BundleError, UsageError
from tests.bundle.test_receive_script import DIGESTS, MANIFEST, with_images

SERVICE: dict[str, Any] = {
    "image": "shop/web:1.0.0",
    "user": "10001",
    "environment": [{"name": "NAME", "required": False, "secret": False, "default": "x", "pattern": None}],
    "secrets": [{"name": "key", "path": "/run/secrets/key"}],
    "volumes": [{"name": "data", "path": "/data", "size": 1024**2, "owner": "1:1"}],
    "ports": [{"name": "http", "port": 80}],
    "configs": [{"name": "site", "path": "/etc/site", "file": "configs/web/site"}],
    "limits": {"cpus": 0.5, "memory": 1024**2, "pids": 5, "tmpfs": {"/tmp": 1024}},
    "depends_on": [],
    "egress": False,
    "healthcheck": True,
}
FIRST = BundleDocuments(
    manifest=MANIFEST,
    services={"web": DescribedService.model_validate(SERVICE)},
    settings={"web": {"command": '["serve"]', "init": "true"}},
    packages={"web": {"deb openssl": ("3.0",)}, "counter": {"deb openssl": ("3.0",)}},
    tests={"it works": "passed"},
    deviations={},
    config_digests={"configs/web/site": DIGESTS[0]},
)


def second(**service: Any) -> BundleDocuments:
    manifest = MANIFEST.model_copy(update={"version": "1.3.0"})
    return replace(FIRST, manifest=manifest, services={"web": DescribedService.model_validate(SERVICE | service)})


def test_new_version_alone_is_no_difference() -> None:
    diff = compare_bundles(FIRST, second(image="shop/web:1.3.0"))
    assert (diff.before, diff.after, diff.changes) == (MANIFEST.version, "1.3.0", ())


def test_added_platform_is_an_added_image() -> None:
    (image,) = MANIFEST.images
    arm = image.model_copy(update={"platform": "linux/arm64"})
    both = with_images(image, arm)
    packages = {f"web@{platform}": FIRST.packages["web"] for platform in ("linux/amd64", "linux/arm64")}
    later = replace(FIRST, manifest=both, packages={"counter": FIRST.packages["counter"], **packages})
    for diff, is_new in ((compare_bundles(FIRST, later), True), (compare_bundles(later, FIRST), False)):
        images = [change for change in diff.changes if change.section == "images"]
        assert {change.name for change in images} == {"web@linux/arm64", "web@linux/arm64: platform"}
        assert all((change.before is None) is is_new for change in images)
        package_names = {change.name for change in diff.changes if change.section == "packages"}
        assert package_names == {"web@linux/arm64: deb openssl"}


@pytest.mark.parametrize(
    ("section", "service", "name", "before", "after"),
    [
        ("services", {"user": ""}, "web: user", "10001", "root"),
        ("services", {"egress": True}, "web: egress", "no", "yes"),
        ("services", {"depends_on": ["db"]}, "web: depends on", "nothing", "db"),
        ("environment", {"environment": []}, "web: NAME", "default 'x'", None),
        (
            "environment", {"environment": [SERVICE["environment"][0] | {"template": "${A}x"}]},
            "web: NAME", "default 'x'", "default 'x', made as '${A}x'",
        ),
        (
            "volumes", {"volumes": [SERVICE["volumes"][0] | {"read_only": True}]},
            "web: data", "/data, 1.0 MiB, owner 1:1", "/data, 1.0 MiB, owner 1:1, read-only",
        ),
        ("secrets", {"secrets": []}, "web: key", "/run/secrets/key", None),
        (
            "volumes",
            {"volumes": [SERVICE["volumes"][0] | {"size": 2 * 1024**2}]},
            "web: data", "/data, 1.0 MiB, owner 1:1", "/data, 2.0 MiB, owner 1:1",
        ),
        ("ports", {"ports": [{"name": "http", "port": 81}]}, "web: http", "80", "81"),
        ("ports", {"ports": [{"name": "http", "port": 80, "protocol": "udp"}]}, "web: http", "80", "80/udp"),
        (
            "limits", {"limits": SERVICE["limits"] | {"memory": 2 * 1024**2}},
            "web: memory + tmpfs", "1.0 MiB", "2.0 MiB",
        ),
        ("limits", {"limits": SERVICE["limits"] | {"tmpfs": {}}}, "web: tmpfs /tmp", "1.0 KiB", None),
    ],
)  # fmt: skip
def test_diff_reports_changes_of_a_service(
    section: str, service: dict[str, Any], name: str, before: str | None, after: str | None
) -> None:
    assert compare_bundles(FIRST, second(**service)).changes == (Change(section, name, before, after),)


def test_diff_reports_settings_that_only_the_compose_file_has() -> None:
    after = replace(second(), settings={"web": {"command": '["serve","-v"]', "cap_add": '["CHOWN"]', "init": "true"}})
    assert compare_bundles(FIRST, after).changes == (
        Change("services", "web: cap_add", None, '["CHOWN"]'),
        Change("services", "web: command", '["serve"]', '["serve","-v"]'),
    )


def test_every_key_of_a_service_is_compared(tmp_path: Path) -> None:
    service = {key: f"some {key}" for key in list_service_keys()}
    (tmp_path / "deploy").mkdir()
    (tmp_path / layout.COMPOSE_FILE).write_text(json.dumps({"services": {"web": service}}))
    write_documents(tmp_path, described(without("")))
    settings = read_bundle_documents(open_bundle(tmp_path)).settings["web"]
    assert {"command", "entrypoint", "healthcheck", "hostname", "networks", "sysctls", "ulimits"} <= settings.keys()
    assert service.keys() - settings.keys() == {
        "image", "platform", "user", "environment", "ports", "depends_on", "volumes", "configs", "secrets", "tmpfs",
        "cpus", "mem_limit", "memswap_limit", "pids_limit",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["services: [", "services: []", "- 1", "services: {web: 1}", ""])
def test_damaged_compose_file_is_a_damaged_bundle(tmp_path: Path, text: str) -> None:
    write_documents(tmp_path, described(without("")))
    (tmp_path / layout.COMPOSE_FILE).write_text(text)
    with pytest.raises(BundleError, match=r"compose\.yaml: ") as caught:
        read_bundle_documents(open_bundle(tmp_path))
    assert caught.value.exit_code == 6


def test_diff_reports_changes_outside_services() -> None:
    (image,) = MANIFEST.images
    layer = image.layers[0].model_copy(update={"size": 1200})
    changed = image.model_copy(update={"config_digest": DIGESTS[1], "diff_ids": [DIGESTS[0]], "layers": [layer]})
    larger = MANIFEST.archives[0].model_copy(update={"size": 2000})
    after = replace(
        second(),
        manifest=MANIFEST.model_copy(update={"version": "1.3.0", "images": [changed], "archives": [larger]}),
        packages={"web": {"deb openssl": ("3.1",)}, "counter": {"deb openssl": ("3.1",)}},
        tests={"it works": "failed", "it is new": "passed"},
        deviations={"a.rule on services.web": "because (ada, until 2027-01-01)"},
        config_digests={"configs/web/site": DIGESTS[1]},
    )
    changes = compare_bundles(FIRST, after).changes
    order = [SECTIONS.index(change.section) for change in changes]
    assert order == sorted(order)
    assert set(changes) == {
        Change("images", "web", DIGESTS[0], DIGESTS[1]),
        Change("layers", f"web: {DIGESTS[2]}", "900 B", None),
        Change("layers", f"web: {DIGESTS[0]}", None, "1.2 KiB"),
        Change("packages", "counter, web: deb openssl", "3.0", "3.1"),
        Change("configs", "web: site", f"/etc/site, {DIGESTS[0]}", f"/etc/site, {DIGESTS[1]}"),
        Change("tests", "it works", "passed", "failed"),
        Change("tests", "it is new", None, "passed"),
        Change("sizes", "web", "900 B", "1.2 KiB"),
        Change("sizes", "archive for linux/amd64", "1000 B", "2.0 KiB"),
        Change("deviations", "a.rule on services.web", None, "because (ada, until 2027-01-01)"),
    }


def test_diff_refuses_different_projects() -> None:
    other = replace(FIRST, manifest=MANIFEST.model_copy(update={"project": "bank"}))
    with pytest.raises(UsageError, match="different projects"):
        compare_bundles(FIRST, other)


def write_documents(directory: Path, documents: dict[str, Any], version: str = MANIFEST.version) -> None:
    for name, document in documents.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(json.dumps(document))
    if not (directory / layout.COMPOSE_FILE).exists():
        (directory / layout.COMPOSE_FILE).write_text("services: {}")
    manifest = MANIFEST.model_copy(update={"images": [], "archives": [], "version": version})
    write_document(directory / layout.MANIFEST_FILE, manifest)


def described(service: object) -> dict[str, Any]:
    return {
        layout.ENVIRONMENT_FILE: {"services": {"web": service}},
        layout.TESTS_JSON_FILE: {"checks": []},
        layout.DEVIATIONS_FILE: {"deviations": []},
    }


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in SERVICE.items() if name != key} | {"configs": []}


@pytest.mark.parametrize(
    ("service", "key"),
    [(without(key), f"services.web.{key}") for key in SERVICE if key != "configs"]
    + [
        (without("") | {"limits": {}}, "services.web.limits.cpus"),
        (without("") | {"image": 5}, "services.web.image"),
        (without("") | {"ports": {"http": 80}}, "services.web.ports"),
        (None, "services.web"),
        ([], "services.web"),
    ],
)
def test_incomplete_environment_is_a_damaged_bundle(tmp_path: Path, service: object, key: str) -> None:
    write_documents(tmp_path, described(service))
    with pytest.raises(BundleError, match=rf"environment\.json: {key}") as caught:
        read_bundle_documents(open_bundle(tmp_path))
    assert caught.value.exit_code == 6


def test_damaged_older_version_is_skipped_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = BundleStore(tmp_path / MANIFEST.project)
    for version, service in (("1.0.0", without("")), ("1.1.0", without("limits")), ("1.2.0", "web")):
        write_documents(store.directory / version, described(service), version)
        register_version(store, open_bundle(store.directory / version).manifest, keep_snapshots=5)
        store = BundleStore(store.directory)
    previous = read_previous_bundle(store, "1.3.0")
    assert previous is not None and previous.manifest.version == "1.0.0"
    warnings = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert [version for version in ("1.2.0", "1.1.0") if version in " ".join(warnings)] == ["1.2.0", "1.1.0"]


def test_config_outside_of_the_bundle_is_not_read(tmp_path: Path) -> None:
    config = {"name": "site", "path": "/etc/site", "file": "../../../etc/passwd"}
    write_documents(tmp_path, described(SERVICE | {"configs": [config]}))
    with pytest.raises(BundleError, match="Invalid file name"):
        read_bundle_documents(open_bundle(tmp_path))


def test_check_in_two_groups_counts_twice(tmp_path: Path) -> None:
    checks = [{"name": "the services run", "group": group, "outcome": "passed"} for group in ("", "left", "right")]
    documents = {
        layout.ENVIRONMENT_FILE: {"services": {}},
        layout.TESTS_JSON_FILE: {"checks": checks},
        layout.DEVIATIONS_FILE: {"deviations": []},
    }
    write_documents(tmp_path, documents)
    assert list(read_bundle_documents(open_bundle(tmp_path)).tests) == [
        "the services run",
        "left: the services run",
        "right: the services run",
    ]
