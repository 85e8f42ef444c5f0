"""Containers that exit, checks that fail, limits that do not fit: exit code, message, nothing left behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.faults import labs, refused
from tests.thorough import THOROUGH

HEALTH = 'healthcheck = { http = "GET /", retries = 10, interval = "500ms", timeout = "1s" }'
SERVER = 'CMD ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]'


def serve(project: Project, script: str, health: str = HEALTH) -> None:
    """Run a shell script in the service instead of its web server."""
    command = f"command = ['/bin/sh', '-c', '''{script}''']"
    project.replace(".lyra.toml", HEALTH, f"{health}\n{command}")


def only_checks(project: Project, *tests: str) -> None:
    """Replace all checks."""
    path = project.root / ".lyra.toml"
    head = path.read_text().partition("[[tests]]")[0]
    path.write_text(head + "\n".join(f"[[tests]]\n{test}\n" for test in tests))


@pytest.fixture(scope="module")
def built(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Build a project with a second port, which nothing listens on, and with a document."""
    project = make_tiny()
    project.replace(".lyra.toml", "ports = { http = 8080 }", "ports = { http = 8080, deaf = 9999 }")
    project.replace("app/Dockerfile", "EXPOSE 8080", "EXPOSE 8080 9999")
    (project.root / "app" / "www" / "seen.json").write_text('{"a": {"b": 1}}')
    project.commit("another port")
    assert project.lyra("build").code == 0
    yield project
    project.clean()


@pytest.fixture
def lab(built: Project, engine: Engine) -> Iterator[Project]:
    """Return the built project, whose configuration is as before after the test; nothing of a lab may be left."""
    config = built.root / ".lyra.toml"
    before = config.read_bytes()
    yield built
    config.write_bytes(before)
    assert labs(engine) == []


@pytest.mark.parametrize(
    ("script", "messages"),
    [
        ("echo giving up >&2; exit 9", ("web exited with code 9", "giving up", "web.log")),
        ("dd if=/dev/zero of=/dev/null bs=64M", ("out of memory", "exit code 137", "16 MiB", "[services.web.limits]")),
        (
            "echo still warming up; exec busybox httpd -f -p 127.0.0.1:8080 -h /www",
            ("web was not ready within 2.5 s", "still warming up", "127.0.0.1", "listen on 0.0.0.0"),
        ),
        pytest.param(
            "exec no-such-program", ("web exited with code 127", "no-such-program: not found"), marks=THOROUGH
        ),
        pytest.param(
            "echo still warming up; sleep 60",
            ("web was not ready within 2.5 s", "still warming up"),
            marks=THOROUGH,
        ),
    ],
)
def test_service_that_never_gets_ready_explains_why(lab: Project, script: str, messages: tuple[str, ...]) -> None:
    serve(lab, script, 'healthcheck = { http = "GET /", retries = 3, interval = "500ms", timeout = "1s" }')
    started = time.monotonic()
    refused(lab.lyra("test"), 5, *messages)
    assert time.monotonic() - started < 30


def test_killed_service_names_who_killed_it(lab: Project) -> None:
    only_checks(lab, 'name = "kills"\nrun = \'docker kill "$LYRA_WEB_CONTAINER"\'\ntimeout = "60s"')
    refused(lab.lyra("test"), 5, "web was killed (exit code 137): a request to the engine")


def test_health_check_output_is_shown_redacted(lab: Project) -> None:
    command = "'echo the door is stuck for $TOKEN; exit 1'"
    health = f"healthcheck = {{ exec = {command}, retries = 3, interval = '500ms', timeout = '1s' }}"
    lab.replace(".lyra.toml", HEALTH, health)
    refused(lab.lyra("test"), 5, "web is unhealthy", "3 times", "the door is stuck for ***")


def test_command_missing_in_image_is_named(lab: Project) -> None:
    lab.replace(".lyra.toml", HEALTH, f"{HEALTH}\ncommand = ['/bin/nothing']")
    refused(lab.lyra("test"), 5, "web", "/bin/nothing", "No such file")


def test_service_exit_during_checks_ends_run(lab: Project) -> None:
    serve(lab, "busybox httpd -p 8080 -h /www; sleep 3; echo enough >&2; exit 4")
    only_checks(lab, 'name = "waits"\nservice = "web"\nexec = "sleep 90"\ntimeout = "90s"')
    started = time.monotonic()
    refused(lab.lyra("test"), 5, "web exited with code 4", "enough")
    assert time.monotonic() - started < 60


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


def test_failed_checks_explain_without_secrets(lab: Project) -> None:
    given = 'GIVEN = { secret = true, test_value = "known-to-nobody", description = "x" }\nTOKEN = {'
    lab.replace(".lyra.toml", "TOKEN = {", given)
    key = 'description = "turns the lock"'
    lab.replace(".lyra.toml", key, f'{key}\ntest_value = """\nfirst line of the key\nsecond line of the key\n"""')
    serve(lab, 'echo "token $TOKEN given $GIVEN"; cat /run/secrets/key; exec busybox httpd -f -p 8080 -h /www')
    only_checks(lab, *(f'name = "{name}"\nservice = "web"\n{test}' for name, (test, _) in _FAILING.items()))
    earlier = set((lab.root / ".lyra" / "runs").iterdir())
    result = lab.lyra("test")
    refused(result, 5, "13 of 13 check(s) failed", *(message for _, message in _FAILING.values()))
    (run,) = set((lab.root / ".lyra" / "runs").iterdir()) - earlier
    document = json.loads((run / "tests.json").read_text())
    assert {check["name"]: check["outcome"] for check in document["checks"]} == dict.fromkeys(_FAILING, "failed")
    assert "token *** given ***" in (run / "logs" / "web.log").read_text()
    files = [path for directory in (lab.root / ".lyra", lab.state) for path in directory.rglob("*") if path.is_file()]
    secrets = ("known-to", "first line of the key", "second line of the key")
    leaks = [(path.name, secret) for path in files for secret in secrets if secret.encode() in path.read_bytes()]
    assert leaks == []
    assert not [secret for secret in secrets if secret in result.text]
    refused(lab.lyra("promote"), 3, "The last test run failed", "build test")


def test_run_without_checks_fails(lab: Project) -> None:
    only_checks(lab)
    refused(lab.lyra("test"), 5, "No checks configured")
    refused(lab.lyra("promote"), 3, "have not been tested")


@pytest.mark.parametrize(
    ("limits", "share", "message"),
    [
        ('cpus = 99, memory = "16m"', "", "Not enough CPUs on this host"),
        pytest.param('cpus = 0.1, memory = "900g"', "", "Not enough memory on this host", marks=THOROUGH),
        pytest.param('cpus = 0.2, memory = "16m"', "0.000001", "LYRA_HOST_SHARE", marks=THOROUGH),
    ],
)
def test_limits_above_host_capacity_are_refused(lab: Project, limits: str, share: str, message: str) -> None:
    lab.replace(".lyra.toml", 'cpus = 0.2, memory = "16m"', limits)
    (journal,) = lab.state.glob("*/journal.jsonl")
    length = journal.stat().st_size
    result = lab.lyra("test", LYRA_HOST_SHARE=share)
    refused(result, 3, "on this host: ", "this run: web", message)
    added = journal.read_bytes()[length:]
    assert added and b'"kind":"container"' not in added


def test_limits_above_proxima_capacity_fail_the_build(lab: Project) -> None:
    config = lab.root / ".lyra.toml"
    before = config.read_text()
    for proxima, count, messages in (
        (
            'cpus = 0.1\nmemory = "8m"',
            2,
            (
                "services: limits of all services: 0.2 CPUs, Proxima has 0.1 (rule proxima.capacity)",
                "services: limits of all services: 16.0 MiB of memory, Proxima has 8.0 MiB (rule proxima.capacity)",
            ),
        ),
        (
            'max_image_size = "100k"',
            1,
            ("images.web: image size", "exceeds proxima.max_image_size 100.0 KiB", "image.size"),
        ),
    ):
        config.write_text(before.replace("[images.web]", f"[proxima]\n{proxima}\n\n[images.web]"))
        result = lab.lyra("build", "test")
        refused(result, 5, f"{count} rule violation(s)", *messages)
        assert "ready after" not in result.text, "no service is started"
        refused(lab.lyra("promote"), 3)


_DEVIATION = """
[[deviations]]
rule = "container.non-root"
scope = "services.web"
reason = "it has to bind a low port"
owner = "ada"
expires = {date}
"""


def test_root_needs_unexpired_deviation_that_is_recorded(lab: Project) -> None:
    lab.replace(".lyra.toml", HEALTH, f'{HEALTH}\nuser = "0:0"')
    config = lab.root / ".lyra.toml"
    text = config.read_text()
    config.write_text(text[: text.index("[services.web.volumes.data]")])
    only_checks(
        lab,
        'name = "the secret is in place"\nservice = "web"\nexec = "id -u; ls -ln /run/secrets/key"\noutput = "-r--"',
    )
    original = config.read_text()
    refused(lab.lyra("test"), 5, "services.web: runs as root", "container.non-root", "[[deviations]]")
    config.write_text(original + _DEVIATION.format(date="2020-01-31"))
    refused(lab.lyra("test"), 5, "the deviation from container.non-root expired on 2020-01-31")
    config.write_text(original + _DEVIATION.format(date="2999-12-31"))
    result = lab.lyra("test", "promote")
    assert result.code == 0, result.text
    assert "Deviation from container.non-root" in result.text
    (bundle,) = lab.bundles()
    (entry,) = json.loads((bundle / "evidence" / "deviations.json").read_text())["deviations"]
    assert entry["reason"] == "it has to bind a low port"
    assert "it has to bind a low port" in (bundle / "PROMOTION.md").read_text()


def test_parallel_test_runs_do_not_interfere(lab: Project) -> None:
    earlier = set(Path(lab.root, ".lyra", "runs").glob("*/tests.json"))
    with lab.start("test") as one, lab.start("test") as other:
        results = [process.communicate(timeout=120) for process in (one, other)]
    for process, (out, err) in zip((one, other), results, strict=True):
        assert process.returncode == 0, out + err
        assert "4 of 4 checks passed" in out
    assert len(set(Path(lab.root, ".lyra", "runs").glob("*/tests.json")) - earlier) == 2
