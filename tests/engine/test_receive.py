"""Receiving on nodes that have seen no build: with dash and coreutils, with busybox alone, on both image stores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import write_checksums
from lyra_tasks.engine import sandbox
from tests.conftest import Outcome, Project

ADA = "ada@example.org"
TOOLS = ("cat", "df", "dirname", "head", "realpath", "sha256sum", "sort", "tail")
SIGN = f'\n[promotion]\nsign = {{ key = "../signing-key", identity = "{ADA}" }}\n'


@dataclass(frozen=True)
class Node:
    """A production node: an engine, and a shell with the few programs that a node has."""

    box: sandbox.Sandbox
    store: str
    shell: tuple[str, ...]
    tools: Path
    place: Path

    def receive(self, bundle: Path, *options: str, **more: str) -> Outcome:
        """Run the bundle's script from a folder of its own."""
        environment = {"PATH": str(self.tools), "HOME": str(self.place), "DOCKER_HOST": f"unix://{self.box.socket}"}
        done = subprocess.run(
            [*self.shell, os.path.relpath(bundle / layout.RECEIVE_SCRIPT, self.place), *options],
            cwd=self.place,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def docker(self, *words: str) -> str:
        """Run docker against the node's engine."""
        command = [str(self.box.docker), *words]
        environment = os.environ | self.box.environment()
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def tags(self) -> list[str]:
        """What the engine holds."""
        return sorted(self.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split())

    def carried(self, bundle: Path) -> Path:
        """A copy of a bundle, in a path with spaces, that belongs to one test."""
        copy = self.place / "carried here" / f"{bundle.name} copy"
        shutil.rmtree(copy.parent, ignore_errors=True)
        return shutil.copytree(bundle, copy)


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """The project that promotes."""
    made = make_tiny()
    yield made
    made.clean()


@pytest.fixture(scope="module")
def bundles(project: Project) -> list[Path]:
    """Two releases and a later snapshot, all signed; the second has two names that move."""
    key = project.root.parent / "signing-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(SIGN)
    found = []
    for version in ("1.9.0", "1.10.0", "snapshot"):
        (project.root / "app/www/index.html").write_text(f"It is tiny. {version}\n")
        project.commit(version)
        if version != "snapshot":
            project.git("tag", f"v{version}")
        result = project.lyra("build", "test", "promote")
        assert result.code == 0, result.text
        found += [each for each in project.bundles() if each not in found]
    assert [each.name.partition("+")[0] for each in found] == ["1.9.0", "1.10.0", "1.10.1-dev.1"]
    signers = project.root.parent / "signers"
    signers.write_text(f"{ADA} {key.with_suffix('.pub').read_text()}")
    return found


@pytest.fixture(scope="module")
def signers(bundles: list[Path]) -> str:
    return str(bundles[0].parents[3] / "signers")


@pytest.fixture(scope="module", params=[("containerd", "trixie", "busybox"), ("classic", "bookworm", "dash")])
def engine_of_node(
    request: pytest.FixtureRequest, cache: Path, busybox: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    store, suite, shell = request.param
    place = tmp_path_factory.mktemp(f"node {store}")
    box = sandbox.launch_sandbox(tmp_path_factory.mktemp(store), cache=cache, suite=suite)
    try:
        tools = place / "tools"
        tools.mkdir()
        for name in TOOLS:
            (tools / name).symlink_to(busybox / "busybox" if shell == "busybox" else str(shutil.which(name)))
        (tools / "docker").symlink_to(box.docker)
        (tools / "ssh-keygen").symlink_to(str(shutil.which("ssh-keygen")))
        words = (str(busybox / "busybox"), "sh") if shell == "busybox" else (str(shutil.which("dash")),)
        yield Node(box, store, words, tools, place)
    finally:
        sandbox.shut_down_sandbox(box.state, purge=True)


@pytest.fixture
def node(engine_of_node: Node) -> Iterator[Node]:
    """The node with an empty engine; no test leaves a container behind."""
    yield engine_of_node
    left = engine_of_node.docker("ps", "--all", "--quiet").split()
    for image in set(engine_of_node.docker("image", "ls", "--all", "--quiet").split()):
        engine_of_node.docker("image", "rm", "--force", image)
    assert left == []


def image_of(bundle: Path) -> dict[str, Any]:
    (found,) = json.loads((bundle / layout.MANIFEST_FILE).read_text())["images"]
    assert isinstance(found, dict)
    return found


def refused(outcome: Outcome, code: int, kind: str, *said: str) -> None:
    assert outcome.code == code, outcome.text
    assert outcome.err.startswith(f"receive.sh: {kind}: "), outcome.err
    for each in said:
        assert each in outcome.err, outcome.err


def test_what_was_promoted_is_loaded_and_compared_and_the_second_time_it_is_there(
    node: Node, bundles: list[Path]
) -> None:
    bundle = node.carried(bundles[1])
    shutil.copy(bundle / layout.ENV_EXAMPLE_FILE, bundle / "deploy/.env")
    refused(node.receive(bundle), 6, "corrupt", "\n  deploy/.env: extra")
    (bundle / "deploy/.env").unlink()
    first = node.receive(bundle)
    assert first.code == 0, first.text
    assert first.err == ""
    assert "tiny/web:1.10.0 is loaded, and is what was promoted" in first.out
    assert node.tags() == ["tiny/web:1", "tiny/web:1.10", "tiny/web:1.10.0", "tiny/web:latest"]
    digest = "manifest_digest" if node.store == "containerd" else "config_digest"
    assert node.docker("image", "inspect", "--format", "{{.Id}}", "tiny/web:1.10.0").strip() == image_of(bundle)[digest]
    shutil.copy(bundle / layout.ENV_EXAMPLE_FILE, bundle / "deploy/.env")
    again = node.receive(bundle)
    assert again.code == 0, "what the script itself says to do next is done"
    assert "deploy/.env is taken to be yours" in again.out
    (bundle / "deploy/.env").unlink()
    assert "tiny/web:1.10.0 is there already" in again.out
    assert "loading" not in again.out
    (node.place / ".docker").mkdir()
    (node.place / ".docker/config.json").write_text("{")
    node.docker("image", "rm", "--force", image_of(bundle)[digest])
    hindered = node.receive(bundle, DOCKER_CONTENT_TRUST="1", DOCKER_DEFAULT_PLATFORM="linux/arm64")
    shutil.rmtree(node.place / ".docker")
    assert hindered.code == 0, f"docker warns of its configuration, and is told to ask a registry: {hindered.text}"


def test_what_is_to_be_configured_is_said(node: Node, bundles: list[Path]) -> None:
    bundle = node.carried(bundles[0])
    said = node.receive(bundle).out
    assert f"Next, in {bundle}/deploy:" in said
    assert "    TOKEN: opens the door\n" in said
    assert "    WEB_KEY_FILE: path of a file, readable by user 65534:65534: turns the lock\n" in said
    assert "NAME:" not in said, "it has a default"


def test_a_signature_is_asked_for(node: Node, bundles: list[Path], signers: str) -> None:
    bundle = node.carried(bundles[0])
    asked = ("--allowed-signers", os.path.relpath(signers, node.place), "--signer")
    assert f"signed by {ADA}\n" in node.receive(bundle, *asked, ADA).out
    refused(node.receive(bundle, *asked, "eve"), 60, "refused", "not signed by eve")
    (node.place / "revoked").write_text(Path(signers).read_text().partition(" ")[2])
    refused(node.receive(bundle, *asked, ADA, "--revoked", "revoked"), 60, "refused", "revokes the key of")
    shutil.copy(signers, bundle / "signers")
    inside = ("--allowed-signers", str(bundle / "signers"), "--signer", ADA)
    refused(node.receive(bundle, *inside), 60, "refused", "came with the bundle")
    (bundle / "signers").unlink()
    (bundle / layout.SIGNATURE_FILE).unlink()
    refused(node.receive(bundle, *asked, ADA), 60, "refused", "not signed")
    assert node.receive(bundle).code == 0


def test_a_damaged_archive_is_never_given_to_the_engine(node: Node, bundles: list[Path]) -> None:
    bundle = node.carried(bundles[0])
    archive = bundle / image_of(bundle)["file"]
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    refused(node.receive(bundle), 6, "corrupt", f"\n  {image_of(bundle)['file']}: changed")
    assert node.tags() == []


def test_an_older_version_is_refused_unless_that_is_wanted(node: Node, bundles: list[Path]) -> None:
    older, newer, snapshot = bundles
    assert node.receive(newer).code == 0
    refused(node.receive(older), 60, "refused", "tiny/web:1.10.0 is loaded, and newer than 1.9.0", "--allow-older")
    assert "tiny/web:1.9.0" not in node.tags()
    assert node.receive(older, "--allow-older").code == 0
    assert "tiny/web:1.9.0" in node.tags()
    assert node.receive(snapshot).code == 0, "what comes after a release is newer"
    refused(node.receive(newer), 60, "refused", "newer than 1.10.0")


def test_a_newer_version_takes_the_names_that_move(node: Node, bundles: list[Path]) -> None:
    assert node.receive(bundles[0]).code == 0
    assert node.receive(bundles[1]).code == 0
    same = {node.docker("image", "inspect", "--format", "{{.Id}}", f"tiny/web:{tag}") for tag in ("latest", "1.10.0")}
    assert len(same) == 1
    assert "tiny/web:1.9.0" in node.tags()


def test_a_version_with_other_content_is_refused(node: Node, bundles: list[Path]) -> None:
    assert node.receive(bundles[1]).code == 0
    node.docker("tag", "tiny/web:1.10.0", "tiny/web:1.9.0")
    refused(node.receive(bundles[0], "--allow-older"), 60, "refused", "tiny/web:1.9.0 is sha256:", "promoted was")


def test_an_image_that_lacks_a_layer_is_no_success(node: Node, bundles: list[Path]) -> None:
    bundle = node.carried(bundles[0])
    archive = bundle / image_of(bundle)["file"]
    blob = f"blobs/sha256/{image_of(bundle)['layers'][0]['digest'].removeprefix('sha256:')}"
    with tarfile.open(archive) as whole, tarfile.open(bundle / "less.tar", "w") as less:
        for member in whole:
            if member.name != blob:
                less.addfile(member, whole.extractfile(member))
    (bundle / "less.tar").rename(archive)
    write_checksums(bundle)
    refused(node.receive(bundle), 3, "engine", "cannot be loaded")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("min_engine=20.10\n", "min_engine=99.1\n", "is too old; the bundle was made for 99.1"),
        ("platforms=linux/amd64\n", "platforms=linux/arm64/v8\n", "and the images are for linux/arm64/v8"),
    ],
)
def test_an_engine_that_does_not_fit_is_told_before_anything_is_loaded(
    node: Node, bundles: list[Path], old: str, new: str, said: str
) -> None:
    bundle = node.carried(bundles[0])
    rewrite(bundle, old, new)
    refused(node.receive(bundle), 3, "engine", said)
    assert node.tags() == []


def test_an_engine_that_does_not_answer_is_told(node: Node, bundles: list[Path]) -> None:
    refused(node.receive(bundles[0], DOCKER_HOST="unix:///nowhere/docker.sock"), 3, "engine", "does not answer")


def test_a_disk_that_is_too_small_is_told_before_anything_is_loaded(node: Node, bundles: list[Path]) -> None:
    bundle = node.carried(bundles[0])
    file = image_of(bundle)["file"]
    (line,) = [line for line in (bundle / layout.RECEIVE_SCRIPT).read_text().splitlines() if line.startswith(file)]
    rewrite(bundle, line, " ".join([file, "linux/amd64", str(10**15), *line.split()[3:]]))
    refused(inside(node, bundle), 30, "no-space", "kB free", str(10**15 // 1024))
    assert node.tags() == []
    rewrite(bundle, str(10**15), "1")
    result = inside(node, bundle)
    assert result.code == 0, result.text
    assert "free space is not checked" not in result.out


def packed(project: Project, node: Node, version: str, *options: str) -> Path:
    """A pack of a version, made into a folder of one test."""
    target = node.place / "medium"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    result = project.lyra("bundle.pack", version, "--to", str(target), "--json", *options)
    assert result.code == 0, result.text
    (folder,) = target.iterdir()
    assert json.loads(result.out)["size"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return folder


def test_what_a_version_adds_is_received_where_the_older_one_is(
    node: Node, project: Project, bundles: list[Path], signers: str
) -> None:
    pack = packed(project, node, "1.10.0", "--since", "1.9.0")
    archive = image_of(bundles[1])["file"]
    assert (pack / archive).stat().st_size < (bundles[1] / archive).stat().st_size / 10
    asked = ("--allowed-signers", signers, "--signer", ADA)
    refused(node.receive(pack, *asked), 31, "incomplete", "layers of tiny/web:1.9.0", "Nothing was loaded", "1.10.0")
    assert node.tags() == []
    assert node.receive(bundles[0]).code == 0
    result = node.receive(pack, *asked)
    assert result.code == 0, result.text
    assert "tiny/web:1.10.0 is loaded, and is what was promoted" in result.out
    assert "what it adds to 1.9.0" in result.out
    assert node.tags()[-1] == "tiny/web:latest"
    page = node.docker("run", "--rm", "--entrypoint", "/bin/cat", "tiny/web:1.10.0", "/www/index.html")
    assert page == "It is tiny. 1.10.0\n"
    assert "is there already" in node.receive(pack).out


def test_a_version_that_is_here_is_named_where_another_one_would_be_needed(
    node: Node, project: Project, bundles: list[Path]
) -> None:
    pack = packed(project, node, bundles[2].name, "--since", "1.10.0")
    assert node.receive(bundles[0]).code == 0
    refused(node.receive(pack), 31, "incomplete", "layers of tiny/web:1.10.0", "a version that is here: 1.9.0")
    assert [tag for tag in node.tags() if "dev" in tag] == []


def test_a_bad_part_is_named_and_brought_again_alone(node: Node, project: Project, bundles: list[Path]) -> None:
    pack = packed(project, node, "1.9.0", "--split", "64k")
    parts = sorted((pack / layout.IMAGES_DIRECTORY).iterdir())
    assert len(parts) > 3
    assert max(path.stat().st_size for path in pack.rglob("*")) == 64 * 1024
    assert b"".join(part.read_bytes() for part in parts) == (bundles[0] / image_of(bundles[0])["file"]).read_bytes()
    whole = parts[2].read_bytes()
    parts[2].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(node.receive(pack), 6, "corrupt", f"only these\n  images/{parts[2].name}: changed\n")
    told = project.lyra("verify", str(pack))
    assert (told.code, told.err.count("images/")) == (6, 1), told.text
    assert f"images/{parts[2].name}: changed" in told.err
    assert project.lyra("verify", str(parts[2])).code == 6
    assert project.lyra("verify", str(parts[1])).code == 0
    parts[2].write_bytes(whole)
    assert project.lyra("verify", str(parts[2])).code == 0
    result = node.receive(pack)
    assert result.code == 0, result.text
    assert "tiny/web:1.9.0 is loaded, and is what was promoted" in result.out
    parts[-1].unlink()
    refused(node.receive(pack), 6, "corrupt", f"images/{parts[-1].name}: missing")


def test_what_stands_against_a_pack_is_told_and_nothing_is_left(
    project: Project, bundles: list[Path], tmp_path: Path
) -> None:
    asked = ("bundle.pack", "1.9.0", "--to", str(tmp_path))
    planned = project.lyra(*asked, "--since", bundles[2].name, "--dry-run", "--json")
    assert planned.code == 0, planned.text
    assert json.loads(planned.out)["needed"] < json.loads(planned.out)["free"]
    large = subprocess.run(
        ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *project.command(*asked)],
        cwd=project.root, env=project.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert large.returncode == 3, large.stderr
    assert "takes no file that large" in large.stderr
    assert "--split" in large.stderr
    for words, code, said in (
        ((*asked[:2], "--to", "/nowhere"), 2, "no such folder"),
        ((*asked, "--split", "1k"), 2, "a part has at least 64k"),
        ((*asked, "--since", "0.1.0"), 2, "there are: "),
        ((*asked, "--since", "1.9.0"), 2, "itself"),
    ):
        result = project.lyra(*words)
        assert (result.code, said in result.err) == (code, True), result.text
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tiny-1.9.0").mkdir()
    assert project.lyra(*asked).code == 6, "something of that name is there, and is no pack"
    (tmp_path / "tiny-1.9.0").rmdir()
    for options in (("--split", "64k"), ()):  # the second replaces the first, parts and all
        assert project.lyra(*asked, *options).code == 0
    assert [path.name for path in (tmp_path / "tiny-1.9.0" / layout.IMAGES_DIRECTORY).iterdir()] == [
        Path(image_of(bundles[0])["file"]).name
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-1.9.0"]


def inside(node: Node, bundle: Path) -> Outcome:
    """Receive where the engine runs."""
    enter = ["nsenter", "--target", str(node.box.pid), "--mount", "--pid", "--", *node.shell]
    environment = {"PATH": f"/run/engine/cli:{node.tools}:/usr/bin", "DOCKER_HOST": "unix:///run/lyra/docker.sock"}
    command = [*enter, str(bundle / layout.RECEIVE_SCRIPT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def rewrite(bundle: Path, old: str, new: str) -> None:
    """Change the script of a bundle as somebody does who may, with its checksum."""
    text = (bundle / layout.RECEIVE_SCRIPT).read_text()
    assert text.count(old) == 1
    (bundle / layout.RECEIVE_SCRIPT).write_text(text.replace(old, new))
    write_checksums(bundle)
