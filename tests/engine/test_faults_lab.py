"""Containers that die, checks that fail, limits that do not fit: exit code, what is said, nothing left."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.faults import labs, refused

HEALTH = 'healthcheck = { http = "GET /", retries = 10, interval = "500ms", timeout = "1s" }'
SERVER = 'CMD ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]'


def serve(tiny: Project, script: str, health: str = HEALTH) -> None:
    """Let the service run a shell script in place of its web server."""
    command = f"command = ['/bin/sh', '-c', '''{script}''']"
    tiny.replace(".lyra.toml", HEALTH, f"{health}\n{command}")


def only_checks(tiny: Project, *tests: str) -> None:
    """Replace all checks."""
    path = tiny.root / ".lyra.toml"
    head = path.read_text().partition("[[tests]]")[0]
    path.write_text(head + "\n".join(f"[[tests]]\n{test}\n" for test in tests))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo giving up >&2; exit 9", ("web ended with exit code 9", "giving up", "web.log")),
        ("exec no-such-program", ("web ended with exit code 127", "no-such-program: not found")),
        ("dd if=/dev/zero of=/dev/null bs=64M", ("out of memory", "exit code 137", "16m", "[services.web.limits]")),
        ("echo still warming up; sleep 60", ("web was not ready within 2.5 s", "still warming up")),
    ],
)
def test_a_container_that_never_serves_says_why(
    tiny: Project, engine: Engine, script: str, said: tuple[str, ...]
) -> None:
    serve(tiny, script, 'healthcheck = { http = "GET /", retries = 3, interval = "500ms", timeout = "1s" }')
    began = time.monotonic()
    refused(tiny.lyra("build", "test"), 5, *said)
    assert time.monotonic() - began < 30
    assert labs(engine) == []


def test_the_last_word_of_a_failing_health_command_is_shown(tiny: Project, engine: Engine) -> None:
    command = "'echo the door is stuck for $TOKEN; exit 1'"
    health = f"healthcheck = {{ exec = {command}, retries = 3, interval = '500ms', timeout = '1s' }}"
    tiny.replace(".lyra.toml", HEALTH, health)
    refused(tiny.lyra("build", "test"), 5, "web was not ready within 2.5 s", "the door is stuck for ***")
    assert labs(engine) == []


def test_a_program_that_is_not_in_the_image_is_named(tiny: Project, engine: Engine) -> None:
    tiny.replace(".lyra.toml", HEALTH, f"{HEALTH}\ncommand = ['/bin/nothing']")
    refused(tiny.lyra("build", "test"), 5, "web", "/bin/nothing", "No such file")
    assert labs(engine) == []
    tiny.replace(".lyra.toml", "\ncommand = ['/bin/nothing']", "")
    assert tiny.lyra("test").code == 0


def test_a_service_that_dies_while_checks_run_ends_the_run(tiny: Project, engine: Engine) -> None:
    serve(tiny, "busybox httpd -p 8080 -h /www; sleep 3; echo enough >&2; exit 4")
    only_checks(tiny, 'name = "waits"\nservice = "web"\nexec = "sleep 90"\ntimeout = "90s"')
    began = time.monotonic()
    refused(tiny.lyra("build", "test"), 5, "web ended with exit code 4", "enough")
    assert time.monotonic() - began < 60
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
    "tcp": ('tcp = "deaf"\ntimeout = "1s"', "nothing listens on port deaf within 1 s"),
    "log": ('log = "never said"\ntimeout = "500ms"', "no line matches 'never said' within 0.5 s"),
    "env secret": ('exec = "echo $TOKEN; exit 1"', "it printed: ***"),
    "file secret": ('exec = "cat /run/secrets/key; exit 1"', "it printed: ***"),
    "given secret": ('exec = "echo $GIVEN; exit 1"', "it printed: ***"),
    "secret at a cut": ("exec = 'printf %0390d 0; echo $GIVEN; exit 1'", "000***"),
}


def test_every_kind_of_check_says_what_was_seen_and_no_secret(tiny: Project, engine: Engine) -> None:
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
    refused(result, 5, "13 of 13 check(s) failed", *(said for _, said in _FAILING.values()))
    assert labs(engine) == []
    (run,) = (tiny.root / ".lyra" / "runs").iterdir()
    documented = json.loads((run / "tests.json").read_text())
    assert {check["name"]: check["outcome"] for check in documented["checks"]} == dict.fromkeys(_FAILING, "failed")
    assert "token *** given ***" in (run / "logs" / "web.log").read_text()
    kept = [path for folder in (tiny.root / ".lyra", tiny.state) for path in folder.rglob("*") if path.is_file()]
    secrets = ("known-to", "first line of the key", "second line of the key")
    found = [(path.name, each) for path in kept for each in secrets if each.encode() in path.read_bytes()]
    assert found == []
    assert not [each for each in secrets if each in result.text]
    refused(tiny.lyra("promote"), 3, "the last test of this set failed", "build test")


def test_no_check_at_all_is_a_failure(tiny: Project, engine: Engine) -> None:
    only_checks(tiny)
    refused(tiny.lyra("build", "test"), 5, "there are no tests")
    assert labs(engine) == []
    refused(tiny.lyra("promote"), 3, "has not been tested")


@pytest.mark.parametrize(
    ("limits", "share", "said"),
    [
        ('cpus = 99, memory = "16m"', "", "CPUs of"),
        ('cpus = 0.1, memory = "900g"', "", "of memory of"),
        ('cpus = 0.2, memory = "16m"', "0.000001", "LYRA_HOST_SHARE"),
    ],
)
def test_limits_that_the_host_cannot_keep_are_refused_with_a_table_before_anything_starts(
    tiny: Project, engine: Engine, limits: str, share: str, said: str
) -> None:
    tiny.replace(".lyra.toml", 'cpus = 0.2, memory = "16m"', limits)
    assert tiny.lyra("build").code == 0
    result = tiny.lyra("test", LYRA_HOST_SHARE=share)
    refused(result, 3, "the limits do not fit into this host's share", "this run: web", said)
    assert labs(engine) == []
    (journal,) = tiny.state.glob("*/journal.jsonl")
    assert '"kind":"container"' not in journal.read_text()


@pytest.mark.parametrize(
    ("proxima", "said"),
    [
        ("cpus = 0.1", ("services: together they need 0.2 CPUs, Proxima has 0.1", "proxima.capacity")),
        ('memory = "8m"', ("services: together they need", "proxima.capacity")),
        ('max_image_size = "100k"', ("images.web: it has", "Proxima takes 102.4 kB at most", "image.size")),
    ],
)
def test_what_proxima_cannot_hold_fails_the_build(
    tiny: Project, engine: Engine, proxima: str, said: tuple[str, ...]
) -> None:
    tiny.replace(".lyra.toml", "[images.web]", f"[proxima]\n{proxima}\n\n[images.web]")
    refused(tiny.lyra("build", "test"), 5, "1 rule(s) are not kept", *said)
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


def test_root_needs_a_reason_that_has_not_expired_and_travels(tiny: Project, engine: Engine) -> None:
    tiny.replace("app/Dockerfile", "USER 65534:65534", "USER 0:0")
    tiny.replace(".lyra.toml", '"-r--------    1 65534    65534"', '"-r--"')
    tiny.replace(".lyra.toml", 'owner = "65534:65534"', 'owner = "0:0"')
    tiny.replace("app/Dockerfile", "--chown=65534:65534 ", "")
    config = tiny.root / ".lyra.toml"
    without = config.read_text()
    refused(tiny.lyra("build", "test"), 5, "services.web: it runs as root", "container.non-root", "[[deviations]]")
    config.write_text(without + _DEVIATION.format(date="2020-01-31"))
    refused(tiny.lyra("test"), 5, "the deviation from container.non-root expired on 2020-01-31")
    config.write_text(without + _DEVIATION.format(date="2999-12-31"))
    result = tiny.lyra("test", "promote")
    assert result.code == 0, result.text
    assert "deviation from container.non-root" in result.text
    (bundle,) = tiny.bundles()
    (entry,) = json.loads((bundle / "evidence" / "deviations.json").read_text())["deviations"]
    assert entry["reason"] == "it has to bind a low port"
    assert "it has to bind a low port" in (bundle / "PROMOTION.md").read_text()
    assert labs(engine) == []


def test_two_tests_of_one_project_at_once_do_not_meet(tiny: Project, engine: Engine) -> None:
    assert tiny.lyra("build").code == 0
    with tiny.start("test") as one, tiny.start("test") as other:
        results = [each.communicate(timeout=120) for each in (one, other)]
    for each, (out, err) in zip((one, other), results, strict=True):
        assert each.returncode == 0, out + err
        assert "4 of 4 checks passed" in out
    assert labs(engine) == []
    assert len(list(Path(tiny.root, ".lyra", "runs").glob("*/tests.json"))) == 2
