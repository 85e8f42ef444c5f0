"""A project for three platforms: the engine's own, one that its kernel also runs, and one that it does not run."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.debian import mirror
from lyra_tasks.images.oci import INDEX_MEDIA_TYPE
from tests.conftest import PROJECTS, Outcome, Project, repository
from tests.engine.registries import as_ada, get
from tests.faults import no_traceback, refused
from tests.packages import unpacked

OWN, SECOND, FOREIGN = "linux/amd64", "linux/386", "linux/arm64"
PLATFORMS = (OWN, SECOND, FOREIGN)
DEVIATION = """
[[deviations]]
rule = "test.platform"
scope = "images.*@linux/arm64"
reason = "the arm64 node tries it before it goes live"
owner = "ada"
expires = 2999-12-31
"""


# binfmt_misc: the first twenty bytes of a program for arm64 and its interpreter; `F` opens that at once, for all roots
ARM64 = (
    ":NAME:M::"
    r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    ":PROGRAM:F"
)


def with_hyphens(platform: str) -> str:
    return platform.replace("/", "-")


@dataclass(frozen=True)
class Story:
    """The project after two promotions; without a deviation, promotion and release had been `refused`."""

    project: Project
    refused: tuple[Outcome, Outcome]
    bundles: tuple[Path, Path]

    def document(self, name: str) -> Any:
        """Return a JSON file of the second bundle."""
        return json.loads((self.bundles[1] / name).read_bytes())

    def images(self) -> dict[str, dict[str, Any]]:
        """Return the images of the manifest by platform."""
        return {image["platform"]: image for image in self.document(layout.MANIFEST_FILE)["images"]}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, cache: Path, box: sandbox.Sandbox) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("platforms")
    shutil.copytree(PROJECTS / "platforms", directory / "project")
    project = repository(directory / "project", directory, cache, box)
    # Mirrors lag with the security updates of i386, for days; those of `main` change with a point release only.
    # In a cache of its own: apt parses all lists again when its sources change.
    project.environment["XDG_CACHE_HOME"] = str(cache / "tests" / "main-only")
    (directory / "sources.list").write_text(f"deb {mirror.find_mirror()} {mirror.host_codename()} main\n")
    (directory / "apt.conf").write_text(f'Dir::Etc::sourcelist "{directory}/sources.list"; Dir::Etc::sourceparts "/-";')
    succeed(project.lyra("lock.update", APT_CONFIG=str(directory / "apt.conf")))
    (project.root / "app" / "version").write_text("1.0.0")
    project.commit("pin the bases")
    refused_outcomes = project.lyra("build", "test", "promote"), project.lyra("release", "--dry-run")
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(DEVIATION)
    for version in ("1.0.0", "1.1.0"):
        (project.root / "app" / "version").write_text(version)
        project.commit(version)
        project.git("tag", f"v{version}")
        succeed(project.lyra("build", "test", "promote"))
    first, second = project.bundles()
    yield Story(project, refused_outcomes, (first, second))
    project.clean()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[sandbox.Sandbox]:
    """Start an engine of the first platform, as old as Proxima supports, without any builds."""
    node = sandbox.launch_sandbox(tmp_path_factory.mktemp("node"), cache=cache, suite="bookworm")
    yield node
    sandbox.shut_down_sandbox(node.state, purge=True)


@pytest.fixture
def emulated(tmp_path: Path, cache: Path) -> Iterator[None]:
    """Let the kernel run programs for arm64 through QEMU during the test."""
    root = unpacked(cache, "qemu-user-static")
    formats, name = tmp_path / "formats", f"lyra-test-{tmp_path.name}"
    formats.mkdir()
    subprocess.run(["mount", "-t", "binfmt_misc", "none", formats], check=True)
    try:
        program = ARM64.replace("NAME", name).replace("PROGRAM", str(root / "usr/bin/qemu-aarch64-static"))
        (formats / "register").write_text(program)
        yield
    finally:
        if (formats / name).exists():
            (formats / name).write_text("-1")  # remove the format
        subprocess.run(["umount", formats], check=True)


def succeed(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.text
    return outcome


def docker(box: sandbox.Sandbox, *arguments: str) -> str:
    command = [str(box.docker), *arguments]
    return subprocess.run(command, env=box.environment(), check=True, capture_output=True, text=True).stdout


def receive(bundle: Path, box: sandbox.Sandbox) -> Outcome:
    command = ["sh", str(bundle / layout.RECEIVE_SCRIPT)]
    completed = subprocess.run(command, env=box.environment(), capture_output=True, text=True, check=False)
    return Outcome(completed.returncode, completed.stdout, completed.stderr)


def test_build_has_base_target_and_name_per_platform(story: Story, box: sandbox.Sandbox) -> None:
    lock = (story.project.root / ".lyra.lock.toml").read_text()
    assert [f'[bases."tools@{platform}"]' in lock for platform in (SECOND, FOREIGN)] == [True, True]
    images = json.loads(succeed(story.project.lyra("build", "--platform", FOREIGN, "--json")).out)["images"]
    (record,) = images.values()
    assert (list(images), record["platform"], record["new"]) == ([f"web@{FOREIGN}"], FOREIGN, False)
    assert record["reference"] == f"several/web:1.1.0-{with_hyphens(FOREIGN)}"
    inspected = json.loads(docker(box, "image", "inspect", record["image_id"]))
    assert [(image["Os"], image["Architecture"]) for image in inspected] == [tuple(FOREIGN.split("/"))]


def test_services_run_on_every_runnable_platform(story: Story) -> None:
    tests = story.document(layout.TESTS_JSON_FILE)
    assert sorted(check["group"] for check in tests["checks"]) == ["", f"@{with_hyphens(SECOND)}"]
    assert {check["outcome"] for check in tests["checks"]} == {"passed"}
    assert set(tests["set"]["images"]) == {f"web@{platform}" for platform in PLATFORMS}
    assert (story.bundles[1] / layout.LOGS_DIRECTORY / f"@{with_hyphens(SECOND)}" / "web.log").is_file()


def test_untested_platform_needs_deviation_for_promotion(story: Story) -> None:
    message = f"images.web@{FOREIGN}: not tested: the engine runs {OWN} and cannot run {FOREIGN}"
    assert f"warning: {message} (rule test.platform)" in story.refused[0].text
    refused(story.refused[0], 5, message, "[[deviations]]", "run `lyra test promote`")
    refused(story.refused[1], 3, message)
    rules = [result for result in story.document(layout.RULES_FILE)["results"] if result["rule"] == "test.platform"]
    outcomes = {result["scope"]: result["outcome"] for result in rules}
    expected = {OWN: "passed", SECOND: "passed", FOREIGN: "deviation"}
    assert outcomes == {f"images.web@{platform}": outcome for platform, outcome in expected.items()}
    (deviation,) = story.document(layout.DEVIATIONS_FILE)["deviations"]
    assert deviation["rule"] == "test.platform"
    page = (story.bundles[1] / layout.SUMMARY_FILE).read_text()
    assert f"contains exactly the tested images, except that no test ran `web@{FOREIGN}`" in page


def test_bundle_has_archive_and_sbom_per_platform(story: Story) -> None:
    archives = {archive["platform"]: archive["file"] for archive in story.document(layout.MANIFEST_FILE)["archives"]}
    assert archives == {platform: f"images/several-1.1.0-{with_hyphens(platform)}.tar" for platform in PLATFORMS}
    for platform, image in story.images().items():
        assert image["references"][0] == "several/web:1.1.0"
        with tarfile.open(story.bundles[1] / archives[platform]) as archive:
            index = json.load(archive.extractfile("index.json") or pytest.fail("no index"))
        assert {
            f"{manifest['platform']['os']}/{manifest['platform']['architecture']}" for manifest in index["manifests"]
        } == {platform}
        packages = story.document(layout.sbom_file(f"web@{platform}"))
        assert image["manifest_digest"] in packages["metadata"]["component"]["bom-ref"]
    assert set(story.images()) == set(PLATFORMS)
    assert "platform" not in (story.bundles[1] / layout.COMPOSE_FILE).read_text(), "the platform of the node is used"
    images = story.document(layout.PROVENANCE_FILE)["predicate"]["buildDefinition"]["externalParameters"]["images"]
    assert {key: image["platform"] for key, image in images.items()} == {
        f"web@{platform}": platform for platform in PLATFORMS
    }


def test_bundle_commands_cover_all_platforms(story: Story) -> None:
    verified = json.loads(succeed(story.project.lyra("verify", str(story.bundles[1]), "--json")).out)
    assert verified["images"] == {f"web@{key}": image["config_digest"] for key, image in story.images().items()}
    difference = succeed(story.project.lyra("diff", "1.0.0", "1.1.0"))
    assert all(f"web@{platform}" in difference.out for platform in PLATFORMS)
    report = (story.bundles[1] / layout.REPORT_FILE).read_text()
    assert "same size as before" in report
    assert "new image" not in report
    assert "already promoted" in succeed(story.project.lyra("promote")).out


def test_node_loads_only_images_of_its_platform(story: Story, node: sandbox.Sandbox, tmp_path: Path) -> None:
    loaded = succeed(receive(story.bundles[1], node))
    assert f"Loading images/several-1.1.0-{with_hyphens(OWN)}.tar" in loaded.out
    assert loaded.out.count("Loading images/") == 1
    image_ids = set(docker(node, "image", "ls", "--all", "--quiet", "--no-trunc").split())
    assert image_ids == {story.images()[OWN]["config_digest"]}

    medium = tmp_path / "medium"
    medium.mkdir()
    succeed(story.project.lyra("bundle.pack", "1.1.0", "--to", str(medium), "--since", "1.0.0", "--split", "64k"))
    pack = medium / "several-1.1.0-since-1.0.0"
    succeed(story.project.lyra("verify", str(pack)))
    archives = json.loads((pack / layout.PACK_FILE).read_bytes())["archives"]
    assert (len(archives), all(archive["omitted_layers"] for archive in archives)) == (len(PLATFORMS), True)
    docker(node, "image", "rm", "--force", *image_ids)
    assert receive(pack, node).code == 31, "the layers of 1.0.0 are missing"
    succeed(receive(story.bundles[0], node))
    succeed(receive(pack, node))
    assert docker(
        node, "run", "--rm", "--network", "none", "several/web:1.1.0", "/bin/busybox", "cat", "/www/index.html"
    ) == ("It was made for amd64\n")


def test_node_of_missing_platform_is_refused(story: Story, node: sandbox.Sandbox, tmp_path: Path) -> None:
    copy = shutil.copytree(story.bundles[1], tmp_path / "copy")
    script = copy / layout.RECEIVE_SCRIPT
    script.write_text(script.read_text().replace("linux/amd64", "linux/s390x"))
    sums = (copy / layout.CHECKSUMS_FILE).read_text().splitlines()
    digest = subprocess.run(["sha256sum", script], capture_output=True, text=True, check=True).stdout.split()[0]
    entries = [
        f"{digest}  {layout.RECEIVE_SCRIPT}" if entry.endswith(f"  {layout.RECEIVE_SCRIPT}") else entry
        for entry in sums
    ]
    (copy / layout.CHECKSUMS_FILE).write_text("\n".join(entries) + "\n")
    outcome = receive(copy, node)
    assert (outcome.code, "runs linux/amd64, but the images are for" in outcome.err) == (3, True), outcome.text
    missing = copy / f"images/several-1.1.0-{with_hyphens(FOREIGN)}.tar"
    missing.unlink()
    assert receive(copy, node).code == 6


def test_registry_gets_index_of_all_platforms(story: Story, registry: str, tmp_path: Path) -> None:
    ada = as_ada(story.project, tmp_path / "docker", registry)
    succeed(ada.lyra("promote", "--to", f"oci://{registry}/team"))
    response = get(registry, "team/several/web/manifests/1.1.0")
    assert response.json()["mediaType"] == INDEX_MEDIA_TYPE
    descriptors = {
        f"{descriptor['platform']['os']}/{descriptor['platform']['architecture']}": descriptor
        for descriptor in response.json()["manifests"]
    }
    assert {key: descriptor["digest"] for key, descriptor in descriptors.items()} == {
        key: image["manifest_digest"] for key, image in story.images().items()
    }
    for platform, descriptor in descriptors.items():
        manifest = get(registry, f"team/several/web/manifests/{descriptor['digest']}").json()
        assert manifest["config"]["digest"] == story.images()[platform]["config_digest"]


def test_foreign_build_step_without_emulation_is_explained(story: Story) -> None:
    dockerfile = story.project.root / "app" / "Dockerfile"
    original = dockerfile.read_text()
    dockerfile.write_text(original + 'USER 0:0\nRUN ["/bin/busybox", "true"]\n')
    try:
        outcome = story.project.lyra("build")
        refused(
            outcome, 4, "a step runs a program for another platform", "FROM --platform=$BUILDPLATFORM", "binfmt_misc"
        )
        succeed(story.project.lyra("build", "--platform", f"{OWN},{SECOND}"))
        status = json.loads(succeed(story.project.lyra("status", "--json")).out)
        assert {image["name"]: bool(image["problem"]) for image in status["images"]} == {
            f"web@{platform}": platform == FOREIGN for platform in PLATFORMS
        }
    finally:
        dockerfile.write_text(original)
    unknown = story.project.lyra("build", "--platform", "linux/arm")
    refused(unknown, 2, "Unknown platform 'linux/arm'", "Did you mean linux/arm64?")
    assert no_traceback(unknown.text)


def test_emulated_platform_is_built_and_tested(story: Story, emulated: None) -> None:
    config, dockerfile = story.project.root / ".lyra.toml", story.project.root / "app" / "Dockerfile"
    config.write_text(config.read_text().replace(DEVIATION, "").replace('memory = "16m"', 'memory = "64m"'))
    dockerfile.write_text(dockerfile.read_text() + 'USER 0:0\nRUN ["/bin/busybox", "true"]\nUSER 65534:65534\n')
    story.project.commit("1.2.0")
    story.project.git("tag", "v1.2.0")
    outcome = succeed(story.project.lyra("build", "test", "promote"))
    assert "test.platform" not in outcome.text
    bundle = story.bundles[0].with_name("1.2.0")
    tests = json.loads((bundle / layout.TESTS_JSON_FILE).read_bytes())
    groups = ["", *(f"@{with_hyphens(platform)}" for platform in sorted((SECOND, FOREIGN)))]
    assert sorted((check["group"], check["outcome"]) for check in tests["checks"]) == [
        (group, "passed") for group in groups
    ]
    rules = json.loads((bundle / layout.RULES_FILE).read_bytes())["results"]
    outcomes = {result["scope"]: result["outcome"] for result in rules if result["rule"] == "test.platform"}
    assert outcomes == {f"images.web@{platform}": "passed" for platform in PLATFORMS}
