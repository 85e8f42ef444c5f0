"""A bundle at the other end: other engines, Debian's skopeo, and nothing but what the bundle itself says to do."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.format.documents import read_report_documents
from lyra_tasks.config.load import load_config
from lyra_tasks.engine import sandbox
from lyra_tasks.lab.payload import build_hardening_options
from lyra_tasks.report.page import render_report
from tests.conftest import Project
from tests.engine.clones import clone
from tests.packages import unpacked

SUITES = {"containerd": "trixie", "classic": "bookworm"}
# what they link that a machine may lack; all of bookworm, so that it runs on newer ones, too
READERS = (
    *("skopeo", "umoci", "podman", "conmon", "crun"),
    *("libgpgme11", "libassuan0", "libgpg-error0", "libdevmapper1.02.1", "libsubid4", "libseccomp2", "libyajl2"),
)
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
    box = sandbox.launch_sandbox(place / "state", cache=cache, suite=SUITES[request.param])
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
        sandbox.shut_down_sandbox(place / "state", purge=True)


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
def readers(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Debian's skopeo, umoci and podman, unpacked and not installed: the folder that they lie in."""
    kept = cache / "tests" / "readers"
    return unpacked(tmp_path_factory.mktemp("readers"), cache, *READERS, suite="bookworm", packages=kept)


def read(readers: Path, name: str, *words: str) -> str:
    """What one of the programs says; it must succeed."""
    libraries = sorted({str(path.parent) for path in readers.glob("**/*.so.*")})
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(libraries), "HOME": str(readers / "home")}
    command = [str(readers / "usr" / "bin" / name), *words]
    done = subprocess.run(command, env=environment, cwd=readers, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
def test_skopeo_finds_the_same_image_in_either_form_of_an_archive(bundle: Path, readers: Path, transport: str) -> None:
    for image in images(bundle):
        manifest = json.loads(read(readers, "skopeo", "inspect", "--raw", f"{transport}:{bundle / image['file']}"))
        assert manifest["config"]["digest"] == image["config_digest"]
        assert len(manifest["layers"]) == len(image["diff_ids"])


def test_the_report_is_made_of_the_bundles_own_documents_and_of_nothing_else(bundle: Path, demo: Project) -> None:
    report = (bundle / "report.html").read_text()
    assert render_report(read_report_documents(bundle)) == report
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


def test_umoci_unpacks_an_archive_as_the_image_layout_that_it_is(bundle: Path, readers: Path, tmp_path: Path) -> None:
    image = next(each for each in images(bundle) if each["name"] == "web")
    subprocess.run(["tar", "--extract", "--file", bundle / image["file"], "--directory", tmp_path], check=True)
    tag = image["references"][0].rpartition(":")[2]
    assert tag in read(readers, "umoci", "ls", "--layout", str(tmp_path)).split()
    stat = json.loads(read(readers, "umoci", "stat", "--json", "--image", f"{tmp_path}:{tag}"))
    layers = [each["layer"] for each in stat["history"] if each.get("layer")]
    assert [(each["digest"], each["size"]) for each in layers] == [
        (each["digest"], each["size"]) for each in image["layers"]
    ]
    read(readers, "umoci", "unpack", "--image", f"{tmp_path}:{tag}", str(tmp_path / "unpacked"))
    assert (tmp_path / "unpacked/rootfs/app/guestbook/__main__.py").read_text().startswith('"""')


@pytest.fixture
def podman(readers: Path) -> Iterator[Callable[..., str]]:
    """What podman says, with a store of its own; it wants short paths."""
    policy = readers / "home/.config/containers/policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    programs = readers / "usr" / "bin"
    with tempfile.TemporaryDirectory(prefix="pod") as place:
        words = (
            *("--root", f"{place}/root", "--runroot", f"{place}/run", "--tmpdir", f"{place}/tmp"),
            *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
            *("--conmon", str(programs / "conmon"), "--runtime", str(programs / "crun")),
        )
        yield partial(read, readers, "podman", *words)


def test_podman_loads_an_archive_under_its_names_and_its_id(bundle: Path, podman: Callable[..., str]) -> None:
    (image, _) = images(bundle)
    loaded = podman("load", "--input", str(bundle / image["file"]))
    (name,) = re.findall(r"(?m)^Loaded image: (\S+)$", loaded)
    # it reads an archive as one or the other of its forms, which name images with and without their registry
    assert name in {f"{registry}/{image['references'][0]}" for registry in ("localhost", "docker.io")}
    (found,) = json.loads(podman("image", "inspect", name))
    assert f"sha256:{found['Id']}" == image["config_digest"]
    assert found["RootFS"]["Layers"] == image["diff_ids"]


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
    for name, service in load_config(demo.root).config.services.items():
        host = proxima.inspect(name)["HostConfig"]
        use = tested[name]
        # in the lab, a volume is memory of its service
        volumes = sum(volume["size"] for volume in documented[name]["volumes"])
        assert host["Memory"] == host["MemorySwap"] == use["memory_limit"] - volumes
        assert host["NanoCpus"] == use["cpu_limit"] * 1e9
        assert host["PidsLimit"] == use["pids_limit"]
        wanted = build_hardening_options(service)
        for key in ("ReadonlyRootfs", "CapDrop", "SecurityOpt", "Init", "IpcMode"):
            assert host[key] == wanted[key], f"{name}: {key}"
        assert (host["CapAdd"] or []) == wanted["CapAdd"]
        assert sorted(host["Ulimits"], key=str) == sorted(wanted["Ulimits"], key=str)
        assert not host["Privileged"]


def test_a_volume_is_backed_up_as_the_page_says(proxima: Proxima) -> None:
    (command,) = re.findall(
        r"`docker (compose cp web:\S+ -) > web-data\.tar`", (proxima.folder / "PROMOTION.md").read_text()
    )
    done = subprocess.run(
        ["docker", *command.split()], cwd=proxima.folder / "deploy", env={**os.environ, **proxima.box.environment()},
        capture_output=True, check=True,
    )  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert any(name.startswith("data/") for name in archive.getnames())


def test_the_secret_is_in_place_for_the_service_alone(proxima: Proxima) -> None:
    read = "import os; f = '/run/secrets/session_key'; print(open(f).read(), oct(os.stat(f).st_mode & 0o777))"
    assert proxima.docker("compose", "exec", "-T", "web", "python3", "-c", read) == f"{SECRET} 0o400\n"
    assert SECRET not in json.dumps(proxima.inspect("web"))
