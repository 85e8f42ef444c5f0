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


@pytest.mark.parametrize(
    ("instruction", "messages"),
    [
        (
            "--interval=1s --timeout=1s --retries=2 CMD sleep 3",
            ("web is unhealthy", "2 times", "exceeded timeout (1s)", "--timeout"),
        ),
        ("--interval=1s --timeout=1s --retries=2 CMD echo shut; exit 1", ("web is unhealthy", "2 times", "shut")),
    ],
)
def test_image_health_check_decides_with_its_own_timing(
    tiny: Project, engine: Engine, instruction: str, messages: tuple[str, ...]
) -> None:
    use_image_health_check(tiny, instruction)
    refused(tiny.lyra("build", "test"), 5, *messages)
    assert labs(engine) == []


def test_image_health_check_beside_configured_one_counts(tiny: Project) -> None:
    tiny.replace("app/Dockerfile", "CMD [", "HEALTHCHECK --interval=1s --timeout=1s --retries=1 CMD exit 1\nCMD [")
    wait = '\n[[tests]]\nname = "takes a while"\nservice = "web"\nexec = "sleep 3"\n'
    (tiny.root / ".lyra.toml").write_text((tiny.root / ".lyra.toml").read_text() + wait)
    refused(tiny.lyra("build", "test"), 5, "web is unhealthy")


def test_long_interval_does_not_delay_start(tiny: Project) -> None:
    use_image_health_check(tiny, "--interval=5m --timeout=5s CMD busybox wget -q -O /dev/null http://127.0.0.1:8080/")
    outcome = tiny.lyra("build", "test", timeout=60)
    assert outcome.code == 0, outcome.text


USERS = ("10001:10001", "10001", "keeper", "4321:8765")


@pytest.mark.parametrize("user", keep(2, USERS))
@pytest.mark.parametrize("by", keep(1, ["service", "image"]))
def test_tmpfs_belongs_to_user_of_service(tiny: Project, user: str, by: str) -> None:
    (tiny.root / "app" / "etc").mkdir()
    (tiny.root / "app" / "etc" / "passwd").write_text(PASSWD)
    (tiny.root / "app" / "etc" / "group").write_text("root:x:0:\nkeeper:x:8765:\n")
    (tiny.root / "app" / "spool").mkdir(mode=0o755)
    tiny.replace("app/Dockerfile", "COPY www /www", "COPY www /www\nCOPY etc /etc\nCOPY spool /var/spool")
    tmpfs = 'tmpfs = { "/var/spool" = "1m", "/made/here" = "1m" }\n'
    if by == "image":
        tiny.replace("app/Dockerfile", "USER 65534:65534", f"USER {user}")
        tiny.replace(".lyra.toml", HEALTH, HEALTH + tmpfs)
    else:
        tiny.replace(".lyra.toml", HEALTH, f'{HEALTH}{tmpfs}user = "{user}"\n')
    path = tiny.root / ".lyra.toml"
    head = path.read_text().partition("[[tests]]")[0]
    checks = "".join(
        f'[[tests]]\nname = "{place}"\nservice = "web"\nexec = "touch {place}/x && ls -ln {place}/x"\n'
        for place in ("/var/spool", "/made/here", "/tmp")
    )
    path.write_text(head + checks)
    outcome = tiny.lyra("build", "test")
    assert outcome.code == 0, outcome.text


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
INIT
"""
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


@pytest.mark.parametrize("options", keep(2, [OPTIONS.replace("INIT", "init = false"), "", OPTIONS.replace("INIT", "")]))
def test_container_of_bundle_has_options_of_tested_one(
    tiny: Project, engine: Engine, box: Sandbox, options: str
) -> None:
    tiny.replace(".lyra.toml", HEALTH, 'healthcheck = { exec = "true", interval = "2s", retries = 4 }\n' + options)
    (tiny.root / ".gitignore").write_text("promotion/\n.lyra/\n")
    tiny.commit()
    outcome = tiny.lyra("build", "test", "--keep-running", "promote")
    assert outcome.code == 0, outcome.text
    (bundle,) = tiny.bundles()
    compose = [str(box.docker), "compose", "--project-name", "parity"]
    secret = tiny.root.parent / "key"
    secret.write_text("x")
    environment = os.environ | box.environment() | {"TOKEN": "x", "WEB_KEY_FILE": str(secret)}

    def run_compose(*arguments: str) -> None:
        subprocess.run([*compose, *arguments], cwd=bundle / "deploy", env=environment, check=True, capture_output=True)

    try:
        run_compose("create")
        listed = engine.api.containers(all=True)
        (deployed,) = [item["Id"] for item in listed if item["Labels"].get("com.docker.compose.project") == "parity"]
        (tested,) = [
            item["Id"] for item in listed if item["Names"][0].startswith("/lyra-") and "web" in item["Names"][0]
        ]
        documents = {name: engine.api.inspect_container(name) for name in (deployed, tested)}
    finally:
        run_compose("down", "--volumes")
    for part, different in DIFFERENT.items():
        mine, theirs = documents[tested][part], documents[deployed][part]
        for key in sorted((mine.keys() | theirs.keys()) - different):
            first, second = (normalize(document.get(key)) for document in (mine, theirs))
            if key in UNORDERED:
                first, second = (sorted(value or []) for value in (first, second))
            assert first == second, f"{part}.{key}"
    volumes = 4 * 1024**2
    assert documents[tested]["HostConfig"]["Memory"] == documents[deployed]["HostConfig"]["Memory"] + volumes
    aliases = [
        {alias for network in document["NetworkSettings"]["Networks"].values() for alias in network["Aliases"] or []}
        for document in (documents[tested], documents[deployed])
    ]
    expected = {"web", "www"} if options else {"web"}
    assert [expected <= names for names in aliases] == [True, True]


def normalize(value: Any) -> Any:
    """Return a value of the engine's answer, tables in a list without their order, and None for all that is empty."""
    if value in EMPTY:
        return None
    return sorted(value, key=str) if isinstance(value, list) and isinstance(value[0], dict) else value


def test_options_are_in_force(tiny: Project) -> None:
    tiny.replace(".lyra.toml", HEALTH, HEALTH + OPTIONS.replace("INIT", ""))
    path = tiny.root / ".lyra.toml"
    path.write_text(path.read_text() + INSIDE)
    outcome = tiny.lyra("build", "test")
    assert outcome.code == 0, outcome.text


def test_oneshot_may_take_as_long_as_configured(tiny: Project, engine: Engine) -> None:
    once = """
[services.once]
image = "web"
oneshot = true
promote = false
command = ["/bin/sh", "-c", "sleep 30"]
start_timeout = "2s"
limits = { cpus = 0.1, memory = "8m", pids = 16, disk = "1m" }
"""
    tiny.replace(".lyra.toml", '\n[[tests]]\nname = "the page', f'{once}\n[[tests]]\nname = "the page')
    refused(tiny.lyra("build", "test"), 5, "once did not end within 2 s", "start_timeout", "[services.once]")
    assert labs(engine) == []
