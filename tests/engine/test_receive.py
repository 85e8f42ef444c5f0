"""Receiving on clean nodes, with dash and coreutils or with busybox, and on both image stores."""

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
from lyra_tasks.digests import sha256_digest
from lyra_tasks.engine import sandbox
from lyra_tasks.images import oci
from tests.conftest import Outcome, Project
from tests.engine import registries
from tests.thorough import keep

ADA = "ada@example.org"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
TOOLS = ("cat", "df", "dirname", "head", "realpath", "sha256sum", "sort", "tail", "tar")
SIGN = f'\n[promotion]\nsign = {{ key = "../signing-key", identity = "{ADA}" }}\n'


@dataclass(frozen=True)
class Node:
    """A production node: an engine, and a shell with a few programs."""

    box: sandbox.Sandbox
    store: str
    shell: tuple[str, ...]
    tools: Path
    place: Path

    def receive(self, bundle: Path, *options: str, **more: str) -> Outcome:
        """Run the bundle's script from another directory."""
        environment = {"PATH": str(self.tools), "HOME": str(self.place), "DOCKER_HOST": f"unix://{self.box.socket}"}
        result = subprocess.run(
            [*self.shell, os.path.relpath(bundle / layout.RECEIVE_SCRIPT, self.place), *options],
            cwd=self.place,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Outcome(result.returncode, result.stdout, result.stderr)

    def docker(self, *arguments: str) -> str:
        """Run docker with the node's engine."""
        command = [str(self.box.docker), *arguments]
        environment = os.environ | self.box.environment()
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def tags(self) -> list[str]:
        """Return all image references."""
        return sorted(self.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split())

    def copy(self, bundle: Path) -> Path:
        """Copy a bundle for one test, to a path with spaces."""
        copy = self.place / "copied here" / f"{bundle.name} copy"
        shutil.rmtree(copy.parent, ignore_errors=True)
        return shutil.copytree(bundle, copy)


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Create the project that promotes, with one check."""
    project = make_tiny()
    config = project.root / ".lyra.toml"
    head, mark, checks = config.read_text().partition("[[tests]]")
    config.write_text(head + mark + checks.partition(mark)[0])
    yield project
    project.clean()


@pytest.fixture(scope="module")
def bundles(project: Project) -> list[Path]:
    """Create two signed releases; the second one has floating tags."""
    key = project.root.parent / "signing-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(SIGN)
    bundles: list[Path] = []
    for version in ("1.9.0", "1.10.0"):
        (project.root / "app/www/index.html").write_text(f"It is tiny. {version}\n")
        project.commit(version)
        project.git("tag", f"v{version}")
        result = project.lyra("build", "test", "promote")
        assert result.code == 0, result.text
        bundles += [bundle for bundle in project.bundles() if bundle not in bundles]
    assert [bundle.name for bundle in bundles] == ["1.9.0", "1.10.0"]
    signers = project.root.parent / "signers"
    signers.write_text(f"{ADA} {key.with_suffix('.pub').read_text()}")
    return bundles


@pytest.fixture(scope="module")
def signers(bundles: list[Path]) -> str:
    return str(bundles[0].parents[3] / "signers")


@pytest.fixture(scope="module", params=keep(1, [("classic", "bookworm", "dash"), ("containerd", "trixie", "busybox")]))
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
        command = (str(busybox / "busybox"), "sh") if shell == "busybox" else (str(shutil.which("dash")),)
        yield Node(box, store, command, tools, place)
    finally:
        sandbox.shut_down_sandbox(box.state, purge=True)


@pytest.fixture
def node(engine_of_node: Node) -> Iterator[Node]:
    """Return the node with an empty engine, and check that the test leaves no container."""
    yield engine_of_node
    containers = engine_of_node.docker("ps", "--all", "--quiet").split()
    for image in set(engine_of_node.docker("image", "ls", "--all", "--quiet").split()):
        engine_of_node.docker("image", "rm", "--force", image)
    assert containers == []


def image_of(bundle: Path) -> dict[str, Any]:
    (image,) = json.loads((bundle / layout.MANIFEST_FILE).read_text())["images"]
    assert isinstance(image, dict)
    return image


def archive_of(bundle: Path) -> str:
    """Return the name of the only archive."""
    (archive,) = json.loads((bundle / layout.MANIFEST_FILE).read_text())["archives"]
    return str(archive["file"])


def refused(outcome: Outcome, code: int, kind: str, *texts: str) -> None:
    assert outcome.code == code, outcome.text
    assert outcome.err.startswith(f"receive.sh: {kind}: "), outcome.err
    for text in texts:
        assert text in outcome.err, outcome.err


def test_receive_loads_and_verifies_images_once_and_lists_missing_settings(node: Node, bundles: list[Path]) -> None:
    bundle = node.copy(bundles[1])
    shutil.copy(bundle / layout.ENV_EXAMPLE_FILE, bundle / "deploy/.env")
    refused(node.receive(bundle), 6, "corrupt", "\n  deploy/.env: extra")
    (bundle / "deploy/.env").unlink()
    first = node.receive(bundle)
    assert first.code == 0, first.text
    assert first.err == ""
    assert "tiny/web:1.10.0 is loaded and verified" in first.out
    assert f"Next, in {bundle}/deploy:" in first.out
    assert "    TOKEN: opens the door\n" in first.out
    assert "    WEB_KEY_FILE: path of a file that user 65534:65534 can read: turns the lock\n" in first.out
    assert "NAME:" not in first.out, "it has a default"
    assert node.tags() == ["tiny/web:1", "tiny/web:1.10", "tiny/web:1.10.0", "tiny/web:latest"]
    digest = "manifest_digest" if node.store == "containerd" else "config_digest"
    assert node.docker("image", "inspect", "--format", "{{.Id}}", "tiny/web:1.10.0").strip() == image_of(bundle)[digest]
    shutil.copy(bundle / layout.ENV_EXAMPLE_FILE, bundle / "deploy/.env")
    again = node.receive(bundle)
    assert again.code == 0, "the operator has followed the next steps of the script"
    assert "Ignoring your deploy/.env" in again.out
    (bundle / "deploy/.env").unlink()
    assert "tiny/web:1.10.0 is already loaded" in again.out
    assert "Loading" not in again.out
    (node.place / ".docker").mkdir()
    (node.place / ".docker/config.json").write_text("{")
    node.docker("image", "rm", "--force", image_of(bundle)[digest])
    hindered = node.receive(bundle, DOCKER_CONTENT_TRUST="1", DOCKER_DEFAULT_PLATFORM="linux/arm64")
    shutil.rmtree(node.place / ".docker")
    assert hindered.code == 0, f"warnings of docker and its environment variables have no effect: {hindered.text}"


def test_receive_verifies_signature(node: Node, bundles: list[Path], signers: str) -> None:
    bundle = node.copy(bundles[0])
    trust = ("--allowed-signers", os.path.relpath(signers, node.place), "--signer")
    assert f"Signed by {ADA}\n" in node.receive(bundle, *trust, ADA).out
    refused(node.receive(bundle, *trust, "eve"), 60, "refused", "not signed by eve")
    (node.place / "revoked").write_text(Path(signers).read_text().partition(" ")[2])
    refused(node.receive(bundle, *trust, ADA, "--revoked", "revoked"), 60, "refused", "revokes the key of")
    shutil.copy(signers, bundle / "signers")
    inside = ("--allowed-signers", str(bundle / "signers"), "--signer", ADA)
    refused(node.receive(bundle, *inside), 60, "refused", "came with the bundle")
    (bundle / "signers").unlink()
    (bundle / layout.SIGNATURE_FILE).unlink()
    refused(node.receive(bundle, *trust, ADA), 60, "refused", "not signed")
    assert node.receive(bundle).code == 0


def test_receive_never_loads_damaged_archive(node: Node, bundles: list[Path]) -> None:
    bundle = node.copy(bundles[0])
    archive = bundle / archive_of(bundle)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    refused(node.receive(bundle), 6, "corrupt", f"\n  {archive_of(bundle)}: changed")
    assert node.tags() == []


def test_newer_version_takes_floating_tags_and_older_is_refused(node: Node, bundles: list[Path]) -> None:
    older, newer = bundles
    assert node.receive(older).code == 0
    assert node.receive(newer).code == 0
    same = {node.docker("image", "inspect", "--format", "{{.Id}}", f"tiny/web:{tag}") for tag in ("latest", "1.10.0")}
    assert len(same) == 1
    assert "tiny/web:1.9.0" in node.tags()
    node.docker("image", "rm", "tiny/web:1.9.0")
    refused(node.receive(older), 60, "refused", "tiny/web:1.10.0 is loaded and newer than 1.9.0", "--allow-older")
    assert "tiny/web:1.9.0" not in node.tags()
    assert node.receive(older, "--allow-older").code == 0
    assert "tiny/web:1.9.0" in node.tags()


def test_older_version_takes_floating_tags_back_without_its_archive(
    node: Node, project: Project, bundles: list[Path]
) -> None:
    """Roll back to a version that came as a pack, whose own baseline made room since then."""
    references, older_references = (image_of(bundles[number])["references"] for number in (1, 0))
    assert {"tiny/web:1", "tiny/web:latest"} <= set(references)
    assert node.receive(bundles[0]).code == 0
    pack = create_pack(project, node, "1.10.0", "--since", "1.9.0")
    assert node.receive(pack).code == 0
    node.docker("image", "rm", *(name for name in older_references if name not in references))
    node.docker("import", str(pack / "documents.tar.gz"), "tiny/web:2.0.0")
    for tag in ("1", "latest"):
        node.docker("tag", "tiny/web:2.0.0", f"tiny/web:{tag}")
    refused(node.receive(pack), 60, "refused", "tiny/web:2.0.0 is loaded and newer than 1.10.0")
    result = node.receive(pack, "--allow-older")
    assert result.code == 0, result.text
    assert "tiny/web:1.10.0 is already loaded" in result.out and "Loading" not in result.out
    assert "tiny/web:1.10 tiny/web:1 tiny/web:latest refer to tiny/web:1.10.0 again\n" in result.out
    assert len({node.docker("image", "inspect", "--format", "{{.Id}}", name) for name in references}) == 1
    assert "again" not in node.receive(pack, "--allow-older").out


def test_receive_refuses_version_with_other_content(node: Node, bundles: list[Path]) -> None:
    assert node.receive(bundles[1]).code == 0
    node.docker("tag", "tiny/web:1.10.0", "tiny/web:1.9.0")
    refused(
        node.receive(bundles[0], "--allow-older"), 60, "refused", "tiny/web:1.9.0 is loaded as sha256:", "promoted was"
    )


def test_image_of_an_index_from_a_registry_is_the_same(
    project: Project, node: Node, bundles: list[Path], cache: Path, tmp_path: Path
) -> None:
    """On a containerd store, the ID of such an image is the digest of the index."""
    image = image_of(bundles[0])
    assert node.receive(bundles[0]).code == 0
    with registries.serving(tmp_path / "registry", cache, box=node.box) as host:
        node.docker("tag", "tiny/web:1.9.0", f"{host}/web:1.9.0")
        node.docker("push", f"{host}/web:1.9.0")
        place = ["nsenter", f"--net=/proc/{node.box.pid}/ns/net", "--", "curl", "--fail", "--silent", "--show-error"]
        manifest = subprocess.run(
            [*place, "--header", f"Accept: {oci.MANIFEST_MEDIA_TYPE}, {DOCKER_MANIFEST}", f"http://{host}/v2/web/manifests/1.9.0"],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        entry = {
            "mediaType": json.loads(manifest)["mediaType"], "size": len(manifest), "digest": sha256_digest(manifest),
            "platform": {"os": "linux", "architecture": "amd64"},
        }  # fmt: skip
        index = {"schemaVersion": 2, "mediaType": oci.INDEX_MEDIA_TYPE, "manifests": [entry]}
        header = ["--header", f"Content-Type: {oci.INDEX_MEDIA_TYPE}", "--data", json.dumps(index)]
        subprocess.run([*place, *header, "--request", "PUT", f"http://{host}/v2/web/manifests/index"], check=True)
        node.docker("image", "rm", "--force", "tiny/web:1.9.0", f"{host}/web:1.9.0")
        node.docker("pull", f"{host}/web:index")
        node.docker("tag", f"{host}/web:index", "tiny/web:1.9.0")
    identity = node.docker("image", "inspect", "--format", "{{.Id}}", "tiny/web:1.9.0").strip()
    assert (identity == image["config_digest"]) == (node.store == "classic")
    result = node.receive(bundles[0])
    assert result.code == 0, result.text
    assert "tiny/web:1.9.0 is already loaded" in result.out
    pack = create_pack(project, node, "1.10.0", "--since", "1.9.0")
    assert node.receive(pack).code == 0, "its layers are those that the pack leaves out"


def test_receive_reports_missing_layer(node: Node, bundles: list[Path]) -> None:
    bundle = node.copy(bundles[0])
    archive = bundle / archive_of(bundle)
    blob = f"blobs/sha256/{image_of(bundle)['layers'][0]['digest'].removeprefix('sha256:')}"
    with tarfile.open(archive) as source, tarfile.open(bundle / "target.tar", "w") as target:
        for member in source:
            if member.name != blob:
                target.addfile(member, source.extractfile(member))
    (bundle / "target.tar").rename(archive)
    write_checksums(bundle)
    refused(node.receive(bundle), 3, "engine", "cannot load images/")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("min_engine=20.10\n", "min_engine=99.1\n", "is too old; the bundle needs 99.1"),
        ("platforms=linux/amd64\n", "platforms=linux/arm64/v8\n", "but the images are for linux/arm64/v8"),
    ],
)
def test_receive_refuses_unsupported_engine(node: Node, bundles: list[Path], old: str, new: str, message: str) -> None:
    bundle = node.copy(bundles[0])
    rewrite(bundle, old, new)
    refused(node.receive(bundle), 3, "engine", message)
    assert node.tags() == []


def test_receive_reports_unreachable_engine(node: Node, bundles: list[Path]) -> None:
    refused(node.receive(bundles[0], DOCKER_HOST="unix:///nowhere/docker.sock"), 3, "engine", "not responding")


def test_receive_refuses_small_disk(node: Node, bundles: list[Path]) -> None:
    bundle = node.copy(bundles[0])
    line = f"linux/amd64 {archive_of(bundle)} "
    size = (bundle / archive_of(bundle)).stat().st_size
    rewrite(bundle, f"{line}{size}\n", f"{line}{10**15}\n")
    refused(inside(node, bundle), 30, "no-space", "KiB free", str(10**15 // 1024)[:6])
    assert node.tags() == []
    rewrite(bundle, str(10**15), "1")
    result = inside(node, bundle)
    assert result.code == 0, result.text
    assert "Free space not checked" not in result.out


def create_pack(project: Project, node: Node, version: str, *options: str) -> Path:
    """Create a pack in a directory for one test."""
    target = node.place / "medium"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    result = project.lyra("bundle.pack", version, "--to", str(target), "--json", *options)
    assert result.code == 0, result.text
    (pack,) = target.iterdir()
    assert json.loads(result.out)["size"] == sum(path.stat().st_size for path in pack.rglob("*") if path.is_file())
    return pack


def test_pack_is_received_where_baseline_is_loaded(
    node: Node, project: Project, bundles: list[Path], signers: str
) -> None:
    pack = create_pack(project, node, "1.10.0", "--since", "1.9.0")
    archive = archive_of(bundles[1])
    assert (pack / archive).stat().st_size < (bundles[1] / archive).stat().st_size / 10
    trust = ("--allowed-signers", signers, "--signer", ADA)
    refused(node.receive(pack, *trust), 31, "incomplete", "layers of tiny/web:1.9.0", "Nothing was loaded", "1.10.0")
    assert node.tags() == []
    node.docker("import", str(pack / "documents.tar.gz"), "tiny/web:1.8.0")
    refused(node.receive(pack), 31, "incomplete", "layers of tiny/web:1.9.0", "since a loaded version: 1.8.0")
    assert node.tags() == ["tiny/web:1.8.0"]
    node.docker("image", "rm", "tiny/web:1.8.0")
    assert node.receive(bundles[0]).code == 0
    result = node.receive(pack, *trust)
    assert result.code == 0, result.text
    assert "tiny/web:1.10.0 is loaded and verified" in result.out
    assert "tiny 1.10.0 since 1.9.0" in result.out
    assert node.tags()[-1] == "tiny/web:latest"
    page = node.docker("run", "--rm", "--entrypoint", "/bin/cat", "tiny/web:1.10.0", "/www/index.html")
    assert page == "It is tiny. 1.10.0\n"
    assert "is already loaded" in node.receive(pack).out


def test_damaged_part_is_named_and_replaced_alone(node: Node, project: Project, bundles: list[Path]) -> None:
    pack = create_pack(project, node, "1.9.0", "--split", "64k")
    parts = sorted((pack / layout.IMAGES_DIRECTORY).iterdir())
    assert len(parts) > 3
    assert max(path.stat().st_size for path in pack.rglob("*")) == 64 * 1024
    assert b"".join(part.read_bytes() for part in parts) == (bundles[0] / archive_of(bundles[0])).read_bytes()
    content = parts[2].read_bytes()
    parts[2].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(node.receive(pack), 6, "corrupt", f"Copy these again, and only these:\n  images/{parts[2].name}: changed\n")
    damaged = project.lyra("verify", str(pack))
    assert (damaged.code, damaged.err.count("images/")) == (6, 1), damaged.text
    assert f"images/{parts[2].name}: changed" in damaged.err
    assert project.lyra("verify", str(parts[2])).code == 6
    assert project.lyra("verify", str(parts[1])).code == 0
    parts[2].write_bytes(content)
    assert project.lyra("verify", str(parts[2])).code == 0
    result = node.receive(pack)
    assert result.code == 0, result.text
    assert "tiny/web:1.9.0 is loaded and verified" in result.out
    parts[-1].unlink()
    refused(node.receive(pack), 6, "corrupt", f"images/{parts[-1].name}: missing")


def test_pack_errors_are_reported_and_leave_nothing(project: Project, bundles: list[Path], tmp_path: Path) -> None:
    command = ("bundle.pack", "1.9.0", "--to", str(tmp_path))
    dry_run = project.lyra(*command, "--since", "1.10.0", "--dry-run", "--json")
    assert dry_run.code == 0, dry_run.text
    assert json.loads(dry_run.out)["required_bytes"] < json.loads(dry_run.out)["free_bytes"]
    large = subprocess.run(
        ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *project.command(*command)],
        cwd=project.root, env=project.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert large.returncode == 3, large.stderr
    assert "file too large for this file system" in large.stderr
    assert "--split" in large.stderr
    for arguments, code, message in (
        ((*command[:2], "--to", "/nowhere"), 2, "directory not found"),
        ((*command, "--split", "1k"), 2, "less than 64k"),
        ((*command, "--since", "0.1.0"), 2, "Available: "),
        ((*command, "--since", "1.9.0"), 2, "same version"),
    ):
        result = project.lyra(*arguments)
        assert (result.code, message in result.err) == (code, True), result.text
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tiny-1.9.0").mkdir()
    assert project.lyra(*command).code == 6, "the directory exists and is not a pack"
    (tmp_path / "tiny-1.9.0").rmdir()
    for options in (("--split", "64k"), ()):  # The second replaces the first with all its parts.
        assert project.lyra(*command, *options).code == 0
    assert [path.name for path in (tmp_path / "tiny-1.9.0" / layout.IMAGES_DIRECTORY).iterdir()] == [
        Path(archive_of(bundles[0])).name
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-1.9.0"]


def inside(node: Node, bundle: Path) -> Outcome:
    """Run the script in the namespaces of the engine."""
    enter = ["nsenter", "--target", str(node.box.pid), "--mount", "--pid", "--", *node.shell]
    environment = {"PATH": f"/run/engine/cli:{node.tools}:/usr/bin", "DOCKER_HOST": "unix:///run/lyra/docker.sock"}
    command = [*enter, str(bundle / layout.RECEIVE_SCRIPT)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return Outcome(result.returncode, result.stdout, result.stderr)


def rewrite(bundle: Path, old: str, new: str) -> None:
    """Change the script of a bundle together with its checksum."""
    text = (bundle / layout.RECEIVE_SCRIPT).read_text()
    assert text.count(old) == 1
    (bundle / layout.RECEIVE_SCRIPT).write_text(text.replace(old, new))
    write_checksums(bundle)
