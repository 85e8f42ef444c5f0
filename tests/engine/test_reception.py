"""A bundle on other engines, following only the instructions in the bundle."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.format.documents import read_report_documents
from lyra_tasks.bundle.format.manifest import open_bundle
from lyra_tasks.config.load import load_config
from lyra_tasks.engine import sandbox
from lyra_tasks.lab.payload import build_hardening_options
from lyra_tasks.report.page import render_report
from tests.conftest import Project
from tests.engine.clones import clone
from tests.engines import ENGINES
from tests.thorough import keep

SUITES = {"containerd": "trixie", "classic": "bookworm"}
SECRET = "a-secret-of-at-least-16-bytes"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, cache: Path, box: sandbox.Sandbox) -> Iterator[Project]:
    """Promote the demo."""
    project = clone(tmp_path_factory.mktemp("demo"), cache, box)
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    yield project
    project.clean()


@pytest.fixture(scope="module")
def bundle(demo: Project) -> Path:
    (bundle,) = demo.bundles()
    return bundle


@dataclass(frozen=True)
class Proxima:
    """A clean node: its engine, and the bundle that was copied and started there."""

    box: sandbox.Sandbox
    store: str
    directory: Path
    output: str

    def docker(self, *arguments: str) -> str:
        """Run docker in `deploy/` with the node's engine."""
        result = subprocess.run(
            ["docker", *arguments],
            cwd=self.directory / "deploy",
            env={**os.environ, **self.box.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr

    def inspect(self, service: str) -> dict[str, Any]:
        """Inspect the container of a service."""
        container = self.docker("compose", "ps", "--quiet", service).strip()
        properties: dict[str, Any] = json.loads(self.docker("inspect", container))[0]
        return properties

    def get(self, path: str, **headers: str) -> str:
        """Return the response of the published service."""
        request = urllib.request.Request(f"http://{self.box.address}:8123{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: bytes = answer.read()
        return content.decode()


@pytest.fixture(scope="module", params=keep(1, list(SUITES)))
def proxima(
    request: pytest.FixtureRequest, bundle: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxima]:
    """Receive and start the bundle, on a current containerd store and on the classic store of Engine 20.10."""
    place = tmp_path_factory.mktemp(request.param)
    directory = place / "bundle"
    subprocess.run(["cp", "--recursive", bundle, directory], check=True)
    secret = place / "key"
    secret.write_text(SECRET)
    secret.chmod(0o400)
    os.chown(secret, 10001, 10001)
    box = sandbox.launch_sandbox(place / "state", cache=cache, suite=SUITES[request.param])
    try:
        example = (directory / "deploy" / ".env.example").read_text()
        (place / "env").write_text(fill_in(example, secret, f"{box.address}:8123"))
        result = subprocess.run(
            ["sh", "-eu", "-c", commands(directory / "PROMOTION.md", place / "env")],
            cwd=directory,
            env={**os.environ, **box.environment()},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        node = Proxima(box, request.param, directory, result.stdout + result.stderr)
        yield node
        node.docker("compose", "down", "--volumes")
        assert node.docker("ps", "--all", "--quiet") == ""
    finally:
        sandbox.shut_down_sandbox(place / "state", purge=True)


def commands(page: Path, env_file: Path) -> str:
    """Return the commands from trust to start, where `env_file` replaces what is to be configured."""
    blocks = dict(re.findall(r"(?ms)^## (\d)\. .*?^```$\n(.*?)^```$", page.read_text()))
    configure = f"cp {shlex.quote(str(env_file))} deploy/.env\ncd deploy\n"
    return "".join((blocks["1"], blocks["2"], configure, blocks["4"]))


def fill_in(example: str, secret: Path, publish: str) -> str:
    """Fill in the required values of `.env.example`, and publish the port on another address."""
    text = example.replace("ADMIN_TOKEN=\n", "ADMIN_TOKEN=sesame\n")
    text = text.replace("WEB_SESSION_KEY_FILE=\n", f"WEB_SESSION_KEY_FILE={secret}\n")
    text = re.sub(r"(?m)^#(WEB_HTTP_PUBLISH)=.*$", rf"\1={publish}", text)
    assert re.findall(r"(?m)^\w+=$", text) == [], "only the two secrets of the demo are required"
    return text


def images(bundle: Path) -> list[dict[str, Any]]:
    """Return the images in a bundle's manifest."""
    images: list[dict[str, Any]] = json.loads((bundle / "manifest.json").read_text())["images"]
    assert len(images) == 2
    return images


def test_report_is_rendered_from_the_bundle_alone(bundle: Path, demo: Project) -> None:
    report = (bundle / "report.html").read_text()
    assert render_report(read_report_documents(open_bundle(bundle))) == report
    events = json.loads((bundle / "evidence" / "metrics.json").read_text())["events"]
    assert {event["kind"] for event in events} == {"started", "ready", "check"}
    for text in (
        "front page greets",
        "ADMIN_TOKEN",
        "/run/secrets/session_key",
        "ready after",
        "All rules apply.",
    ):
        assert text in report
    assert "only-for-tests" not in report, "the value of a secret"
    (run,) = demo.root.glob(".lyra/runs/*/report.html")
    assert "front page greets" in run.read_text()


def test_engine_loads_the_promoted_images_only(proxima: Proxima) -> None:
    digest = "manifest_digest" if proxima.store == "containerd" else "config_digest"
    for image in images(proxima.directory):
        (reference,) = image["references"]
        loaded = json.loads(proxima.docker("image", "inspect", reference))[0]
        assert loaded["Id"] == image[digest]
        assert loaded["RootFS"]["Layers"] == image["diff_ids"]
    names = proxima.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert sorted(names) == sorted(
        reference for image in images(proxima.directory) for reference in image["references"]
    )


@pytest.mark.thorough
def test_newest_engine_loads_all_images_from_one_archive(bundle: Path, cache: Path, tmp_path: Path) -> None:
    box = sandbox.launch_sandbox(tmp_path / "state", cache=cache, suite=ENGINES["newest"].suite)
    try:
        environment = {**os.environ, **box.environment()}
        received = subprocess.run(
            ["sh", bundle / "receive.sh"], env=environment, capture_output=True, text=True, check=False
        )
        assert received.returncode == 0, received.stderr
        assert received.stdout.count("Loading images/") == 1
        digest = "manifest_digest" if box.store == "containerd" else "config_digest"
        for image in images(bundle):
            command = ["docker", "image", "inspect", "--format", "{{.Id}}", image["references"][0]]
            loaded = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            assert loaded.strip() == image[digest]
    finally:
        sandbox.shut_down_sandbox(tmp_path / "state", purge=True)


def test_deployed_services_respond(proxima: Proxima) -> None:
    assert "hello" in proxima.get("/")
    assert "The guestbook of the lyre" in proxima.get("/"), "the config file is used"
    assert json.loads(proxima.get("/healthz")) == {"database": "ok", "counter": "ok"}
    assert "entries: 0" in proxima.get("/admin", Authorization="Bearer sesame")


def test_compose_prints_no_warnings(proxima: Proxima) -> None:
    assert "level=warning" not in proxima.output
    assert "sesame" not in proxima.output
    assert proxima.docker("compose", "config", "--quiet") == ""


def test_limits_and_hardening_equal_the_tested_ones(proxima: Proxima, demo: Project) -> None:
    tested = json.loads((proxima.directory / "evidence" / "tests.json").read_text())["usage"]
    documented = json.loads((proxima.directory / "deploy" / "environment.json").read_text())["services"]
    for name, service in load_config(demo.root).config.services.items():
        host = proxima.inspect(name)["HostConfig"]
        usage = tested[name]
        # In the lab, volumes count as memory of their service.
        volumes = sum(volume["size"] for volume in documented[name]["volumes"])
        assert host["Memory"] == host["MemorySwap"] == usage["memory_limit"] - volumes
        assert host["NanoCpus"] == usage["cpu_limit"] * 1e9
        assert host["PidsLimit"] == usage["pids_limit"]
        expected = build_hardening_options(service)
        for key in ("ReadonlyRootfs", "CapDrop", "SecurityOpt", "Init", "IpcMode"):
            assert host[key] == expected[key], f"{name}: {key}"
        assert (host["CapAdd"] or []) == expected["CapAdd"]
        assert sorted(host["Ulimits"], key=str) == sorted(expected["Ulimits"], key=str)
        assert not host["Privileged"]


def test_backup_commands_of_the_page_work(proxima: Proxima, tmp_path: Path) -> None:
    page = (proxima.directory / "PROMOTION.md").read_text()
    block = page[page.index("\n## 6.") : page.index("\n## 7.")]
    commands = re.findall(r"(?m)^(?:place\(|save\(|! docker volume).*$", block)
    assert len(commands) == 4, "two functions, and a line for each volume"
    script = "\n".join([f"BACKUP={tmp_path}", *commands])
    environment = {**os.environ, **proxima.box.environment()}
    subprocess.run(["sh", "-e", "-c", script], cwd=proxima.directory / "deploy", env=environment, check=True)
    names = [f"guestbook_{name}.tar" for name in ("counter-state", "web-data")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    with tarfile.open(tmp_path / names[1]) as archive:
        assert "./guestbook.sqlite3" in archive.getnames()


def test_secret_is_readable_by_its_service_only(proxima: Proxima) -> None:
    program = "import os; f = '/run/secrets/session_key'; print(open(f).read(), oct(os.stat(f).st_mode & 0o777))"
    assert proxima.docker("compose", "exec", "-T", "web", "python3", "-c", program) == f"{SECRET} 0o400\n"
    assert SECRET not in json.dumps(proxima.inspect("web"))
