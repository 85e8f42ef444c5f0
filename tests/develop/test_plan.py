"""Planning a development lab and comparing it with the existing one."""

from __future__ import annotations

from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.services import development_profile, select_service
from lyra_tasks.develop.plan import DevLabPlan, ExistingContainer, diff_services, plan_dev_lab, plan_remaining_lab
from lyra_tasks.engine.objects.volumes import parse_user_ids
from lyra_tasks.errors import ConfigurationError, PreconditionError, UsageError
from lyra_tasks.lab.facts import LabFacts, ServiceFacts

DOCUMENT: dict[str, Any] = {
    "schema": 1,
    "project": {"name": "guestbook"},
    "proxima": {"cpus": 1, "memory": "1g", "max_image_size": "10m"},
    "images": {"web": {"context": "app", "target": "runtime", "dev_target": "dev"}, "other": {"context": "other"}},
    "services": {
        "web": {
            "image": "web",
            "depends_on": ["db"],
            "entrypoint": ["/start"],
            "healthcheck": {"tcp": 80},
            "ports": {"http": 80},
            "limits": {"cpus": 0.5, "memory": "64m"},
            "environment": {"TOKEN": {"secret": True}, "NAME": {"default": "a"}},
            "dev": {"command": ["serve"], "limits": {"memory": "128m"}},
        },
        "db": {"image": "redis:7", "volumes": {"data": {"path": "/data"}}},
        "alone": {"image": "other"},
    },
}
IMAGE = {"User": "10001", "WorkingDir": "/app", "Volumes": {"/app": {}}}


def config(**web: Any) -> Configuration:
    services = {**DOCUMENT["services"], "web": {**DOCUMENT["services"]["web"], **web}}
    return Configuration.model_validate({**DOCUMENT, "services": services})


def plan_lab(base: Configuration, *, token: str = "secret", image: str = "sha256:1") -> DevLabPlan:
    profile = development_profile(base, ["web"])
    environment = {"web": {"TOKEN": token, "NAME": "a"}, "db": {}}
    services = {
        name: ServiceFacts(image, IMAGE, environment[name], {"key": token.encode()} if name == "web" else {}, {})
        for name in profile.services
    }
    return plan_dev_lab(profile, LabFacts("run", "127.0.0.1", True, "/files", services))


def test_profile_has_dependencies_and_dev_target() -> None:
    profile = development_profile(config(), ["web"])
    assert sorted(profile.services) == ["db", "web"]
    assert {name: image.target for name, image in profile.images.items()} == {"web": "dev"}
    assert profile.proxima.max_image_size is None


def test_dev_table_relaxes_only_its_service() -> None:
    services = development_profile(config()).services
    web, db = services["web"], services["db"]
    assert (web.egress, web.read_only, web.command, web.healthcheck) == (True, False, ["serve"], None)
    assert (web.limits.cpus, web.limits.memory) == (0.5, 128 * 1024**2), "limits that it does not set are kept"
    assert (db.egress, db.read_only) == (False, True)


def test_source_is_mounted_over_working_directory() -> None:
    lab = plan_lab(config())
    all_mounts = lab.lab.services["web"].payload["HostConfig"]["Mounts"]
    mounts = [mount for mount in all_mounts if mount["Target"] == "/app"]
    assert mounts == [
        {"Type": "volume", "Source": "lyra-run-web-source", "Target": "/app", "VolumeOptions": {"NoCopy": True}}
    ]
    assert lab.lab.volumes["lyra-run-web-source"] == {}
    assert sorted(lab.sources) == ["web"], "a service without a dev table has no source"
    assert not lab.lab.services["web"].must_be_ready
    assert lab.lab.services["db"].must_be_ready


def test_source_path_is_required_without_workdir() -> None:
    profile = development_profile(config(), ["web"])
    bare = {name: ServiceFacts("sha256:1", {"User": "1"}, {}, {}, {}) for name in profile.services}
    environment = {"TOKEN": "secret"}
    bare["web"] = ServiceFacts("sha256:1", {"User": "1"}, environment, {}, {})
    with pytest.raises(ConfigurationError, match="source is not set"):
        plan_dev_lab(profile, LabFacts("run", "127.0.0.1", True, "/files", bare))


def existing(lab: DevLabPlan, *, running: bool = True) -> dict[str, ExistingContainer]:
    return {name: ExistingContainer(f"id-{name}", running, digest) for name, digest in lab.hashes.items()}


def test_unchanged_service_is_kept_despite_random_secrets() -> None:
    changes = diff_services(plan_lab(config(), token="another"), existing(plan_lab(config())))
    assert (changes.keep, changes.new_containers, changes.remove) == (("web", "db"), (), ())


@pytest.mark.parametrize(
    "after",
    [plan_lab(config(), image="sha256:2"), plan_lab(config(user="5")), plan_lab(config(dev={"command": ["else"]}))],
    ids=["image", "user", "command"],
)
def test_changed_service_is_replaced(after: DevLabPlan) -> None:
    assert "web" in diff_services(after, existing(plan_lab(config()))).replace


def test_exited_service_is_replaced_and_unplanned_removed() -> None:
    lab = plan_lab(config())
    assert diff_services(lab, existing(lab, running=False)).replace == ("web", "db")
    containers = {**existing(lab), "old": ExistingContainer("id", True, "")}
    assert diff_services(lab, containers).remove == ("old",)


def test_remaining_lab_has_only_missing_objects() -> None:
    lab = plan_lab(config())
    containers = {"db": ExistingContainer("id", True, lab.hashes["db"])}
    remaining = plan_remaining_lab(
        lab.lab, diff_services(lab, containers), {("network", "lyra-run-inner"), ("volume", "lyra-run-db-data-data")}
    )
    assert sorted(remaining.services) == ["web"]
    assert remaining.waves == (("web",),)
    assert "lyra-run-inner" not in remaining.networks
    assert sorted(remaining.volumes) == ["lyra-run-web-secrets", "lyra-run-web-source"]
    assert plan_lab(config(volumes={"x": {"path": "/x"}})).lab.holder != lab.lab.holder


def test_service_is_selected_by_name_or_as_the_only_one() -> None:
    assert select_service({"web": True, "db": False}, "") == "web"
    assert select_service({"web": True, "db": False}, "db") == "db"
    assert select_service({"db": False}, "") == "db"
    for services, name in (({"a": True, "b": True}, ""), ({"a": True}, "b")):
        with pytest.raises(UsageError):
            select_service(services, name)


PASSWD = "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1001::/home/node:/bin/sh\n"


@pytest.mark.parametrize(
    ("user", "ids"),
    [("", (0, 0)), ("10001:10002", (10001, 10002)), ("10001", (10001, 0)), ("node", (1000, 1001)),
     ("1000", (1000, 1001)), ("node:5", (1000, 5)), ("node:staff", (1000, 50))],
)  # fmt: skip
def test_user_ids_are_resolved_by_image(user: str, ids: tuple[int, int]) -> None:
    assert parse_user_ids(user, {"/etc/passwd": PASSWD, "/etc/group": "staff:x:50:\n"}.__getitem__) == ids


def test_unknown_user_is_an_error() -> None:
    with pytest.raises(PreconditionError, match="no user 'ada'"):
        parse_user_ids("ada", lambda _: "")
