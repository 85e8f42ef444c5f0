"""One project for three platforms: the engine's own, one that its kernel runs as well, and one that it does not."""

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


# how the kernel knows a program for arm64, by its first twenty bytes, and what runs it; `F`: opened now, for all roots
ARM64 = (
    ":NAME:M::"
    r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    ":PROGRAM:F"
)


def hyphened(platform: str) -> str:
    return platform.replace("/", "-")


@dataclass(frozen=True)
class Story:
    """The project after it was promoted twice; before there was a reason, promotion and release were `refused`."""

    project: Project
    refused: tuple[Outcome, Outcome]
    bundles: tuple[Path, Path]

    def document(self, name: str) -> Any:
        """A JSON file of the second bundle."""
        return json.loads((self.bundles[1] / name).read_bytes())

    def images(self) -> dict[str, dict[str, Any]]:
        """What the description says of the images, by platform."""
        return {each["platform"]: each for each in self.document(layout.MANIFEST_FILE)["images"]}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, cache: Path, box: sandbox.Sandbox) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("platforms")
    shutil.copytree(PROJECTS / "platforms", folder / "project")
    project = repository(folder / "project", folder, cache, box)
    done(project.lyra("bases.build"))
    project.commit("pin the bases")
    without = project.lyra("build", "test", "promote"), project.lyra("release", "--dry-run")
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(DEVIATION)
    for version in ("1.0.0", "1.1.0"):
        (project.root / "app" / "version").write_text(version)
        project.commit(version)
        project.git("tag", f"v{version}")
        done(project.lyra("build", "test", "promote"))
    first, second = project.bundles()
    yield Story(project, without, (first, second))
    project.clean()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[sandbox.Sandbox]:
    """An engine of the first platform, as old as Proxima's may be, that has seen no build."""
    made = sandbox.launch_sandbox(tmp_path_factory.mktemp("node"), cache=cache, suite="bookworm")
    yield made
    sandbox.shut_down_sandbox(made.state, purge=True)


@pytest.fixture
def emulated(tmp_path: Path, cache: Path) -> Iterator[None]:
    """A kernel that runs programs for arm64, through QEMU, as long as the test lasts."""
    root = unpacked(tmp_path / "root", cache, "qemu-user-static", packages=cache / "tests" / "qemu")
    formats, name = tmp_path / "formats", f"lyra-test-{tmp_path.name}"
    formats.mkdir()
    subprocess.run(["mount", "-t", "binfmt_misc", "none", formats], check=True)
    try:
        program = ARM64.replace("NAME", name).replace("PROGRAM", str(root / "usr/bin/qemu-aarch64-static"))
        (formats / "register").write_text(program)
        yield
    finally:
        if (formats / name).exists():
            (formats / name).write_text("-1")  # the kernel forgets it
        subprocess.run(["umount", formats], check=True)


def done(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.text
    return outcome


def docker(box: sandbox.Sandbox, *words: str) -> str:
    command = [str(box.docker), *words]
    return subprocess.run(command, env=box.environment(), check=True, capture_output=True, text=True).stdout


def received(bundle: Path, box: sandbox.Sandbox) -> Outcome:
    command = ["sh", str(bundle / layout.RECEIVE_SCRIPT)]
    ended = subprocess.run(command, env=box.environment(), capture_output=True, text=True, check=False)
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


def test_each_platform_has_a_base_a_target_and_a_name_of_its_own(story: Story, box: sandbox.Sandbox) -> None:
    lock = (story.project.root / ".lyra.lock.toml").read_text()
    assert [f'[bases."tools@{each}"]' in lock for each in (SECOND, FOREIGN)] == [True, True]
    told = json.loads(done(story.project.lyra("build", "--platform", FOREIGN, "--json")).out)["images"]
    (record,) = told.values()
    assert (list(told), record["platform"], record["new"]) == ([f"web@{FOREIGN}"], FOREIGN, False)
    assert record["reference"] == f"several/web:1.1.0-{hyphened(FOREIGN)}"
    seen = json.loads(docker(box, "image", "inspect", record["engine_id"]))
    assert [(each["Os"], each["Architecture"]) for each in seen] == [tuple(FOREIGN.split("/"))]


def test_the_services_run_for_every_platform_that_the_engine_runs(story: Story) -> None:
    tests = story.document(layout.TESTS_JSON_FILE)
    assert sorted(each["group"] for each in tests["checks"]) == ["", f"@{hyphened(SECOND)}"]
    assert {each["outcome"] for each in tests["checks"]} == {"passed"}
    assert set(tests["set"]["images"]) == {f"web@{each}" for each in PLATFORMS}
    assert (story.bundles[1] / layout.LOGS_DIRECTORY / f"@{hyphened(SECOND)}" / "web.log").is_file()


def test_what_did_not_run_is_warned_of_by_test_and_refused_by_promote_until_there_is_a_reason(story: Story) -> None:
    what = f"images.web@{FOREIGN}: nothing of it ran: the engine runs {OWN}, and does not run {FOREIGN}"
    assert f"warning: {what} (rule test.platform)" in story.refused[0].text
    refused(story.refused[0], 5, what, "[[deviations]]", "run `test promote`")
    refused(story.refused[1], 3, what)
    rules = [each for each in story.document(layout.RULES_FILE)["results"] if each["rule"] == "test.platform"]
    outcomes = {each["scope"]: each["outcome"] for each in rules}
    expected = {OWN: "kept", SECOND: "kept", FOREIGN: "deviation"}
    assert outcomes == {f"images.web@{platform}": outcome for platform, outcome in expected.items()}
    (deviation,) = story.document(layout.DEVIATIONS_FILE)["deviations"]
    assert deviation["rule"] == "test.platform"
    page = (story.bundles[1] / layout.SUMMARY_FILE).read_text()
    assert f"the bytes that were tested, but for `web@{FOREIGN}`, of which nothing ran" in page


def test_a_bundle_has_an_archive_and_a_list_of_packages_for_each_platform(story: Story) -> None:
    for platform, image in story.images().items():
        assert image["file"] == f"images/web-1.1.0-{hyphened(platform)}.tar"
        assert image["references"][0] == "several/web:1.1.0"
        with tarfile.open(story.bundles[1] / image["file"]) as archive:
            index = json.load(archive.extractfile("index.json") or pytest.fail("no index"))
        assert {f"{each['platform']['os']}/{each['platform']['architecture']}" for each in index["manifests"]} == {
            platform
        }
        packages = story.document(layout.sbom_file(f"web@{platform}"))
        assert image["manifest_digest"] in packages["metadata"]["component"]["bom-ref"]
    assert set(story.images()) == set(PLATFORMS)
    assert "platform" not in (story.bundles[1] / layout.COMPOSE_FILE).read_text(), "the node's is used"
    told = story.document(layout.PROVENANCE_FILE)["predicate"]["buildDefinition"]["externalParameters"]["images"]
    assert {key: each["platform"] for key, each in told.items()} == {f"web@{each}": each for each in PLATFORMS}


def test_a_bundle_is_verified_compared_and_promoted_again_with_all_its_platforms(story: Story) -> None:
    verified = json.loads(done(story.project.lyra("verify", str(story.bundles[1]), "--json")).out)
    assert verified["images"] == {f"web@{key}": image["config_digest"] for key, image in story.images().items()}
    different = done(story.project.lyra("diff", "1.0.0", "1.1.0"))
    assert all(f"web@{each}" in different.out for each in PLATFORMS)
    report = (story.bundles[1] / layout.REPORT_FILE).read_text()
    assert "as large as before" in report
    assert "an image that is new" not in report
    assert "promoted already" in done(story.project.lyra("promote")).out


def test_a_node_loads_what_is_for_its_own_platform_and_nothing_else(
    story: Story, node: sandbox.Sandbox, tmp_path: Path
) -> None:
    loaded = done(received(story.bundles[1], node))
    assert f"loading images/web-1.1.0-{hyphened(OWN)}.tar" in loaded.out
    assert loaded.out.count("loading images/") == 1
    held = set(docker(node, "image", "ls", "--all", "--quiet", "--no-trunc").split())
    assert held == {story.images()[OWN]["config_digest"]}

    to = tmp_path / "medium"
    to.mkdir()
    done(story.project.lyra("bundle.pack", "1.1.0", "--to", str(to), "--since", "1.0.0", "--split", "64k"))
    pack = to / "several-1.1.0-since-1.0.0"
    done(story.project.lyra("verify", str(pack)))
    assert all(each["without"] for each in json.loads((pack / layout.PACK_FILE).read_bytes())["images"])
    docker(node, "image", "rm", "--force", *held)
    assert received(pack, node).code == 31, "the layers of 1.0.0 are not there"
    done(received(story.bundles[0], node))
    done(received(pack, node))
    assert docker(
        node, "run", "--rm", "--network", "none", "several/web:1.1.0", "/bin/busybox", "cat", "/www/index.html"
    ) == ("It was made for amd64\n")


def test_a_node_of_a_platform_that_is_not_there_is_told(story: Story, node: sandbox.Sandbox, tmp_path: Path) -> None:
    copy = shutil.copytree(story.bundles[1], tmp_path / "copy")
    script = copy / layout.RECEIVE_SCRIPT
    script.write_text(script.read_text().replace("linux/amd64", "linux/s390x"))
    sums = (copy / layout.CHECKSUMS_FILE).read_text().splitlines()
    digest = subprocess.run(["sha256sum", script], capture_output=True, text=True, check=True).stdout.split()[0]
    kept = [
        f"{digest}  {layout.RECEIVE_SCRIPT}" if each.endswith(f"  {layout.RECEIVE_SCRIPT}") else each for each in sums
    ]
    (copy / layout.CHECKSUMS_FILE).write_text("\n".join(kept) + "\n")
    outcome = received(copy, node)
    assert (outcome.code, "it runs linux/amd64" in outcome.err) == (3, True), outcome.text
    missing = copy / f"images/web-1.1.0-{hyphened(FOREIGN)}.tar"
    missing.unlink()
    assert received(copy, node).code == 6


def test_a_registry_gets_an_index_of_all_platforms(story: Story, registry: str, tmp_path: Path) -> None:
    ada = as_ada(story.project, tmp_path / "docker", registry)
    done(ada.lyra("promote", "--to", f"oci://{registry}/team"))
    answer = get(registry, "team/several/web/manifests/1.1.0")
    assert answer.json()["mediaType"] == INDEX_MEDIA_TYPE
    found = {
        f"{each['platform']['os']}/{each['platform']['architecture']}": each for each in answer.json()["manifests"]
    }
    assert {key: each["digest"] for key, each in found.items()} == {
        key: image["manifest_digest"] for key, image in story.images().items()
    }
    for platform, each in found.items():
        manifest = get(registry, f"team/several/web/manifests/{each['digest']}").json()
        assert manifest["config"]["digest"] == story.images()[platform]["config_digest"]


def test_a_step_that_runs_a_program_for_another_platform_is_recognised(story: Story) -> None:
    dockerfile = story.project.root / "app" / "Dockerfile"
    before = dockerfile.read_text()
    dockerfile.write_text(before + 'USER 0:0\nRUN ["/bin/busybox", "true"]\n')
    try:
        outcome = story.project.lyra("build")
        refused(
            outcome, 4, "a step runs a program for another platform", "FROM --platform=$BUILDPLATFORM", "binfmt_misc"
        )
        done(story.project.lyra("build", "--platform", f"{OWN},{SECOND}"))
        status = json.loads(done(story.project.lyra("status", "--json")).out)
        assert {each["name"]: bool(each["problem"]) for each in status["images"]} == {
            f"web@{each}": each == FOREIGN for each in PLATFORMS
        }
    finally:
        dockerfile.write_text(before)
    unknown = story.project.lyra("build", "--platform", "linux/arm")
    refused(unknown, 2, "no platform named 'linux/arm'", "did you mean linux/arm64?")
    assert no_traceback(unknown.text)


def test_a_platform_that_the_kernel_emulates_is_built_and_tested_like_its_own(story: Story, emulated: None) -> None:
    config, dockerfile = story.project.root / ".lyra.toml", story.project.root / "app" / "Dockerfile"
    config.write_text(config.read_text().replace(DEVIATION, "").replace('memory = "16m"', 'memory = "64m"'))
    dockerfile.write_text(dockerfile.read_text() + 'USER 0:0\nRUN ["/bin/busybox", "true"]\nUSER 65534:65534\n')
    story.project.commit("1.2.0")
    story.project.git("tag", "v1.2.0")
    said = done(story.project.lyra("build", "test", "promote"))
    assert "test.platform" not in said.text
    bundle = story.bundles[0].with_name("1.2.0")
    tests = json.loads((bundle / layout.TESTS_JSON_FILE).read_bytes())
    groups = ["", *(f"@{hyphened(each)}" for each in sorted((SECOND, FOREIGN)))]
    assert sorted((each["group"], each["outcome"]) for each in tests["checks"]) == [(each, "passed") for each in groups]
    rules = json.loads((bundle / layout.RULES_FILE).read_bytes())["results"]
    outcomes = {each["scope"]: each["outcome"] for each in rules if each["rule"] == "test.platform"}
    assert outcomes == {f"images.web@{each}": "kept" for each in PLATFORMS}
