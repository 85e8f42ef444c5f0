"""Containers that exit, checks that fail, limits that do not fit: exit code, message, nothing left behind."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.faults import labs, refused
from tests.thorough import THOROUGH

HEALTH = 'healthcheck = { http = "GET /", retries = 10, interval = "500ms", timeout = "1s" }'
SERVER = 'CMD ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]'


def serve(tiny: Project, script: str, health: str = HEALTH) -> None:
    """Run a shell script in the service instead of its web server."""
    command = f"command = ['/bin/sh', '-c', '''{script}''']"
    tiny.replace(".lyra.toml", HEALTH, f"{health}\n{command}")


def only_checks(tiny: Project, *tests: str) -> None:
    """Replace all checks."""
    path = tiny.root / ".lyra.toml"
    head = path.read_text().partition("[[tests]]")[0]
    path.write_text(head + "\n".join(f"[[tests]]\n{test}\n" for test in tests))


@pytest.mark.parametrize(
    ("script", "messages"),
    [
        ("echo giving up >&2; exit 9", ("web exited with code 9", "giving up", "web.log")),
        ("exec no-such-program", ("web exited with code 127", "no-such-program: not found")),
        ("dd if=/dev/zero of=/dev/null bs=64M", ("out of memory", "exit code 137", "16 MiB", "[services.web.limits]")),
        ("echo still warming up; sleep 60", ("web was not ready within 2.5 s", "still warming up")),
    ],
)
def test_service_that_never_gets_ready_explains_why(
    tiny: Project, engine: Engine, script: str, messages: tuple[str, ...]
) -> None:
    serve(tiny, script, 'healthcheck = { http = "GET /", retries = 3, interval = "500ms", timeout = "1s" }')
    started = time.monotonic()
    refused(tiny.lyra("build", "test"), 5, *messages)
    assert time.monotonic() - started < 30
    assert labs(engine) == []


def test_service_that_listens_on_loopback_only_is_explained(tiny: Project, engine: Engine) -> None:
    health = 'healthcheck = { http = "GET /", retries = 2, interval = "500ms", timeout = "1s" }'
    serve(tiny, "exec busybox httpd -f -p 127.0.0.1:8080 -h /www", health)
    refused(tiny.lyra("build", "test"), 5, "web was not ready within 2 s", "127.0.0.1", "listen on 0.0.0.0")
    assert labs(engine) == []


def test_killed_service_names_who_killed_it(tiny: Project, engine: Engine) -> None:
    only_checks(tiny, 'name = "kills"\nrun = \'docker kill "$LYRA_WEB_CONTAINER"\'\ntimeout = "60s"')
    refused(tiny.lyra("build", "test"), 5, "web was killed (exit code 137): a request to the engine")
    assert labs(engine) == []


def test_health_check_output_is_shown_redacted(tiny: Project, engine: Engine) -> None:
    command = "'echo the door is stuck for $TOKEN; exit 1'"
    health = f"healthcheck = {{ exec = {command}, retries = 3, interval = '500ms', timeout = '1s' }}"
    tiny.replace(".lyra.toml", HEALTH, health)
    refused(tiny.lyra("build", "test"), 5, "web is unhealthy", "3 times", "the door is stuck for ***")
    assert labs(engine) == []


def test_command_missing_in_image_is_named(tiny: Project, engine: Engine) -> None:
    tiny.replace(".lyra.toml", HEALTH, f"{HEALTH}\ncommand = ['/bin/nothing']")
    refused(tiny.lyra("build", "test"), 5, "web", "/bin/nothing", "No such file")
    assert labs(engine) == []
    tiny.replace(".lyra.toml", "\ncommand = ['/bin/nothing']", "")
    assert tiny.lyra("test").code == 0


def test_service_exit_during_checks_ends_run(tiny: Project, engine: Engine) -> None:
    serve(tiny, "busybox httpd -p 8080 -h /www; sleep 3; echo enough >&2; exit 4")
    only_checks(tiny, 'name = "waits"\nservice = "web"\nexec = "sleep 90"\ntimeout = "90s"')
    started = time.monotonic()
    refused(tiny.lyra("build", "test"), 5, "web exited with code 4", "enough")
    assert time.monotonic() - started < 60
    assert labs(engine) == []


_FAILING = {
    "status": ('http = "GET /nothing"', "status 404, expected 200"),
    "body": (
        'http = "GET /"\nbody = "It is huge."',
        "the body does not contain 'It is huge.'; it begins: <p>It is tiny.",
    ),
    "no json": ('http = "GET /"\njson = { a = 1 }', "the body is not JSON"),
    "json": ('http = "GET /seen.json"\njson = { a = { b = 2 } }', "$.a.b is 1, expected 2"),
    "exit code": ('exec = "echo no; exit 3"', "exit code 3, expected 0; it printed: no"),
    "output": ('exec = "echo this"\noutput = "that"', "the output does not contain 'that'; it is: this"),
    "exec timeout": ('exec = "sleep 30"\ntimeout = "500ms"', "the command did not end within 0.5 s"),
    "tcp": ('tcp = "deaf"\ntimeout = "1s"', "nothing listens on port deaf within 1 s, or only on 127.0.0.1"),
    "log": ('log = "never said"\ntimeout = "500ms"', "no line matches 'never said' within 0.5 s"),
    "env secret": ('exec = "echo $TOKEN; exit 1"', "it printed: ***"),
    "file secret": ('exec = "cat /run/secrets/key; exit 1"', "it printed: ***"),
    "given secret": ('exec = "echo $GIVEN; exit 1"', "it printed: ***"),
    "secret at a cut": ("exec = 'printf %0390d 0; echo $GIVEN; exit 1'", "000***"),
}


def test_failed_checks_explain_without_secrets(tiny: Project, engine: Engine) -> None:
    tiny.replace(".lyra.toml", "ports = { http = 8080 }", "ports = { http = 8080, deaf = 9999 }")
    tiny.replace("app/Dockerfile", "EXPOSE 8080", "EXPOSE 8080 9999")
    given = 'GIVEN = { secret = true, test_value = "known-to-nobody", description = "x" }\nTOKEN = {'
    tiny.replace(".lyra.toml", "TOKEN = {", given)
    key = 'description = "turns the lock"'
    tiny.replace(".lyra.toml", key, f'{key}\ntest_value = """\nfirst line of the key\nsecond line of the key\n"""')
    serve(tiny, 'echo "token $TOKEN given $GIVEN"; cat /run/secrets/key; exec busybox httpd -f -p 8080 -h /www')
    (tiny.root / "app" / "www" / "seen.json").write_text('{"a": {"b": 1}}')
    only_checks(tiny, *(f'name = "{name}"\nservice = "web"\n{test}' for name, (test, _) in _FAILING.items()))
    result = tiny.lyra("build", "test")
    refused(result, 5, "13 of 13 check(s) failed", *(message for _, message in _FAILING.values()))
    assert labs(engine) == []
    (run,) = (tiny.root / ".lyra" / "runs").iterdir()
    document = json.loads((run / "tests.json").read_text())
    assert {check["name"]: check["outcome"] for check in document["checks"]} == dict.fromkeys(_FAILING, "failed")
    assert "token *** given ***" in (run / "logs" / "web.log").read_text()
    files = [path for directory in (tiny.root / ".lyra", tiny.state) for path in directory.rglob("*") if path.is_file()]
    secrets = ("known-to", "first line of the key", "second line of the key")
    leaks = [(path.name, secret) for path in files for secret in secrets if secret.encode() in path.read_bytes()]
    assert leaks == []
    assert not [secret for secret in secrets if secret in result.text]
    refused(tiny.lyra("promote"), 3, "The last test run failed", "build test")


def test_run_without_checks_fails(tiny: Project, engine: Engine) -> None:
    only_checks(tiny)
    refused(tiny.lyra("build", "test"), 5, "No checks configured")
    assert labs(engine) == []
    refused(tiny.lyra("promote"), 3, "have not been tested")


@pytest.mark.parametrize(
    ("limits", "share", "message"),
    [
        ('cpus = 99, memory = "16m"', "", "Not enough CPUs on this host"),
        pytest.param('cpus = 0.1, memory = "900g"', "", "Not enough memory on this host", marks=THOROUGH),
        pytest.param('cpus = 0.2, memory = "16m"', "0.000001", "LYRA_HOST_SHARE", marks=THOROUGH),
    ],
)
def test_limits_above_host_capacity_are_refused(
    tiny: Project, engine: Engine, limits: str, share: str, message: str
) -> None:
    tiny.replace(".lyra.toml", 'cpus = 0.2, memory = "16m"', limits)
    assert tiny.lyra("build").code == 0
    result = tiny.lyra("test", LYRA_HOST_SHARE=share)
    refused(result, 3, "on this host: ", "this run: web", message)
    assert labs(engine) == []
    (journal,) = tiny.state.glob("*/journal.jsonl")
    assert '"kind":"container"' not in journal.read_text()


@pytest.mark.parametrize(
    ("proxima", "messages"),
    [
        ("cpus = 0.1", ("services: limits of all services: 0.2 CPUs, Proxima has 0.1", "proxima.capacity")),
        pytest.param('memory = "8m"', ("services: limits of all services: ", "proxima.capacity"), marks=THOROUGH),
        (
            'max_image_size = "100k"',
            ("images.web: image size", "exceeds proxima.max_image_size 100.0 KiB", "image.size"),
        ),
    ],
)
def test_limits_above_proxima_capacity_fail_the_build(
    tiny: Project, engine: Engine, proxima: str, messages: tuple[str, ...]
) -> None:
    tiny.replace(".lyra.toml", "[images.web]", f"[proxima]\n{proxima}\n\n[images.web]")
    result = tiny.lyra("build", "test")
    refused(result, 5, "1 rule violation(s)", *messages)
    assert "ready after" not in result.text, "no service is started"
    assert labs(engine) == []
    refused(tiny.lyra("promote"), 3)


_DEVIATION = """
[[deviations]]
rule = "container.non-root"
scope = "services.web"
reason = "it has to bind a low port"
owner = "ada"
expires = {date}
"""


def test_root_needs_unexpired_deviation_that_is_recorded(tiny: Project, engine: Engine) -> None:
    tiny.replace("app/Dockerfile", "USER 65534:65534", "USER 0:0")
    tiny.replace(".lyra.toml", '"-r--------    1 65534    65534"', '"-r--"')
    tiny.replace(".lyra.toml", 'owner = "65534:65534"', 'owner = "0:0"')
    tiny.replace("app/Dockerfile", "--chown=65534:65534 ", "")
    config = tiny.root / ".lyra.toml"
    original = config.read_text()
    refused(tiny.lyra("build", "test"), 5, "services.web: runs as root", "container.non-root", "[[deviations]]")
    config.write_text(original + _DEVIATION.format(date="2020-01-31"))
    refused(tiny.lyra("test"), 5, "the deviation from container.non-root expired on 2020-01-31")
    config.write_text(original + _DEVIATION.format(date="2999-12-31"))
    result = tiny.lyra("test", "promote")
    assert result.code == 0, result.text
    assert "Deviation from container.non-root" in result.text
    (bundle,) = tiny.bundles()
    (entry,) = json.loads((bundle / "evidence" / "deviations.json").read_text())["deviations"]
    assert entry["reason"] == "it has to bind a low port"
    assert "it has to bind a low port" in (bundle / "PROMOTION.md").read_text()
    assert labs(engine) == []


def test_parallel_test_runs_do_not_interfere(tiny: Project, engine: Engine) -> None:
    assert tiny.lyra("build").code == 0
    with tiny.start("test") as one, tiny.start("test") as other:
        results = [process.communicate(timeout=120) for process in (one, other)]
    for process, (out, err) in zip((one, other), results, strict=True):
        assert process.returncode == 0, out + err
        assert "4 of 4 checks passed" in out
    assert labs(engine) == []
    assert len(list(Path(tiny.root, ".lyra", "runs").glob("*/tests.json"))) == 2
