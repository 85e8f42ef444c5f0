"""What a test environment sets is what the bundle ships: health check timing, tmpfs owners, container options."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.sandbox import Sandbox
from tests.conftest import Project
from tests.faults import labs, refused
from tests.thorough import keep

HEALTH = 'healthcheck = { http = "GET /", retries = 10, interval = "500ms", timeout = "1s" }\n'
PASSWD = "root:x:0:0::/:/bin/sh\nkeeper:x:4321:8765::/:/bin/sh\n"


def use_image_health_check(project: Project, instruction: str) -> None:
    """Let the image's HEALTHCHECK decide when the service is ready."""
    project.replace(".lyra.toml", HEALTH, "")
    project.replace("app/Dockerfile", "CMD [", f"HEALTHCHECK {instruction}\nCMD [")


def test_image_health_check_decides_with_its_own_timing(project: Project, engine: Engine) -> None:
    use_image_health_check(project, "--interval=1s --timeout=1s --retries=2 CMD sleep 3")
    refused(project.lyra("build", "test"), 5, "web is unhealthy", "2 times", "exceeded timeout (1s)", "--timeout")
    assert labs(engine) == []


@pytest.mark.parametrize("configured", keep(1, [True, False]))
def test_image_health_check_beside_configured_one_counts(project: Project, configured: bool) -> None:
    instruction = "--interval=1s --timeout=1s --retries=2 CMD echo shut; exit 1"
    if configured:
        project.replace("app/Dockerfile", "CMD [", f"HEALTHCHECK {instruction}\nCMD [")
    else:
        use_image_health_check(project, instruction)
    wait = '\n[[tests]]\nname = "takes a while"\nservice = "web"\nexec = "sleep 3"\n'
    (project.root / ".lyra.toml").write_text((project.root / ".lyra.toml").read_text() + wait)
    refused(project.lyra("build", "test"), 5, "web is unhealthy", "2 times", "shut")


USERS = ("10001:10001", "10001", "keeper", "4321:8765")
LIMITS = 'limits = { cpus = 0.1, memory = "8m", pids = 16, disk = "1m" }\n'


@pytest.mark.parametrize("by", keep(1, ["service", "image"]))
def test_tmpfs_belongs_to_user_of_service(project: Project, by: str) -> None:
    """A long interval of the health check, which all services have, delays none of them."""
    use_image_health_check(
        project, "--interval=5m --timeout=5s CMD busybox wget -q -O /dev/null http://127.0.0.1:8080/"
    )
    (project.root / "app" / "etc").mkdir()
    (project.root / "app" / "etc" / "passwd").write_text(PASSWD)
    (project.root / "app" / "etc" / "group").write_text("root:x:0:\nkeeper:x:8765:\n")
    (project.root / "app" / "spool").mkdir(mode=0o755)
    project.replace("app/Dockerfile", "COPY www /www", "COPY www /www\nCOPY etc /etc\nCOPY spool /var/spool")
    project.replace("app/Dockerfile", "FROM scratch", "FROM scratch AS web")
    stages, images, services, checks = "", "", "", ""
    for number, user in enumerate(USERS):
        name = f"user{number}"
        stages += f"\nFROM web AS {name}\nUSER {user}\n"
        images += f'[images.{name}]\ncontext = "app"\ntarget = "{name}"\n\n' if by == "image" else ""
        services += f'[services.{name}]\nimage = "{name if by == "image" else "web"}"\n{LIMITS}'
        services += 'tmpfs = { "/var/spool" = "1m", "/made/here" = "1m" }\n'
        services += f'user = "{user}"\n\n' if by == "service" else "ports = { http = 8080 }\n\n"
        checks += "".join(
            f'[[tests]]\nname = "{place} of {user}"\nservice = "{name}"\nexec = "touch {place}/x && ls -ln {place}/x"\n'
            for place in ("/var/spool", "/made/here", "/tmp")
        )
    if by == "image":
        project.replace(".lyra.toml", 'context = "app"\n', 'context = "app"\ntarget = "web"\n')
        (project.root / "app" / "Dockerfile").write_text((project.root / "app" / "Dockerfile").read_text() + stages)
    path = project.root / ".lyra.toml"
    head = path.read_text().partition("[[tests]]")[0].replace("[services.web]\n", f"{images}[services.web]\n")
    path.write_text(head + services + checks)
    outcome = project.lyra("build", "test", timeout=60)
    assert outcome.code == 0, outcome.text
    assert f"{3 * len(USERS)} of {3 * len(USERS)} checks passed" in outcome.out


OPTIONS = """
stop_signal = "SIGINT"
stop_grace_period = "21s"
hostname = "front"
aliases = ["www"]
extra_hosts = { "db.example" = "10.0.0.5", "six.example" = "fd00::5" }
ulimits = { nofile = 512, nproc = { soft = 64, hard = 128 } }
shm_size = "4m"
sysctls = { "net.core.somaxconn" = 64 }
group_add = ["44"]
tmpfs = { "/var/spool" = "1m" }
"""
HEALTH_BY_COMMAND = 'healthcheck = { exec = "true", interval = "2s", retries = 4 }\n'
INSIDE = """
[[tests]]
name = "sizes, limits, names and groups are in force"
service = "web"
exec = "ulimit -n; hostname; id -G; cat /proc/1/comm /proc/sys/net/core/somaxconn; busybox grep db.exa /etc/hosts"
output = "512\\nfront\\n65534 44\\ndocker-init\\n64\\n10.0.0.5"

[[tests]]
name = "shared memory has its size"
service = "web"
exec = "busybox df -k /dev/shm"
output = " 4096 "

[[tests]]
name = "the alias resolves"
service = "web"
exec = "busybox wget -q -O - http://www:8080/"
output = "It is tiny."

[[tests]]
name = "other names do not"
service = "web"
exec = "! busybox nslookup example.org"
"""
# What differs on purpose; docs/parity.md explains each.
DIFFERENT = {
    "Config": {"AttachStdout", "AttachStderr", "Env", "Image", "Labels"},
    "HostConfig": {"Binds", "Mounts", "Memory", "MemorySwap", "NetworkMode", "PortBindings", "RestartPolicy"},
}
UNORDERED = {"ExtraHosts"}
EMPTY: tuple[Any, ...] = (None, "", 0, [], {}, False)


OTHERS = f"""
[services.plain]
image = "web"
{LIMITS}{HEALTH_BY_COMMAND}
[services.bare]
image = "web"
init = false
{LIMITS}{HEALTH_BY_COMMAND}"""


def test_container_of_bundle_has_options_of_tested_one(project: Project, engine: Engine, box: Sandbox) -> None:
    """Read the options inside the tested container, too."""
    project.replace(".lyra.toml", HEALTH, HEALTH_BY_COMMAND + OPTIONS)
    path = project.root / ".lyra.toml"
    path.write_text(path.read_text() + OTHERS + INSIDE)
    (project.root / ".gitignore").write_text("promotion/\n.lyra/\n")
    project.commit()
    outcome = project.lyra("build", "test", "--keep-running", "promote")
    assert outcome.code == 0, outcome.text
    (bundle,) = project.bundles()
    compose = [str(box.docker), "compose", "--project-name", "parity"]
    secret = project.root.parent / "key"
    secret.write_text("x")
    environment = os.environ | box.environment() | {"TOKEN": "x", "WEB_KEY_FILE": str(secret)}

    def run_compose(*arguments: str) -> None:
        subprocess.run([*compose, *arguments], cwd=bundle / "deploy", env=environment, check=True, capture_output=True)

    try:
        run_compose("create")
        listed = engine.api.containers(all=True)
        documents = {
            name: [
                engine.api.inspect_container(item) for item in (find_tested(listed, name), find_deployed(listed, name))
            ]
            for name in ("web", "plain", "bare")
        }
    finally:
        run_compose("down", "--volumes")
        project.clean()
    for name, (tested, deployed) in documents.items():
        for part, different in DIFFERENT.items():
            mine, theirs = tested[part], deployed[part]
            for key in sorted((mine.keys() | theirs.keys()) - different):
                first, second = (normalize(document.get(key)) for document in (mine, theirs))
                if key in UNORDERED:
                    first, second = (sorted(value or []) for value in (first, second))
                assert first == second, f"{name}: {part}.{key}"
        volumes = 4 * 1024**2 if name == "web" else 0
        assert tested["HostConfig"]["Memory"] == deployed["HostConfig"]["Memory"] + volumes
        aliases = [
            {alias for network in item["NetworkSettings"]["Networks"].values() for alias in network["Aliases"] or []}
            for item in (tested, deployed)
        ]
        expected = {"web", "www"} if name == "web" else {name}
        assert [expected <= names for names in aliases] == [True, True], name


def find_tested(listed: list[dict[str, Any]], service: str) -> str:
    """Return the container of a service in the test environment."""
    (found,) = [
        item["Id"]
        for item in listed
        if item["Names"][0].startswith("/lyra-") and item["Names"][0].endswith(f"-{service}")
    ]
    return str(found)


def find_deployed(listed: list[dict[str, Any]], service: str) -> str:
    """Return the container of a service that Compose has created."""
    labels = {"com.docker.compose.project": "parity", "com.docker.compose.service": service}
    (found,) = [item["Id"] for item in listed if labels.items() <= item["Labels"].items()]
    return str(found)


def normalize(value: Any) -> Any:
    """Return a value of the engine's answer, tables in a list without their order, and None for all that is empty."""
    if value in EMPTY:
        return None
    return sorted(value, key=str) if isinstance(value, list) and isinstance(value[0], dict) else value


def test_oneshot_may_take_as_long_as_configured(project: Project, engine: Engine) -> None:
    once = """
[services.once]
image = "web"
oneshot = true
promote = false
command = ["/bin/sh", "-c", "sleep 30"]
start_timeout = "2s"
limits = { cpus = 0.1, memory = "8m", pids = 16, disk = "1m" }
"""
    project.replace(".lyra.toml", '\n[[tests]]\nname = "the page', f'{once}\n[[tests]]\nname = "the page')
    refused(project.lyra("build", "test"), 5, "once did not end within 2 s", "start_timeout", "[services.once]")
    assert labs(engine) == []
