"""Tests of builds that fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project, ours
from tests.faults import refused

CONTEXT = '[images.web]\ncontext = "app"\n'


def test_missing_dockerfile_is_reported_with_its_key(tiny: Project) -> None:
    (tiny.root / "app" / "Dockerfile").unlink()
    refused(tiny.lyra("build"), 2, ".lyra.toml:7: images.web", "Dockerfile")


def test_missing_context_is_reported_with_its_line(tiny: Project) -> None:
    tiny.replace(".lyra.toml", 'context = "app"', 'context = "ape"')
    refused(tiny.lyra("build"), 2, ".lyra.toml:8: images.web.context", "ape")


def test_unknown_target_lists_the_known_stages(tiny: Project) -> None:
    tiny.replace(".lyra.toml", 'context = "app"\n', 'context = "app"\ntarget = "final"\n')
    tiny.replace("app/Dockerfile", "FROM scratch", "FROM scratch AS runtime")
    refused(tiny.lyra("build"), 2, "'final'", "runtime")


@pytest.mark.parametrize(
    ("old", "new", "location"),
    [
        ("COPY www /www", "COPPY www /www", "app/Dockerfile:3"),
        ("FROM scratch", "FROM scratch AS", "app/Dockerfile:1"),
        ("FROM scratch", "RUN true", "app/Dockerfile"),
        ('CMD ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]', 'CMD ["/bin/busybox"', None),
    ],
)
def test_dockerfile_error_names_the_line(tiny: Project, old: str, new: str, location: str | None) -> None:
    tiny.replace("app/Dockerfile", old, new)
    result = tiny.lyra("build")
    if location is None:
        assert result.code == 0, "Docker reads a malformed exec form as a shell command"
    else:
        refused(result, 2, location)


def test_failed_step_shows_its_last_lines_and_the_log(tiny: Project, engine: Engine) -> None:
    step = 'RUN ["/bin/sh", "-c", "echo first; echo the-reason >&2; exit 7"]\nUSER'
    tiny.replace("app/Dockerfile", "USER", step)
    result = tiny.lyra("build")
    refused(result, 4, "exit code: 7", "the-reason", "build failed")
    log = re.search(r"hint: The whole log is in (\S+)", result.err)
    assert log
    path = Path(tiny.root, log[1])
    assert "first" in path.read_text()
    assert ours(engine) == []
    tiny.replace("app/Dockerfile", "exit 7", "exit 0")
    assert tiny.lyra("build").code == 0


def test_printed_secret_is_redacted_everywhere(tiny: Project) -> None:
    (tiny.root / "token.txt").write_text("s3cr3t-of-the-build\n")
    tiny.replace(".lyra.toml", CONTEXT, CONTEXT + 'secrets = { token = "token.txt" }\n')
    print_step = 'RUN --mount=type=secret,id=token ["/bin/sh", "-c", "cat /run/secrets/token; exit 3"]\nUSER'
    tiny.replace("app/Dockerfile", "USER", print_step)
    result = tiny.lyra("build")
    refused(result, 4, "***")
    tiny.replace("app/Dockerfile", "exit 3", "exit 0")
    second = tiny.lyra("build", "--no-cache")
    assert second.code == 0, second.text
    assert "***" in second.err
    assert "s3cr3t" not in result.text + second.text
    files = [path for root in (tiny.root / ".lyra", tiny.state) for path in root.rglob("*") if path.is_file()]
    assert any(path.name == "_build.log" for path in files)
    assert [path for path in files if b"s3cr3t" in path.read_bytes()] == []


def test_missing_build_secret_is_named(tiny: Project) -> None:
    tiny.replace(".lyra.toml", CONTEXT, CONTEXT + 'secrets = { token = "token.txt" }\n')
    refused(tiny.lyra("build"), 2, "images.web.secrets.token", "token.txt")


def test_clean_removes_images_of_a_failed_build(tiny: Project, engine: Engine) -> None:
    tiny.replace(".lyra.toml", CONTEXT, CONTEXT + '\n[images.slow]\ncontext = "slow"\n')
    (tiny.root / "slow").mkdir()
    (tiny.root / "slow" / "bin").symlink_to("../app/bin")
    slow_stage = 'FROM scratch\nCOPY --from=tools /bin /bin\nRUN ["/bin/sh", "-c", "sleep 3; exit 1"]\n'
    (tiny.root / "slow" / "Dockerfile").write_text(f"FROM scratch AS tools\nCOPY bin /bin\n{slow_stage}")
    (tiny.root / "slow" / "bin").unlink()
    (tiny.root / "slow" / "bin").mkdir()
    for path in sorted((tiny.root / "app" / "bin").iterdir()):
        (tiny.root / "slow" / "bin" / path.name).write_bytes(path.read_bytes())
        (tiny.root / "slow" / "bin" / path.name).chmod(0o755)
    refused(tiny.lyra("build"), 4, "slow")
    leftovers = ours(engine)
    assert [name for name in leftovers if name.startswith("tiny/web:")], "the failed build left nothing"
    tiny.clean()
    assert ours(engine) == []
