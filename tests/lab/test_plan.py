"""Plans of labs: hardening, mounts, networks, start order, secrets."""

from __future__ import annotations

from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.lab.facts import LabFacts, ServiceFacts
from lyra_tasks.lab.plan import LabPlan, plan_lab

IMAGE: dict[str, Any] = {"User": "10001:10001", "Env": ["PATH=/bin"]}


def make_plan(
    services: dict[str, Any], image: dict[str, Any] | None = None, group: str = "", number: int = 0, **facts: Any
) -> LabPlan:
    config = Configuration.model_validate(
        {"schema": 1, "project": {"name": "shop"}, "images": {"web": {"context": "."}}, "services": services}
    )
    details = {
        name: ServiceFacts(
            image_id="sha256:1",
            image_config=IMAGE if image is None else image,
            environment=dict.fromkeys(service.environment, "value-of-it"),
            secrets=dict.fromkeys(service.secrets, b"secret-of-it"),
            configs=dict.fromkeys(service.configs, b"config-of-it"),
        )
        for name, service in config.services.items()
    }
    defaults = {
        "run": "r1",
        "publish_on": "127.0.0.1",
        "supports_subpaths": True,
        "files_directory": "/f",
    }
    return plan_lab(config, LabFacts(**{**defaults, **facts}, services=details), group, number)


def host_config(result: LabPlan, service: str = "web") -> dict[str, Any]:
    config: dict[str, Any] = result.services[service].payload["HostConfig"]
    return config


def test_container_is_hardened_and_limited_by_default() -> None:
    config = host_config(
        make_plan({"web": {"image": "web", "limits": {"cpus": 0.5, "memory": "64m", "pids": 32, "disk": "8m"}}})
    )
    assert config["ReadonlyRootfs"] is True
    assert (config["CapDrop"], config["CapAdd"]) == (["ALL"], [])
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert (config["Init"], config["IpcMode"]) == (True, "private")
    assert config["RestartPolicy"] == {"Name": "no"}
    assert (config["NanoCpus"], config["PidsLimit"]) == (500_000_000, 32)
    assert config["Memory"] == config["MemorySwap"] == (64 + 8) * 1024**2
    assert config["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert config["Tmpfs"] == {"/tmp": f"rw,noexec,nosuid,nodev,size={8 * 1024**2},uid=10001,gid=10001"}
    assert config["Dns"] == ["127.0.0.1"]
    assert "Privileged" not in config
    assert not {"Binds", "Devices", "PidMode", "UsernsMode", "UTSMode"} & set(config)


def test_mounts_never_come_from_host() -> None:
    service = {
        "image": "web",
        "volumes": {"data": {"path": "/data", "size": "4m"}},
        "configs": {"site": {"path": "/etc/site", "source": "site"}},
        "secrets": {"key": {"path": "/run/secrets/key"}},
    }
    result = make_plan({"web": service})
    assert {mount["Type"] for mount in host_config(result)["Mounts"]} == {"volume"}
    assert all("/held/" in target for target in result.holder_mounts.values())
    assert set(result.holder_mounts) == set(result.volumes)


def test_mounts_without_subpaths_are_read_only_binds() -> None:
    service = {"image": "web", "configs": {"site": {"path": "/etc/site", "source": "site"}}}
    mounts = host_config(make_plan({"web": service}, supports_subpaths=False))["Mounts"]
    (mount,) = [mount for mount in mounts if mount["Type"] == "bind"]
    assert mount == {"Type": "bind", "Source": "/f/web/configs/site", "Target": "/etc/site", "ReadOnly": True}


def test_data_volume_has_size_and_owner_and_counts_as_memory() -> None:
    result = make_plan({"web": {"image": "web", "volumes": {"data": {"path": "/d", "size": "4m", "owner": "7:8"}}}})
    assert result.volumes["lyra-r1-web-data-data"] == {
        "type": "tmpfs",
        "device": "tmpfs",
        "o": f"size={4 * 1024**2},uid=7,gid=8,mode=0755",
    }
    without_volume = make_plan({"web": {"image": "web"}})
    # the size of the volume is taken from /tmp, so that the sum stays within the limits
    assert result.memory == without_volume.memory


def test_shared_volume_is_as_its_first_writer_has_it() -> None:
    volumes = {
        "reader": {"www": {"path": "/www", "shared": "static", "read_only": True, "owner": "1:1"}},
        "late": {"out": {"path": "/out", "shared": "static", "owner": "2:2"}},
        "first": {"out": {"path": "/out", "shared": "static", "owner": "3:3"}},
    }
    tables = {name: {"image": "web", "volumes": table} for name, table in volumes.items()}
    tables["late"]["depends_on"] = ["first"]
    result = make_plan(tables)
    ((name, options),) = result.volumes.items()
    assert "uid=3,gid=3" in options["o"]
    mounts = {service: planned.payload["HostConfig"]["Mounts"] for service, planned in result.services.items()}
    assert [mount[0]["Source"] for mount in mounts.values()] == [name] * 3
    assert mounts["reader"][0] | {"ReadOnly": True, "VolumeOptions": {"NoCopy": True}} == mounts["reader"][0]
    assert "VolumeOptions" not in mounts["late"][0]


def test_image_volume_is_replaced_by_sized_tmpfs() -> None:
    image: dict[str, Any] = IMAGE | {"Volumes": {"/var/lib/thing/": {}, "/data": {}}}
    service = {"image": "web", "limits": {"disk": "8m"}, "volumes": {"data": {"path": "/data", "size": "4m"}}}
    config = host_config(make_plan({"web": service}, image))
    assert f"size={8 * 1024**2}," in config["Tmpfs"]["/var/lib/thing"]
    assert [mount["Target"] for mount in config["Mounts"]] == ["/data"]


def test_volume_at_tmp_replaces_tmpfs() -> None:
    service = {"image": "web", "volumes": {"scratch": {"path": "/tmp", "size": "4m"}}}
    config = host_config(make_plan({"web": service}))
    assert [(mount["Target"], mount["Type"]) for mount in config["Mounts"]] == [("/tmp", "volume")]
    assert config["Tmpfs"] == {}


def test_networks_only_published_services_join_edge() -> None:
    result = make_plan({"web": {"image": "web", "ports": {"http": 80}}, "db": {"image": "web"}})
    assert result.networks["lyra-r1-inner"] == {"Internal": True}
    assert result.networks["lyra-r1-edge"]["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert set(result.networks) == {"lyra-r1-inner", "lyra-r1-edge"}
    assert result.services["web"].networks == ("lyra-r1-edge",)
    assert result.services["db"].networks == ()
    assert host_config(result)["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}


def test_networks_egress_replaces_edge() -> None:
    web = {"image": "web", "ports": {"http": 80}, "egress": True}
    result = make_plan({"web": web, "db": {"image": "web"}})
    assert set(result.networks) == {"lyra-r1-inner", "lyra-r1-out"}
    assert result.services["web"].networks == ("lyra-r1-out",)
    assert result.services["db"].networks == ()


def test_dns_is_external_only_with_egress() -> None:
    assert host_config(make_plan({"web": {"image": "web"}}))["Dns"] == ["127.0.0.1"]
    assert host_config(make_plan({"web": {"image": "web", "egress": True}}))["Dns"] == []


def test_waves_follow_dependencies() -> None:
    result = make_plan(
        {
            "web": {"image": "web", "depends_on": ["api", "cache"]},
            "api": {"image": "web", "depends_on": ["db"]},
            "cache": {"image": "web"},
            "db": {"image": "web"},
        }
    )
    assert result.waves == (("cache", "db"), ("api",), ("web",))


def test_secrets_are_redacted_and_private_to_service() -> None:
    service = {
        "image": "web",
        "environment": {"TOKEN": {"secret": True}, "NAME": {"default": "x"}},
        "secrets": {"key": {"path": "/run/secrets/key"}},
    }
    plan = make_plan({"web": service})
    assert {"value-of-it", "secret-of-it"} <= set(plan.secret_values)
    assert "x" not in plan.secret_values
    (file,) = plan.services["web"].secret_files
    assert (file.uid, file.gid, file.mode) == (10001, 10001, 0o400)


@pytest.mark.parametrize(
    ("check", "image", "test"),
    [
        ({"exec": ["/check"]}, {}, ["CMD", "/check"]),
        ({"exec": "a | b"}, {}, ["CMD-SHELL", "a | b"]),
        (None, {"Healthcheck": {"Test": ["CMD", "/own"]}}, None),
        (None, {"Healthcheck": {"Test": ["NONE"]}}, None),
        ({"tcp": 80}, {"Healthcheck": {"Test": ["CMD", "/own"]}}, None),
        (None, {}, None),
    ],
)
def test_health_check_of_image_is_left_to_engine(
    check: dict[str, Any] | None, image: dict[str, Any], test: list[str] | None
) -> None:
    service = {"image": "web", **({"healthcheck": check} if check else {})}
    payload = make_plan({"web": service}, IMAGE | image).services["web"].payload
    assert (payload.get("Healthcheck") or {}).get("Test") == test


def test_configured_health_check_has_its_own_timing() -> None:
    check = {"exec": ["/check"], "interval": "7s", "timeout": "3s", "retries": 4, "start_period": "1m"}
    payload = make_plan({"web": {"image": "web", "healthcheck": check}}).services["web"].payload
    seconds = 1_000_000_000
    assert payload["Healthcheck"] == {
        "Test": ["CMD", "/check"],
        "Interval": 7 * seconds,
        "Timeout": 3 * seconds,
        "Retries": 4,
        "StartPeriod": 60 * seconds,
    }


@pytest.mark.parametrize(
    ("user", "ids", "owner"),
    [
        ("", None, "uid=0,gid=0"),
        ("7", None, "uid=7,gid=0"),
        ("7:8", None, "uid=7,gid=8"),
        ("keeper", (7, 8), "uid=7,gid=8"),
        ("keeper", None, ""),
    ],
)
def test_tmpfs_belongs_to_user(user: str, ids: tuple[int, int] | None, owner: str) -> None:
    config = Configuration.model_validate(
        {
            "schema": 1,
            "project": {"name": "shop"},
            "images": {"web": {"context": "."}},
            "services": {"web": {"image": "web"}},
        }
    )
    details = {"web": ServiceFacts("sha256:1", {"User": user}, {}, {}, {}, ids)}
    plan = plan_lab(config, LabFacts("r1", "127.0.0.1", True, "/f", details))
    _, _, written = host_config(plan)["Tmpfs"]["/tmp"].partition(f"size={64 * 1024**2}")
    assert written.strip(",") == owner
