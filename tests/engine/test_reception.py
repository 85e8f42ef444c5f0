"""A bundle at the other end: other engines, Debian's skopeo, and nothing but what the bundle itself says to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.reported import documents_of_bundle
from lyra_tasks.config.load import load
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.debian import AptWorkspace, unpack
from lyra_tasks.lab.payload import hardening
from lyra_tasks.report.page import page
from tests.conftest import Project
from tests.engine.clones import clone

SUITES = {"containerd": "trixie", "classic": "bookworm"}
# what skopeo links that a machine may lack; all of bookworm, so that it runs on newer ones, too
SKOPEO = ("skopeo", "libgpgme11", "libassuan0", "libgpg-error0", "libdevmapper1.02.1")
SECRET = "a-secret-of-at-least-16-bytes"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, cache: Path, box: sandbox.Sandbox) -> Iterator[Project]:
    """The demo, promoted once."""
    project = clone(tmp_path_factory.mktemp("demo"), cache, box)
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    yield project
    project.clean()


@pytest.fixture(scope="module")
def bundle(demo: Project) -> Path:
    (folder,) = demo.bundles()
    return folder


@dataclass(frozen=True)
class Proxima:
    """A node that has seen no build: its engine, and the bundle as it was carried there and followed."""

    box: sandbox.Sandbox
    store: str
    folder: Path
    output: str

    def docker(self, *words: str) -> str:
        """Run the node's own docker command in `deploy/`."""
        done = subprocess.run(
            ["docker", *words],
            cwd=self.folder / "deploy",
            env={**os.environ, **self.box.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine says of a service's container."""
        container = self.docker("compose", "ps", "--quiet", service).strip()
        found: dict[str, Any] = json.loads(self.docker("inspect", container))[0]
        return found

    def get(self, path: str, **headers: str) -> str:
        """What the published front answers."""
        request = urllib.request.Request(f"http://{self.box.address}:8123{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: bytes = answer.read()
        return content.decode()


@pytest.fixture(scope="module", params=SUITES)
def proxima(
    request: pytest.FixtureRequest, bundle: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxima]:
    """The bundle received and running, on a containerd store of today and on the classic store of Engine 20.10."""
    place = tmp_path_factory.mktemp(request.param)
    folder = place / "bundle"
    subprocess.run(["cp", "--recursive", bundle, folder], check=True)
    secret = place / "key"
    secret.write_text(SECRET)
    secret.chmod(0o400)
    os.chown(secret, 10001, 10001)
    box = sandbox.up(place / "state", cache=cache, suite=SUITES[request.param])
    try:
        example = (folder / "deploy" / ".env.example").read_text()
        (place / "filled").write_text(filled(example, secret, f"{box.address}:8123"))
        done = subprocess.run(
            ["sh", "-eu", "-c", commands(folder / "PROMOTION.md", place / "filled")],
            cwd=folder,
            env={**os.environ, **box.environment()},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        node = Proxima(box, request.param, folder, done.stdout + done.stderr)
        yield node
        node.docker("compose", "down", "--volumes")
        assert node.docker("ps", "--all", "--quiet") == ""
    finally:
        sandbox.down(place / "state", purge=True)


def commands(page: Path, filled: Path) -> str:
    """The page's indented block, literally; where it says to fill in the copied file, that is done."""
    lines = [line.strip() for line in page.read_text().splitlines() if line.startswith("    ")]
    (fill,) = [number for number, line in enumerate(lines) if "fill in" in line]
    lines.insert(fill + 1, f"cp '{filled}' .env")
    return "\n".join(lines)


def filled(example: str, secret: Path, publish: str) -> str:
    """`.env.example` as somebody fills it in who gives what is open, and publishes elsewhere."""
    text = example.replace("ADMIN_TOKEN=\n", "ADMIN_TOKEN=sesame\n")
    text = text.replace("WEB_SESSION_KEY_FILE=\n", f"WEB_SESSION_KEY_FILE={secret}\n")
    text = re.sub(r"(?m)^#(WEB_HTTP_PUBLISH)=.*$", rf"\1={publish}", text)
    assert re.findall(r"(?m)^\w+=$", text) == [], "more is open than the demo's two secrets"
    return text


@pytest.fixture(scope="module")
def skopeo(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> list[str]:
    """Debian's skopeo, unpacked and not installed: the words to call it by."""
    folder = tmp_path_factory.mktemp("skopeo")
    workspace = AptWorkspace(cache / "tests" / "apt", ("bookworm",))
    workspace.update()
    packages = [f"{name}/bookworm" for name in SKOPEO]
    unpack(workspace.download(packages, cache / "tests" / "skopeo", lambda _: None), folder)
    libraries = {str(path.parent) for path in folder.glob("**/*.so.*")}
    return ["env", f"LD_LIBRARY_PATH={':'.join(sorted(libraries))}", str(folder / "usr" / "bin" / "skopeo")]


def images(bundle: Path) -> list[dict[str, Any]]:
    """The images that a bundle's manifest lists."""
    found: list[dict[str, Any]] = json.loads((bundle / "manifest.json").read_text())["images"]
    assert len(found) == 2
    return found


def test_coreutils_confirm_every_file_and_find_a_changed_byte(bundle: Path, tmp_path: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    copy = tmp_path / "bundle"
    subprocess.run(["cp", "--recursive", bundle, copy], check=True)
    assert subprocess.run(command, cwd=copy, check=False, capture_output=True).returncode == 0
    with (copy / images(bundle)[0]["file"]).open("r+b") as archive:
        archive.seek(100_000)
        byte = archive.read(1)
        archive.seek(100_000)
        archive.write(bytes([byte[0] ^ 1]))
    assert subprocess.run(command, cwd=copy, check=False, capture_output=True).returncode == 1


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
def test_skopeo_finds_the_same_image_in_either_form_of_an_archive(
    bundle: Path, skopeo: list[str], transport: str
) -> None:
    for image in images(bundle):
        inspect = [*skopeo, "inspect", "--raw", f"{transport}:{bundle / image['file']}"]
        manifest = json.loads(subprocess.run(inspect, check=True, capture_output=True).stdout)
        assert manifest["config"]["digest"] == image["config_digest"]
        assert len(manifest["layers"]) == len(image["diff_ids"])


def test_the_report_is_made_of_the_bundles_own_documents_and_of_nothing_else(bundle: Path, demo: Project) -> None:
    report = (bundle / "report.html").read_text()
    assert page(documents_of_bundle(bundle)) == report
    events = json.loads((bundle / "evidence" / "metrics.json").read_text())["events"]
    assert {each["what"] for each in events} == {"started", "ready", "check"}
    for known in (
        "front page greets",
        "ADMIN_TOKEN",
        "/run/secrets/session_key",
        "ready after",
        "No rule is gone around",
    ):
        assert known in report
    assert "only-for-tests" not in report, "the value of a secret"
    (run,) = demo.root.glob(".lyra/runs/*/report.html")
    assert "front page greets" in run.read_text()


def test_an_engine_loads_what_was_promoted_and_nothing_else(proxima: Proxima) -> None:
    digest = "manifest_digest" if proxima.store == "containerd" else "config_digest"
    for image in images(proxima.folder):
        (reference,) = image["references"]
        loaded = json.loads(proxima.docker("image", "inspect", reference))[0]
        assert loaded["Id"] == image[digest]
        assert loaded["RootFS"]["Layers"] == image["diff_ids"]
    names = proxima.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert sorted(names) == sorted(reference for image in images(proxima.folder) for reference in image["references"])


def test_the_whole_set_answers_where_it_was_published(proxima: Proxima) -> None:
    assert "hello" in proxima.get("/")
    assert "The guestbook of the lyre" in proxima.get("/"), "the config file is in force"
    assert json.loads(proxima.get("/healthz")) == {"database": "ok", "counter": "ok"}
    assert "entries: 0" in proxima.get("/admin", Authorization="Bearer sesame")


def test_compose_has_nothing_to_complain_about(proxima: Proxima) -> None:
    assert "level=warning" not in proxima.output
    assert "sesame" not in proxima.output
    assert proxima.docker("compose", "config", "--quiet") == ""


def test_limits_and_hardening_are_those_that_were_tested(proxima: Proxima, demo: Project) -> None:
    tested = json.loads((proxima.folder / "evidence" / "tests.json").read_text())["use"]
    documented = json.loads((proxima.folder / "deploy" / "environment.json").read_text())["services"]
    for name, service in load(demo.root).config.services.items():
        host = proxima.inspect(name)["HostConfig"]
        use = tested[name]
        # in the lab, a volume is memory of its service
        volumes = sum(volume["size"] for volume in documented[name]["volumes"])
        assert host["Memory"] == host["MemorySwap"] == use["memory_limit"] - volumes
        assert host["NanoCpus"] == use["cpu_limit"] * 1e9
        assert host["PidsLimit"] == use["pids_limit"]
        wanted = hardening(service)
        for key in ("ReadonlyRootfs", "CapDrop", "SecurityOpt", "Init", "IpcMode"):
            assert host[key] == wanted[key], f"{name}: {key}"
        assert (host["CapAdd"] or []) == wanted["CapAdd"]
        assert sorted(host["Ulimits"], key=str) == sorted(wanted["Ulimits"], key=str)
        assert not host["Privileged"]


def test_the_secret_is_in_place_for_the_service_alone(proxima: Proxima) -> None:
    read = "import os; f = '/run/secrets/session_key'; print(open(f).read(), oct(os.stat(f).st_mode & 0o777))"
    assert proxima.docker("compose", "exec", "-T", "web", "python3", "-c", read) == f"{SECRET} 0o400\n"
    assert SECRET not in json.dumps(proxima.inspect("web"))
