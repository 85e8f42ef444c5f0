"""Tests of builds that fail."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project, ours
from tests.faults import refused

CONTEXT = '[images.web]\ncontext = "app"\n'


@pytest.fixture
def broken(shared: Project) -> Iterator[Project]:
    """Return the project, whose files are as before after the test."""
    yield shared
    shared.git("reset", "--quiet", "--hard")
    shared.git("clean", "--quiet", "--force", "-d", "--exclude", ".lyra*")


def test_missing_dockerfile_is_reported_with_its_key(broken: Project) -> None:
    (broken.root / "app" / "Dockerfile").unlink()
    refused(broken.lyra("build"), 2, ".lyra.toml:7: images.web", "Dockerfile")


def test_missing_context_is_reported_with_its_line(broken: Project) -> None:
    broken.replace(".lyra.toml", 'context = "app"', 'context = "ape"')
    refused(broken.lyra("build"), 2, ".lyra.toml:8: images.web.context", "ape")


def test_unknown_target_lists_the_known_stages(broken: Project) -> None:
    broken.replace(".lyra.toml", 'context = "app"\n', 'context = "app"\ntarget = "final"\n')
    broken.replace("app/Dockerfile", "FROM scratch", "FROM scratch AS runtime")
    refused(broken.lyra("build"), 2, "'final'", "runtime")


@pytest.mark.parametrize(
    ("old", "new", "location"),
    [
        ("COPY www /www", "COPPY www /www", "app/Dockerfile:3"),
        ("FROM scratch", "FROM scratch AS", "app/Dockerfile:1"),
        ("FROM scratch", "RUN true", "app/Dockerfile"),
        ('CMD ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]', 'CMD ["/bin/busybox"', None),
    ],
)
def test_dockerfile_error_names_the_line(broken: Project, old: str, new: str, location: str | None) -> None:
    broken.replace("app/Dockerfile", old, new)
    result = broken.lyra("build")
    if location is None:
        assert result.code == 0, "Docker reads a malformed exec form as a shell command"
    else:
        refused(result, 2, location)


def test_failed_step_shows_its_last_lines_and_the_log(broken: Project, engine: Engine) -> None:
    step = 'RUN ["/bin/sh", "-c", "echo first; echo the-reason >&2; exit 7"]\nUSER'
    broken.replace("app/Dockerfile", "USER", step)
    before = ours(engine)
    result = broken.lyra("build")
    refused(result, 4, "exit code: 7", "the-reason", "build failed")
    log = re.search(r"hint: The whole log is in (\S+)", result.err)
    assert log
    path = Path(broken.root, log[1])
    assert "first" in path.read_text()
    assert ours(engine) == before
    broken.replace("app/Dockerfile", "exit 7", "exit 0")
    assert broken.lyra("build").code == 0


def test_printed_secret_is_redacted_everywhere(broken: Project) -> None:
    (broken.root / "token.txt").write_text("s3cr3t-of-the-build\n")
    broken.replace(".lyra.toml", CONTEXT, CONTEXT + 'secrets = { token = "token.txt" }\n')
    print_step = 'RUN --mount=type=secret,id=token ["/bin/sh", "-c", "cat /run/secrets/token; exit 3"]\nUSER'
    broken.replace("app/Dockerfile", "USER", print_step)
    result = broken.lyra("build")
    refused(result, 4, "***")
    broken.replace("app/Dockerfile", "exit 3", "exit 0")
    second = broken.lyra("build", "--no-cache")
    assert second.code == 0, second.text
    assert "***" in second.err
    assert "s3cr3t" not in result.text + second.text
    files = [path for root in (broken.root / ".lyra", broken.state) for path in root.rglob("*") if path.is_file()]
    assert any(path.name == "_build.log" for path in files)
    assert [path for path in files if b"s3cr3t" in path.read_bytes()] == []


def test_missing_build_secret_is_named(broken: Project) -> None:
    broken.replace(".lyra.toml", CONTEXT, CONTEXT + 'secrets = { token = "token.txt" }\n')
    refused(broken.lyra("build"), 2, "images.web.secrets.token", "token.txt")


def test_clean_removes_images_of_a_failed_build(tiny: Project, engine: Engine) -> None:
    before = ours(engine)
    tiny.replace(".lyra.toml", CONTEXT, CONTEXT + '\n[images.slow]\ncontext = "slow"\n')
    shutil.copytree(tiny.root / "app" / "bin", tiny.root / "slow" / "bin", symlinks=True)
    step = 'RUN ["/bin/sh", "-c", "sleep 3; exit 1"]\n'
    (tiny.root / "slow" / "Dockerfile").write_text(f"FROM scratch\nCOPY bin /bin\n{step}")
    refused(tiny.lyra("build"), 4, "slow")
    assert sorted({*ours(engine)} - {*before}), "the failed build left nothing"
    tiny.clean()
    assert ours(engine) == before
