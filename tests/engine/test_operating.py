"""The commands of `PROMOTION.md`, as a rehearsal pastes them: start, upgrade with data, roll back, make room."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import write_checksums
from lyra_tasks.bundle.rehearse import page as steps
from lyra_tasks.bundle.rehearse.page import Page
from lyra_tasks.digests import sha256_hex
from lyra_tasks.engine import sandbox
from tests.conftest import Project
from tests.thorough import keep

WRITE, READ = "the volume can be written", "what was written is there"
MORE = f"""
[[tests]]
name = "{READ}"
service = "web"
exec = "cat /data/file"
output = "kept"

[promotion]
sign = {{ key = "../signing-key", identity = "Ada O'Lovelace" }}
"""
MOOD = 'MOOD = { required = true, test_value = "good # \\"$day\\" it\'s", description = "how it feels" }\nTOKEN = {'
TOOLS = ("cp", "grep", "head", "mkdir", "mv", "rm", "sed", "sh", "sha256sum", "sort", "tail", "tr", "xargs")
FROM = ("bundle.rehearse", "1.1.0", "--from", "1.0.0", "--write", WRITE, "--read", READ)


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Promote two signed versions; the newer one has another page, needs another variable and has another volume."""
    project = make_tiny()
    key = project.root.parent / "signing-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with (project.root / ".lyra.toml").open("a") as file:
        file.write(MORE)
    for version in ("1.0.0", "1.1.0"):
        (project.root / "app/www/index.html").write_text(f"It is tiny. {version}\n")
        if version == "1.1.0":
            project.replace(".lyra.toml", "TOKEN = {", MOOD)
            project.replace("app/Dockerfile", " data /data", " data /data\nCOPY --chown=65534:65534 data /more")
            more_volumes = '[services.web.volumes.more]\npath = "/more"\nowner = "65534:65534"\n\n[[tests]]\n'
            project.replace(".lyra.toml", f'[[tests]]\nname = "{READ}', f'{more_volumes}name = "{READ}')
        project.commit(version)
        project.git("tag", f"v{version}")
        outcome = project.lyra("build", "test", "promote")
        assert outcome.code == 0, outcome.text
    yield project
    project.clean()


@contextmanager
def page_with(project: Project, old: str, new: str) -> Iterator[None]:
    """Change the page of the newer bundle, and its digests in the provenance and the checksums."""
    (bundle,) = (bundle for bundle in project.bundles() if bundle.name == "1.1.0")
    page, provenance = bundle / layout.SUMMARY_FILE, bundle / layout.PROVENANCE_FILE
    texts = {path: path.read_text() for path in (page, provenance)}
    assert texts[page].count(old) == 1, texts[page]
    page.write_text(texts[page].replace(old, new))
    old_digest, new_digest = (sha256_hex(text.encode()) for text in (texts[page], page.read_text()))
    provenance.write_text(texts[provenance].replace(old_digest, new_digest))
    write_checksums(bundle)
    yield
    for path, text in texts.items():
        path.write_text(text)
    write_checksums(bundle)


def last_rehearsal(project: Project) -> dict[str, Any]:
    """Return the last rehearsal in the journal."""
    (journal,) = project.state.glob("*/journal.jsonl")
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    data: dict[str, Any] = [entry["data"] for entry in entries if entry["event"] == "rehearsed"][-1]
    return data


@pytest.mark.thorough
def test_rehearsal_follows_both_pages_on_oldest_and_newest_engine(
    project: Project, busybox: Path, tmp_path: Path
) -> None:
    """Follow the pages in the shell of busybox, with its tools; the other tests use this machine's shell."""
    for name in TOOLS:
        (tmp_path / name).symlink_to(busybox / "busybox")
    outcome = project.lyra(*FROM, "--json", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert outcome.code == 0, outcome.text
    result = json.loads(outcome.out)
    oldest, newest = result["engines"]
    assert oldest["engine"].startswith("20.10.") and int(newest["engine"].partition(".")[0]) >= 26
    for engine in result["engines"]:
        steps = [(step["bundle"], step["step"].partition(". ")[0]) for step in engine["steps"]]
        pack = "tiny-1.1.0-since-1.0.0"
        assert steps == [
            *[("1.0.0", number) for number in "123459"],
            *[(pack, number) for number in ("1", "2", "This is a pack", "6", "3", "6", "5", "9", "7", "8")],
            *[("1.0.0", number) for number in "59"],
        ]
        titles = [check["name"] for check in engine["checks"]]
        assert titles[:2] == [WRITE, READ] and titles[-1] == READ and titles.count(READ) == 3
        assert {check["outcome"] for check in engine["checks"]} == {"passed"}
    assert last_rehearsal(project)["passed"] is True
    assert last_rehearsal(project)["older"] == "1.0.0"


def test_failing_command_is_named_with_its_output(project: Project) -> None:
    with page_with(project, "docker compose stop", "docker compose halt"):
        outcome = project.lyra(*FROM)
    assert outcome.code == 5, outcome.text
    assert '6. Upgrade from 1.0.0: `cd "$OLD" && docker compose halt` fails with exit code' in outcome.err
    assert "unknown docker command" in outcome.err
    entry = last_rehearsal(project)
    assert not entry["passed"] and "docker compose halt" in entry["problem"]


@pytest.mark.thorough
def test_backup_that_is_not_restored_is_found(project: Project) -> None:
    with page_with(project, 'docker cp - "$(place tiny_web-data)" <', "docker version > /dev/null <"):
        outcome = project.lyra(*FROM)
    assert outcome.code == 5, outcome.text
    assert "Data lost after the roll back to 1.0.0: tiny_web-data" in outcome.err


@pytest.mark.thorough
def test_images_that_are_not_removed_are_found(project: Project) -> None:
    with page_with(project, "| sort -u | xargs -r docker image rm", "| sort -u | xargs -r echo"):
        outcome = project.lyra(*FROM)
    assert outcome.code == 5, outcome.text
    assert "Not removed to make room: tiny/web:1.1\n" in outcome.err


@pytest.fixture
def node(project: Project, box: sandbox.Sandbox) -> Iterator[dict[str, str]]:
    """Return the variables of the session's engine as that of a node, which has nothing of the project."""
    project.clean()
    environment = {**os.environ, **box.environment()}
    yield environment
    mine = "--filter label=com.docker.compose.project=tiny"
    commands = (
        f"docker ps --all --quiet {mine} | xargs -r docker rm --force",
        f"docker network ls --quiet {mine} | xargs -r docker network rm",
        f"docker volume ls --quiet {mine} | xargs -r docker volume rm",
        "docker image ls --quiet --no-trunc tiny/web | sort -u | xargs -r docker image rm --force",
    )
    for command in commands:
        subprocess.run(["sh", "-c", command], env=environment, check=True, capture_output=True)


@pytest.mark.parametrize("is_stopped", keep(1, [True, False]))
def test_upgrade_that_lacks_a_value_is_rolled_back_with_its_data(
    project: Project, node: dict[str, str], tmp_path: Path, is_stopped: bool
) -> None:
    """End before the backup, or before the start: neither may lose data, nor needs the newer version's settings."""
    older, newer = (Path(shutil.copytree(bundle, tmp_path / bundle.name)) for bundle in project.bundles())
    secret = tmp_path / "key"
    secret.write_text("secret")
    os.chown(secret, 65534, 65534)
    (older / "deploy/.env").write_text(f"TOKEN=sesame\nWEB_KEY_FILE={secret}\n")
    values = {"OLD": f"{older}/deploy", "NEW": f"{newer}/deploy", "BACKUP": str(tmp_path / "backup")}
    page = Page(newer)

    def run(*lines: str) -> str:
        script = "\n".join(["set -e", *steps.fill_in(lines, values)])
        result = subprocess.run(["sh", "-c", script], env=node, cwd=older, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    (older / "deploy/.env").rename(tmp_path / "env")
    run("sh receive.sh")
    (tmp_path / "env").rename(older / "deploy/.env")
    run("cd deploy", "docker compose up --detach --wait", "docker compose exec -T web sh -c 'echo kept > /data/file'")
    upgrade = page.find(steps.UPGRADE).blocks[0]
    (save,) = (number for number, line in enumerate(upgrade) if "web-data" in line)
    run(f"sh {newer}/receive.sh", *upgrade[: save if is_stopped else None])
    run(*page.find(steps.ROLL_BACK).lines)
    assert run("cd deploy", "docker compose exec -T web cat /data/file") == "kept\n"
    assert run("docker inspect --format '{{.Config.Image}}' tiny-web-1") == "tiny/web:1.0.0\n"
    run(*page.find(steps.ROLL_BACK).lines)
    values["OLDER"] = "1.0.0"
    assert run(*page.find(steps.MAKE_ROOM).lines).endswith("\ntiny/web:1.0.0\n"), "it has a container"
    assert {"1.0", "1.0.0"} <= set(run("docker image ls --format '{{.Tag}}' tiny/web").split())
