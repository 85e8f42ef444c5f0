"""Twenty secrets, each through its own channel: none may leak, and secrets in images are reported."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conftest import Outcome, Project

CHANNELS = (
    "variable", "given-variable", "file", "first-line", "second-line", "build-secret", "build-argument", "image-env",
    "label", "layer", "layer-base64", "layer-url", "deleted", "file-name", "log-line", "page", "health", "last-words",
    "command-line", "remote",
)  # fmt: skip
CANARY = {name: f"canary/{number:02d}+{name} of the mine" for number, name in enumerate(CHANNELS)}
# channels that allow neither spaces nor slashes
CANARY |= {name: f"canary-{CHANNELS.index(name):02d}-{name}" for name in ("build-argument", "file-name", "remote")}
IN_THE_IMAGE = ("build-argument", "image-env", "label", "layer", "layer-base64", "layer-url", "deleted", "file-name")
GIVEN_OTHERWISE = {"image-env", "file", "first-line", "second-line", "build-secret", "remote"}

DOCKERFILE = f"""FROM scratch
ARG WORD
COPY bin /bin
COPY www /www
COPY --chown=65534:65534 data /data
COPY held /held
RUN ["/bin/busybox", "rm", "/held/deleted"]
ENV HELD="{CANARY["image-env"]}"
LABEL held="{CANARY["label"]}"
RUN --mount=type=secret,id=pass ["/bin/sh", "-c", "cat /run/secrets/pass; echo $WORD; cat /held/layer"]
USER 65534:65534
EXPOSE 8080
CMD ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]
"""
START = (
    'echo "$VARIABLE $GIVEN_VARIABLE $LOG_LINE"; cat /run/secrets/* /held/layer >&2;'
    " busybox cp -r /www /tmp/www; echo $PAGE > /tmp/www/page; exec busybox httpd -f -p 8080 -h /tmp/www"
)
DEVIATIONS = "".join(
    f'\n[[deviations]]\nrule = "{rule}"\nscope = "images.web"\nreason = "they are canaries"\nowner = "ada"\n'
    "expires = 2999-12-31\n"
    for rule in ("image.secrets", "image.tokens")
)
# one of the files is named by a canary, which `cat /held/*` would pass as an argument
EVERY_FILE = "for file in /run/secrets/* /held/*; do cat < $file; done"
CHECKS = {
    "exec": f'service = "web"\nexec = "echo $VARIABLE $GIVEN_VARIABLE; {EVERY_FILE}; exit 1"',
    "exec output": 'service = "web"\nexec = "cat /held/layer"\noutput = "something else"',
    "page": 'service = "web"\nhttp = "GET /page"\nbody = "something else"',
    "header": 'service = "web"\nhttp = "GET /nothing"\nheaders = { Authorization = "Bearer ${GIVEN_VARIABLE}" }',
    "log": 'service = "web"\nlog = "never printed"\ntimeout = "300ms"',
    "run": 'run = "cat pass; cat .lyra.toml; exit 1"',
}
PASSES = '\n[[tests]]\nname = "it is there"\nservice = "web"\nhttp = "GET /"\n'


def declared(name: str) -> str:
    key = name.upper().replace("-", "_")
    return f'[services.web.environment.{key}]\nsecret = true\ntest_value = "{CANARY[name]}"\ndescription = "x"\n'


CONFIG = f"""schema = 1
[project]
name = "tiny"
description = "a mine"

[images.web]
context = "app"
args = {{ WORD = "{CANARY["build-argument"]}" }}
secrets = {{ pass = "pass" }}

[services.web]
image = "web"
ports = {{ http = 8080 }}
limits = {{ cpus = 0.2, memory = "16m", pids = 16, disk = "8m" }}
healthcheck = {{ exec = "echo $HEALTH; busybox wget -q -O /dev/null http://127.0.0.1:8080/" }}
command = ["/bin/sh", "-c", '''{START}''']
[services.web.environment.HELD]
secret = true
test_value = "{CANARY["image-env"]}"
description = "x"
{"".join(declared(name) for name in CHANNELS if name not in GIVEN_OTHERWISE)}
[services.web.secrets.file]
path = "/run/secrets/file"
description = "x"
test_value = "{CANARY["file"]}"
[services.web.secrets.lines]
path = "/run/secrets/lines"
description = "x"
test_value = '''
{CANARY["first-line"]}
{CANARY["second-line"]}
'''
"""


@dataclass
class Mine:
    """The project, the outcomes of its commands, and the argument lists of all processes in the meantime."""

    project: Project
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    processes: set[bytes] = field(default_factory=set)

    def run(self, name: str, *arguments: str) -> Outcome:
        with watching_processes(self.processes):
            self.outcomes[name] = self.project.lyra(*arguments)
        return self.outcomes[name]


@contextmanager
def watching_processes(argument_lists: set[bytes]) -> Iterator[None]:
    """Collect the argument lists of all processes, including those in containers.

    Each is read for a second: a new process has the arguments of its parent until it starts its program.
    """
    done = threading.Event()

    def watch() -> None:
        reads = Counter[str]()
        while not done.wait(0.05):
            pids = [name for name in os.listdir("/proc") if name.isdigit()]
            reads = Counter({pid: reads[pid] + 1 for pid in pids})  # the number of a process may be given again
            for pid in (pid for pid in pids if reads[pid] <= 20):
                with suppress(OSError):
                    argument_lists.add(Path("/proc", pid, "cmdline").read_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def mine(make_tiny: Callable[[], Project]) -> Iterator[Mine]:
    """Use the secrets in every way, from a refused test to a bundle and a service that exits."""
    project = make_tiny()
    directory = project.root / "app" / "held"
    directory.mkdir()
    (directory / "layer").write_text(f"key={CANARY['layer']}\n")
    (directory / "base64").write_bytes(base64.b64encode(f"user:{CANARY['layer-base64']}".encode()))
    (directory / "url").write_text(f"https://x.example/?key={quote(CANARY['layer-url'], safe='')}\n")
    (directory / "deleted").write_text(CANARY["deleted"])
    (directory / CANARY["file-name"]).write_text("")
    (project.root / "pass").write_text(CANARY["build-secret"] + "\n")
    (project.root / ".gitignore").write_text("pass\n")
    (project.root / "app" / "Dockerfile").write_text(DOCKERFILE)
    config = project.root / ".lyra.toml"
    config.write_text(CONFIG + PASSES)
    project.git("remote", "add", "origin", f"https://ada:{CANARY['remote']}@code.invalid/team/tiny.git")
    project.commit("canaries")
    mine = Mine(project)
    mine.run("refused", "build", "test")
    failing = "".join(f'\n[[tests]]\nname = "{name}"\n{check}\n' for name, check in CHECKS.items())
    config.write_text(CONFIG + failing + DEVIATIONS)
    mine.run("failed", "test")
    config.write_text(CONFIG + PASSES + DEVIATIONS)
    mine.run("promoted", "test", "promote")
    mine.run("explained", "explain")
    mine.run("history", "history", "--json")
    mine.run("typed", "dev.exec", "--", "echo", CANARY["command-line"])
    config.write_text(CONFIG.replace(START, "echo $LAST_WORDS; echo $LAST_WORDS >&2; exit 3") + PASSES + DEVIATIONS)
    mine.run("died", "test")
    project.replace("app/Dockerfile", "cat /held/layer", "cat /held/layer; exit 3")
    mine.run("not built", "build")
    # not watched: git itself passes the URL of the remote to its helper as an argument
    mine.outcomes["not released"] = project.lyra("release", "--push")
    yield mine
    project.clean()


def forms(canary: str) -> tuple[bytes, ...]:
    encoded = [base64.b64encode(f"{prefix}{canary}".encode())[4:-4] for prefix in ("", "x", "xy", "user:")]
    return (canary.encode(), *encoded, quote(canary, safe="").encode())


def test_steps_end_with_expected_exit_codes(mine: Mine) -> None:
    codes = {name: outcome.code for name, outcome in mine.outcomes.items()}
    assert codes == {
        "refused": 5, "failed": 5, "promoted": 0, "explained": 0, "history": 0, "typed": 3, "died": 5, "not built": 4,
        "not released": 3,
    }, "\n".join(outcome.text for outcome in mine.outcomes.values())  # fmt: skip
    assert "6 of 6 check(s) failed" in mine.outcomes["failed"].err


@pytest.mark.parametrize("channel", CHANNELS)
def test_secret_is_in_no_output_log_bundle_or_argument(mine: Mine, channel: str) -> None:
    project = mine.project
    texts = {f"output of {name}": outcome.text.encode() for name, outcome in mine.outcomes.items()}
    for directory in (project.root / ".lyra", project.state, project.root / "promotion"):
        texts |= {
            str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.suffix != ".tar"
        }
    if channel != "command-line":
        texts["argument lists of processes"] = b"\n".join(mine.processes)
    assert [place for place, text in texts.items() if any(form in text for form in forms(CANARY[channel]))] == []
    assert any(name.endswith(("journal.jsonl", "tests.json", "build.log", "PROMOTION.md")) for name in texts)
    assert any("web.log" in name for name in texts)


def test_secrets_in_image_are_reported_with_place(mine: Mine) -> None:
    refused = mine.outcomes["refused"].err
    for channel in IN_THE_IMAGE:
        key = {"image-env": "HELD"}.get(channel, channel.upper().replace("-", "_"))
        assert f"images.web: contains secret services.web.environment.{key} (" in refused, channel
    for place in ("layer 4: /held/deleted", "layer 4: a file name", "config, Labels, held", "config, Env"):
        assert place in refused, place
    assert "build-secret" not in refused
    assert "contains secret" in (next(mine.project.root.glob("promotion/*/*/PROMOTION.md"))).read_text()


def test_secrets_did_pass_through_the_channels(mine: Mine) -> None:
    logs = b"".join(path.read_bytes() for path in mine.project.root.glob(".lyra/runs/*/logs/*.log"))
    assert logs.count(b"***") > 10
    assert time.strftime("%Y").encode() in logs
    assert len(mine.processes) > 20
    assert "***" in mine.outcomes["not built"].err
    assert "***" in mine.outcomes["died"].err
    assert '"***"' in mine.outcomes["history"].out or "dev.exec" not in mine.outcomes["history"].out
