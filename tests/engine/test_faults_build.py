"""Builds that cannot be, or fail: what is named, what is kept, what is left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project, ours
from tests.faults import refused

CONTEXT = '[images.web]\ncontext = "app"\n'


def test_a_missing_dockerfile_is_named_with_the_line_that_asks_for_it(tiny: Project) -> None:
    (tiny.root / "app" / "Dockerfile").unlink()
    refused(tiny.lyra("build"), 2, ".lyra.toml:7: images.web", "Dockerfile")


def test_a_missing_context_is_named_with_its_line(tiny: Project) -> None:
    tiny.replace(".lyra.toml", 'context = "app"', 'context = "ape"')
    refused(tiny.lyra("build"), 2, ".lyra.toml:8: images.web.context", "ape")


def test_an_unknown_target_is_answered_with_the_stages_there_are(tiny: Project) -> None:
    tiny.replace(".lyra.toml", 'context = "app"\n', 'context = "app"\ntarget = "final"\n')
    tiny.replace("app/Dockerfile", "FROM scratch", "FROM scratch AS runtime")
    refused(tiny.lyra("build"), 2, "'final'", "runtime")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("COPY www /www", "COPPY www /www", "app/Dockerfile:3"),
        ("FROM scratch", "FROM scratch AS", "app/Dockerfile:1"),
        ("FROM scratch", "RUN true", "app/Dockerfile"),
        ('CMD ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]', 'CMD ["/bin/busybox"', None),
    ],
)
def test_a_dockerfile_with_an_error_names_the_line(tiny: Project, old: str, new: str, said: str | None) -> None:
    tiny.replace("app/Dockerfile", old, new)
    result = tiny.lyra("build")
    if said is None:
        assert result.code == 0, "Docker reads half an exec form as a shell command"
    else:
        refused(result, 2, said)


def test_a_failing_step_shows_its_last_lines_and_where_the_whole_log_is(tiny: Project, engine: Engine) -> None:
    step = 'RUN ["/bin/sh", "-c", "echo first; echo the-reason >&2; exit 7"]\nUSER'
    tiny.replace("app/Dockerfile", "USER", step)
    result = tiny.lyra("build")
    refused(result, 4, "exit code: 7", "the-reason", "build failed")
    log = re.search(r"hint: the whole log is in (\S+)", result.err)
    assert log
    path = Path(tiny.root, log[1])
    assert "first" in path.read_text()
    assert ours(engine) == []
    tiny.replace("app/Dockerfile", "exit 7", "exit 0")
    assert tiny.lyra("build").code == 0


def test_a_secret_that_a_step_prints_is_in_no_output_and_no_log(tiny: Project) -> None:
    (tiny.root / "token.txt").write_text("s3cr3t-of-the-build\n")
    tiny.replace(".lyra.toml", CONTEXT, CONTEXT + 'secrets = { token = "token.txt" }\n')
    show = 'RUN --mount=type=secret,id=token ["/bin/sh", "-c", "cat /run/secrets/token; exit 3"]\nUSER'
    tiny.replace("app/Dockerfile", "USER", show)
    result = tiny.lyra("build")
    refused(result, 4, "***")
    tiny.replace("app/Dockerfile", "exit 3", "exit 0")
    second = tiny.lyra("build", "--no-cache")
    assert second.code == 0, second.text
    assert "***" in second.err
    assert "s3cr3t" not in result.text + second.text
    kept = [path for folder in (tiny.root / ".lyra", tiny.state) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "_build.log" for path in kept)
    assert [path for path in kept if b"s3cr3t" in path.read_bytes()] == []


def test_a_build_secret_that_is_missing_is_named(tiny: Project) -> None:
    tiny.replace(".lyra.toml", CONTEXT, CONTEXT + 'secrets = { token = "token.txt" }\n')
    refused(tiny.lyra("build"), 2, "images.web.secrets.token", "token.txt")


def test_what_the_good_half_of_a_failed_build_left_is_removed_by_clean(tiny: Project, engine: Engine) -> None:
    tiny.replace(".lyra.toml", CONTEXT, CONTEXT + '\n[images.slow]\ncontext = "slow"\n')
    (tiny.root / "slow").mkdir()
    (tiny.root / "slow" / "bin").symlink_to("../app/bin")
    waits = 'FROM scratch\nCOPY --from=tools /bin /bin\nRUN ["/bin/sh", "-c", "sleep 3; exit 1"]\n'
    (tiny.root / "slow" / "Dockerfile").write_text(f"FROM scratch AS tools\nCOPY bin /bin\n{waits}")
    (tiny.root / "slow" / "bin").unlink()
    (tiny.root / "slow" / "bin").mkdir()
    for path in sorted((tiny.root / "app" / "bin").iterdir()):
        (tiny.root / "slow" / "bin" / path.name).write_bytes(path.read_bytes())
        (tiny.root / "slow" / "bin" / path.name).chmod(0o755)
    refused(tiny.lyra("build"), 4, "slow")
    left = ours(engine)
    assert [name for name in left if name.startswith("tiny/web:")], "the fault is not made: nothing was left"
    tiny.clean()
    assert ours(engine) == []
