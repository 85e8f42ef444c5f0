from __future__ import annotations

from typing import Any

import pytest

from lyra_tasks.config.containers import UserIds
from lyra_tasks.config.models import Service
from lyra_tasks.records.evidence import Evidence
from lyra_tasks.records.images import ImageScan, ScanStore
from lyra_tasks.rules.images import check_base_locked, check_labels, check_volume_owners, count_base_layers
from lyra_tasks.rules.secrets import fingerprint_secrets
from lyra_tasks.rules.services import check_documentation
from tests.rules.test_deviations import record

DIGEST = f"sha256:{'1' * 64}"
OTHER = f"sha256:{'2' * 64}"


@pytest.mark.parametrize(
    ("bases", "pins", "messages"),
    [
        ({"python:3": DIGEST}, {"python:3": DIGEST}, ()),
        ({"python:3": DIGEST}, {"python:3": "1" * 64}, ()),
        ({}, {"python:3": DIGEST}, ("FROM python:3 was not built from a digest",)),
        ({"python:3": "latest"}, {"python:3": DIGEST}, ("FROM python:3 was not built from a digest",)),
        (
            {"python:3": DIGEST},
            {"python:3": OTHER},
            ("FROM python:3 was not built from the pinned digest",),
        ),
        ({"python:3": DIGEST}, {}, ("FROM python:3 was not built from the pinned digest",)),
    ],
)
def test_base_must_be_built_from_pinned_digest(
    bases: dict[str, str], pins: dict[str, str], messages: tuple[str, ...]
) -> None:
    assert check_base_locked("web", record(bases=bases), ["python:3"], pins).messages == messages


def test_image_from_scratch_needs_no_pin() -> None:
    assert check_base_locked("web", record(), [], {}).messages == ()


def test_missing_labels_are_named() -> None:
    prefix = "org.opencontainers.image."
    labels = {f"{prefix}{key}": "x" for key in ("title", "description", "source", "revision")}
    assert check_labels("web", {"Labels": labels}).messages == ()
    assert check_labels("web", {"Labels": labels | {f"{prefix}source": ""}}).messages == (
        "missing label org.opencontainers.image.source",
    )
    assert len(check_labels("web", {}).messages) == 1


@pytest.mark.parametrize(
    ("directory", "user", "owner", "message"),
    [
        ("10001:10001 0755", (10001, 10001), None, ""),
        ("0:0 1777", (10001, 10001), None, ""),
        ("0:7 0775", (10001, 7), None, ""),
        ("0:8 0770", (10001, 7), None, ""),
        ("0:0 0755", (0, 0), None, ""),
        ("10001:10001 0755", (0, 0), None, ""),
        (None, (0, 0), None, ""),
        (None, None, None, ""),
        ("10001:10001 0555", (10001, 10001), None, "user 10001:10001 cannot write: /data belongs to 10001:10001"),
        ("0:0 0755", (10001, 10001), None, "/data belongs to 0:0 in the image (mode 0755)"),
        (None, (10001, 10001), None, "user 10001:10001 cannot write: /data is not in the image"),
        (None, (10001, 10001), "10001:10001", "the image has no directory /data"),
        ("0:0 0755", (10001, 10001), "10001:10001", "owner of /data is 0:0 in the image, declared: 10001:10001"),
        ("0:0 0755", (10001, 10001), "0:0", ""),
        (None, (10001, 10001), "00:0", ""),
    ],
)
def test_user_can_write_to_volume_or_owner_is_declared(
    directory: str | None, user: UserIds | None, owner: str | None, message: str
) -> None:
    volume = {"path": "/data"} | ({"owner": owner} if owner else {})
    service = Service.model_validate({"image": "web", "volumes": {"data": volume}})
    owners = {"/data": directory} if directory else {}
    messages = check_volume_owners("web", service, image_scan(owners), user, {8}).messages
    assert [message in text for text in messages] == ([True] if message else [])


@pytest.mark.parametrize(
    ("directory", "others", "message"),
    [
        (None, {"store": "10001:10001 0755"}, ""),
        (None, {"store": "0:7 0775"}, ""),
        (
            None,
            {"store": "999:999 0700"},
            "user 10001:7 cannot write: /pool belongs to 999:999 in the image store (mode 0700)",
        ),
        (None, {"store": "10001:1 0755", "cache": "0:0 0755"}, "/pool belongs to 0:0 in the image cache"),
        (None, {}, "/data is not in the image"),
        ("10001:7 0755", {"store": "10001:7 0755"}, ""),
        ("10001:7 0755", {"store": "999:7 0770"}, ""),
        (
            "10001:7 0755",
            {"store": "999:999 0700"},
            "user 10001:7 cannot write: /pool belongs to 999:999 in the image store",
        ),
        ("0:0 0755", {"store": "10001:7 0755"}, "/data belongs to 0:0 in the image"),
    ],
)
def test_shared_volume_is_judged_by_each_image_that_has_its_directory(
    directory: str | None, others: dict[str, str], message: str
) -> None:
    service = Service.model_validate({"image": "web", "volumes": {"data": {"path": "/data", "shared": "pool"}}})
    scan = image_scan({"/data": directory} if directory else {})
    owners = {"pool": {("/pool", f"the image {image}"): owner for image, owner in others.items()}}
    messages = check_volume_owners("web", service, scan, (10001, 7), (), owners).messages
    assert [message in text for text in messages] == ([True] if message else [])


@pytest.mark.parametrize(
    ("declared", "own", "message"),
    [
        ("999:999", None, ""),
        ("999:999", "999:999 0755", ""),
        ("10001:7", None, "owner of /pool is 999:999 in the image store, declared: 10001:7"),
        ("10001:7", "10001:7 0755", "owner of /pool is 999:999 in the image store, declared: 10001:7"),
    ],
)
def test_declared_owner_of_shared_volume_is_compared_with_images_of_others(
    declared: str, own: str | None, message: str
) -> None:
    volume = {"path": "/data", "shared": "pool", "owner": declared}
    service = Service.model_validate({"image": "web", "volumes": {"data": volume}})
    others = {"pool": {("/pool", "the image store"): "999:999 0700"}}
    scan = image_scan({"/data": own} if own else {})
    messages = check_volume_owners("web", service, scan, (10001, 7), (), others).messages
    assert [message in text for text in messages] == ([True] if message else [])


def image_scan(volume_owners: dict[str, str]) -> ImageScan:
    return ImageScan(
        config_digest=DIGEST,
        query_digest="q",
        setuid_programs={},
        volume_owners=volume_owners,
        programs_by_architecture={},
        secrets=[],
        secret_like_names=[],
        tokens=None,
    )


def history(*steps: str) -> dict[str, Any]:
    return {"history": [{"created_by": step.lstrip("-"), "empty_layer": step.startswith("-")} for step in steps]}


@pytest.mark.parametrize(
    ("steps", "instructions", "count"),
    [
        (("ADD rootfs", "RUN apt", "-ENV A=1", "COPY x", "-USER 1"), ("ENV", "COPY", "USER"), 2),
        (("COPY x", "-CMD y"), ("COPY", "CMD"), 0),
        (("/bin/sh -c #(nop) ADD x", "RUN |1 A=b /bin/sh -c x"), ("RUN",), 1),
        (("ADD rootfs", "COPY x"), ("RUN",), 0),  # the history does not match: all layers count as the project's
        (("COPY x",), ("COPY", "RUN"), 0),
        ((), ("COPY",), 0),
    ],
)
def test_base_layers_are_counted_from_history(
    steps: tuple[str, ...], instructions: tuple[str, ...], count: int
) -> None:
    assert count_base_layers(history(*steps), instructions) == count


def test_internal_ports_need_no_documentation() -> None:
    exposed: dict[str, Any] = {"ExposedPorts": {"6379/tcp": {}}}
    inner, outer = Service(image="x"), Service(image="x", ports={"redis": 6379})
    assert check_documentation("s", inner, exposed, (), has_dependents=True).messages == ()
    assert check_documentation("s", inner, exposed, (), has_dependents=False).messages != ()
    assert check_documentation("s", outer, exposed, (), has_dependents=False).messages == ()
    udp = check_documentation("s", outer, {"ExposedPorts": {"6379/udp": {}}}, (), has_dependents=True)
    assert udp.messages == ("the image's EXPOSE 6379/udp is not in ports",)
    assert udp.scope == "services.s"
    named = Service(image="x", ports={"redis": "6379/udp"})
    assert not check_documentation("s", named, {"ExposedPorts": {"6379/udp": {}}}, (), has_dependents=False).messages


def test_base_variables_need_no_documentation() -> None:
    config = {"Env": ["PATH=/bin", "FROM_BASE=1", "OWN=2"]}
    assert check_documentation(
        "s", Service(image="x"), config, ("OWN", "GONE", "PATH"), has_dependents=False
    ).messages == ("the image's ENV OWN is not in environment",)


def test_stored_scan_is_read_only_for_same_query(tmp_path: Any) -> None:
    store = ScanStore(tmp_path)
    scan = image_scan({})
    assert store.read("web", DIGEST, "q") is None
    store.write("web", scan)
    assert store.read("web", DIGEST, "q") == scan
    assert store.read("web", OTHER, "q") is None
    assert store.read("web", DIGEST, "another") is None
    (tmp_path / "scans" / "web.json").write_text("{ damaged")
    assert store.read("web", DIGEST, "q") is None


def test_secrets_fingerprint_depends_on_names_values_and_salt() -> None:
    fingerprints = {
        fingerprint_secrets(secrets, salt)
        for secrets, salt in (({}, "a"), ({"k": "v"}, "a"), ({"k": "w"}, "a"), ({"l": "v"}, "a"), ({"k": "v"}, "b"))
    }
    assert len(fingerprints) == 5


def test_evidence_of_old_schema_is_rejected() -> None:
    with pytest.raises(ValueError, match="schema"):
        Evidence.model_validate({"schema": "lyra.evidence/1"})
