"""Tests that a record names only what its image was built from."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.buildx.bake import bake_targets
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.disk_usage import prune_build_cache, read_disk_usage
from tests.conftest import Outcome, Project, tiny_project
from tests.faults import becomes, refused
from tests.thorough import keep

PAGE = "app/www/index.html"
SLOW = 'RUN ["/bin/busybox", "sleep", "3"]\n'


def start_build(project: Project) -> subprocess.Popen[str]:
    """Start a build, and return once the builder runs a step of it."""
    earlier = set(list_logs(project))
    process = project.start("build")
    assert becomes(lambda: any("RUN" in log.read_text() for log in set(list_logs(project)) - earlier), 60)
    return process


def list_logs(project: Project) -> list[Path]:
    """Return the build logs of all runs."""
    return list(project.root.glob(".lyra/runs/*/logs/_build.log"))


def build_meanwhile(project: Project, change: Callable[[], object]) -> Outcome:
    """Build, and make a change once the builder runs."""
    process = start_build(project)
    change()
    out, err = process.communicate(timeout=60)
    return Outcome(process.returncode, out, err)


@pytest.fixture
def slow(project: Project) -> Project:
    """Return a project whose build takes some seconds and is never cached."""
    project.replace("app/Dockerfile", "USER", f"ARG NONCE={os.urandom(4).hex()}\n{SLOW}USER")
    project.commit()
    return project


def undo(page: Path) -> None:
    """Change a file and restore it, its time included."""
    status, text = page.stat(), page.read_text()
    page.write_text(f"{text} and more")
    page.write_text(text)
    os.utime(page, ns=(status.st_atime_ns, status.st_mtime_ns))


def built_runs(project: Project) -> int:
    """Return the number of runs that called the builder."""
    return len(list(project.root.glob(".lyra/runs/*/bake-metadata.json")))


def test_current_image_is_not_built_again(tiny: Project, engine: Engine) -> None:
    def build(*options: str) -> str:
        """Build, and return what is said about the image, and whether the builder was called."""
        before = built_runs(tiny)
        outcome = tiny.lyra("build", *options)
        assert outcome.code == 0, outcome.text
        state = outcome.out.splitlines()[0].split()[-1]
        return f"{state}, {'built' if built_runs(tiny) > before else 'not built'}"

    assert build() == "new, built"
    assert build() == "unchanged, not built"
    for option in ("--no-cache", "--pull"):
        assert build(option).endswith(", built")
        assert build() == "unchanged, built", "the record of such a build says nothing about the next one"
    assert build() == "unchanged, not built"
    tiny.git("tag", "v1.0.0")
    assert build() == "unchanged, not built", "an unchanged image keeps its reference"
    config = tiny.root / ".lyra.toml"
    for table, change in (
        ("description", "as small as it gets"),
        ('context = "app"', 'context = "app"\nargs = { A = "1" }'),
    ):
        text = config.read_text()
        config.write_text(text.replace(table, f"{change}") if table != "description" else text.replace(change, "tiny"))
        tiny.commit()
        assert build() == "new, built"
        assert build() == "unchanged, not built"
    reference = tiny.lyra("build").out.split()[0]
    engine.api.remove_image(reference)
    assert build() == "unchanged, built", "the engine has lost the reference"
    engine.api.tag(engine.api.images(all=True)[0]["Id"], *reference.rsplit(":", 1))
    assert build().endswith(("unchanged, built", "unchanged, not built"))


@pytest.mark.parametrize("change", keep(1, [undo, lambda page: page.write_text("other")]))
def test_file_that_changes_during_a_build_is_named(slow: Project, change: Callable[[Path], object]) -> None:
    refused(
        build_meanwhile(slow, lambda: change(slow.root / PAGE)),
        3,
        f"{PAGE} changed during the build",
        "Run `lyra build` again",
    )
    refused(slow.lyra("test"), 3, "web ", "Run `lyra build` first")
    slow.git("checkout", "--quiet", "--", "app")
    assert slow.lyra("build").code == 0
    refused(slow.lyra("promote"), 3, "have not been tested")


def test_commit_during_a_build_is_named(slow: Project) -> None:
    refused(build_meanwhile(slow, slow.commit), 3, "HEAD moved from", "Run `lyra build` again")
    refused(slow.lyra("promote"), 3, "web ", "Run `lyra build` first")


def test_stage_sees_the_files_that_were_tested(slow: Project) -> None:
    slow.replace("app/Dockerfile", "FROM scratch\n", "FROM scratch AS base\n")
    with (slow.root / "app/Dockerfile").open("a") as file:
        file.write(
            f"FROM base AS lint\nCOPY bin /bin\nCOPY www /www\n{SLOW}FROM base\n"
            + (slow.root / "app/Dockerfile").read_text().partition("\n")[2]
        )
    config = slow.root / ".lyra.toml"
    config.write_text(
        config.read_text().partition("[[tests]]")[0] + '[[tests]]\nname = "lint"\nimage = "web"\nstage = "lint"\n'
    )
    slow.commit()
    assert slow.lyra("build").code == 0
    process = slow.start("test")
    assert becomes(
        lambda: any("RUN" in path.read_text() for path in slow.root.glob(".lyra/runs/*/.bake-*/build.log")), 60
    )
    text = (slow.root / PAGE).read_text()
    (slow.root / PAGE).write_text("other")
    out, err = process.communicate(timeout=60)
    refused(Outcome(process.returncode, out, err), 3, f"{PAGE} changed during the build")
    (slow.root / PAGE).write_text(text)
    refused(slow.lyra("promote"), 3, "have not been tested")


def test_killed_build_does_not_mislead_the_next(slow: Project) -> None:
    """The builder received another content than was hashed, and nobody could record it."""
    page = slow.root / PAGE
    text, status = page.read_text(), page.stat()
    process = start_build(slow)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    page.write_text(text.swapcase())
    os.utime(page, ns=(status.st_atime_ns, status.st_mtime_ns))
    outcome = slow.lyra("build", "test", "--only", "the page is there")
    assert outcome.code == 5 and "the page is there" in outcome.err, "the page has other letters"


def test_projects_with_the_same_names_never_share_files(
    tmp_path: Path, busybox: Path, cache: Path, box: sandbox.Sandbox, engine: Engine
) -> None:
    contents = {}
    for name in ("one", "two"):
        project = tiny_project(tmp_path / name, busybox, cache, box)
        page = project.root / PAGE
        page.write_text(f"project {name}")
        os.utime(page, (1, 1))
        outcome = project.lyra("build", "--json")
        assert outcome.code == 0, outcome.text
        image = json.loads(outcome.out)["images"]["web"]["reference"]
        container = engine.api.create_container(image, ["none"])["Id"]
        contents[name] = b"".join(engine.api.get_archive(container, "/www/index.html")[0])
        engine.api.remove_container(container)
        project.clean()
    assert [f"project {name}".encode() in content for name, content in contents.items()] == [True, True]


def test_old_copies_count_into_the_budget_of_the_cache(engine: Engine, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    target = {"context": str(context), "dockerfile-inline": "FROM scratch\nCOPY . /\n", "output": ["type=cacheonly"]}
    (tmp_path / "bake.json").write_text(json.dumps({"target": {"default": target}}))
    size = 4 * 1024**2

    def cache_size() -> int:
        usage = read_disk_usage(engine)
        assert usage is not None
        return usage.cache_size

    for _ in range(4):
        (context / "data").write_bytes(os.urandom(size))
        bake_targets(
            engine, tmp_path / "bake.json", metadata=tmp_path / "metadata.json", log=tmp_path / "log", epoch=None,
            quiet=True,
        )  # fmt: skip
    assert cache_size() > 4 * size, "each build left a copy of its context"
    prune_build_cache(replace(engine, facts=replace(engine.facts, sandboxed=True)), 2 * size)
    assert cache_size() <= 2 * size
    shutil.rmtree(context)


def test_own_files_are_in_no_image(project: Project, engine: Engine) -> None:
    dockerfile = project.root / "app" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "COPY . /context\n")
    for name in (".lyra.toml", "www/.lyra.lock.toml", "own.toml"):
        (project.root / "app" / name).write_text("")
    project.commit()
    outcome = project.lyra("build")
    assert outcome.code == 0, outcome.text
    container = engine.api.create_container(outcome.out.split()[0], ["none"])["Id"]
    try:
        chunks, _ = engine.api.get_archive(container, "/context")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            names = {Path(name).name for name in archive.getnames()}
    finally:
        engine.api.remove_container(container)
    assert "own.toml" in names
    assert not {".lyra.toml", ".lyra.lock.toml"} & names
