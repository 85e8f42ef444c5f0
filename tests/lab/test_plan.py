from __future__ import annotations

from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.lab.plan import LabFacts, LabPlan, ServiceFacts, plan_lab

IMAGE: dict[str, Any] = {"User": "10001:10001", "Env": ["PATH=/bin"]}


def planned(
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
    every = {"run": "r1", "publish_on": "127.0.0.1", "subpaths": True, "health_starts_fast": True, "files_folder": "/f"}
    return plan_lab(config, LabFacts(**{**every, **facts}, services=details), group, number)


def host(result: LabPlan, service: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = result.services[service].payload["HostConfig"]
    return found


def test_every_container_is_locked_down_and_limited_by_default() -> None:
    config = host(
        planned({"web": {"image": "web", "limits": {"cpus": 0.5, "memory": "64m", "pids": 32, "disk": "8m"}}})
    )
    assert config["ReadonlyRootfs"] is True
    assert (config["CapDrop"], config["CapAdd"]) == (["ALL"], [])
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert (config["Init"], config["IpcMode"]) == (True, "private")
    assert config["RestartPolicy"] == {"Name": "no"}
    assert (config["NanoCpus"], config["PidsLimit"]) == (500_000_000, 32)
    assert config["Memory"] == config["MemorySwap"] == (64 + 8) * 1024**2
    assert config["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "1"}
    assert config["Dns"] == ["127.0.0.1"]
    assert "Privileged" not in config
    assert not {"Binds", "Devices", "PidMode", "UsernsMode", "UTSMode"} & set(config)


def test_no_mount_comes_from_the_host() -> None:
    service = {
        "image": "web",
        "volumes": {"data": {"path": "/data", "size": "4m"}},
        "configs": {"site": {"path": "/etc/site", "source": "site"}},
        "secrets": {"key": {"path": "/run/secrets/key"}},
    }
    result = planned({"web": service})
    assert {mount["Type"] for mount in host(result)["Mounts"]} == {"tmpfs", "volume"}
    assert all("/held/" in target for target in result.holder_mounts.values())
    assert set(result.holder_mounts) == set(result.volumes)


def test_engines_that_mount_no_single_files_get_read_only_bind_mounts_of_the_runs_own_files() -> None:
    service = {"image": "web", "configs": {"site": {"path": "/etc/site", "source": "site"}}}
    (mount,) = [each for each in host(planned({"web": service}, subpaths=False))["Mounts"] if each["Type"] == "bind"]
    assert mount == {"Type": "bind", "Source": "/f/web/configs/site", "Target": "/etc/site", "ReadOnly": True}


def test_data_volumes_are_sized_and_owned_and_count_as_memory() -> None:
    result = planned({"web": {"image": "web", "volumes": {"data": {"path": "/d", "size": "4m", "owner": "7:8"}}}})
    assert result.volumes["lyra-r1-web-data-data"] == {
        "type": "tmpfs",
        "device": "tmpfs",
        "o": f"size={4 * 1024**2},uid=7,gid=8,mode=0755",
    }
    without = planned({"web": {"image": "web"}})
    # the volume takes its part of the disk budget from /tmp, so that the sum stays what the limits say
    assert result.memory == without.memory


def test_a_volume_that_only_the_image_declares_is_covered_by_a_sized_one() -> None:
    image: dict[str, Any] = IMAGE | {"Volumes": {"/var/lib/thing/": {}, "/data": {}}}
    service = {"image": "web", "limits": {"disk": "8m"}, "volumes": {"data": {"path": "/data", "size": "4m"}}}
    mounts = {mount["Target"]: mount for mount in host(planned({"web": service}, image))["Mounts"]}
    assert mounts["/var/lib/thing"]["TmpfsOptions"]["SizeBytes"] == 8 * 1024**2
    assert mounts["/data"]["Type"] == "volume"


def test_a_volume_at_tmp_takes_the_place_of_the_one_in_memory() -> None:
    service = {"image": "web", "volumes": {"scratch": {"path": "/tmp", "size": "4m"}}}
    targets = [(mount["Target"], mount["Type"]) for mount in host(planned({"web": service}))["Mounts"]]
    assert [kind for target, kind in targets if target == "/tmp"] == ["volume"]


def test_only_services_with_ports_leave_the_inner_network_and_nobody_gets_a_way_out() -> None:
    result = planned({"web": {"image": "web", "ports": {"http": 80}}, "db": {"image": "web"}})
    assert result.networks["lyra-r1-inner"] == {"Internal": True}
    assert result.networks["lyra-r1-edge"]["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert set(result.networks) == {"lyra-r1-inner", "lyra-r1-edge"}
    assert result.services["web"].networks == ("lyra-r1-edge",)
    assert result.services["db"].networks == ()
    assert host(result)["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}


def test_egress_is_a_network_of_its_own_instead_of_the_one_without_a_way_out() -> None:
    web = {"image": "web", "ports": {"http": 80}, "egress": True}
    result = planned({"web": web, "db": {"image": "web"}})
    assert set(result.networks) == {"lyra-r1-inner", "lyra-r1-out"}
    assert result.services["web"].networks == ("lyra-r1-out",)
    assert result.services["db"].networks == ()


def test_only_a_service_with_egress_asks_the_engines_resolver_for_names_outside() -> None:
    assert host(planned({"web": {"image": "web"}}))["Dns"] == ["127.0.0.1"]
    assert host(planned({"web": {"image": "web", "egress": True}}))["Dns"] == []


def test_services_start_after_those_they_depend_on_and_independent_ones_together() -> None:
    result = planned(
        {
            "web": {"image": "web", "depends_on": ["api", "cache"]},
            "api": {"image": "web", "depends_on": ["db"]},
            "cache": {"image": "web"},
            "db": {"image": "web"},
        }
    )
    assert result.waves == (("cache", "db"), ("api",), ("web",))


def test_secret_values_are_known_for_masking_and_their_files_are_for_the_service_alone() -> None:
    service = {
        "image": "web",
        "environment": {"TOKEN": {"secret": True}, "NAME": {"default": "x"}},
        "secrets": {"key": {"path": "/run/secrets/key"}},
    }
    web = planned({"web": service}).services["web"]
    assert {"value-of-it", "secret-of-it", "c2VjcmV0LW9mLWl0"} <= set(web.secret_values)
    assert "x" not in web.secret_values
    (file,) = web.secret_files
    assert (file.uid, file.gid, file.mode) == (10001, 10001, 0o400)


@pytest.mark.parametrize(
    ("check", "image", "test"),
    [
        ({"exec": ["/check"]}, {}, ["CMD", "/check"]),
        ({"exec": "a | b"}, {}, ["CMD-SHELL", "a | b"]),
        (None, {"Healthcheck": {"Test": ["CMD", "/own"]}}, ["CMD", "/own"]),
        (None, {"Healthcheck": {"Test": ["NONE"]}}, None),
        ({"tcp": 80}, {"Healthcheck": {"Test": ["CMD", "/own"]}}, None),
        (None, {}, None),
    ],
)
def test_the_configured_command_wins_over_the_images_and_checks_from_outside_are_not_the_engines(
    check: dict[str, Any] | None, image: dict[str, Any], test: list[str] | None
) -> None:
    service = {"image": "web", **({"healthcheck": check} if check else {})}
    payload = planned({"web": service}, IMAGE | image).services["web"].payload
    assert (payload.get("Healthcheck") or {}).get("Test") == test
