"""Optional tools: hadolint, detect-secrets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lyra_tasks.errors import PreconditionError
from lyra_tasks.rules import images, tokens


def dockerfile(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "app" / "Dockerfile"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_dockerfile_lint_respects_ignored_rules(tmp_path: Path) -> None:
    bad = dockerfile(tmp_path, "FROM debian:12\nADD x /x\nRUN cd /tmp && true\n")
    check = images.check_dockerfile("web", bad, tmp_path)
    assert check.scope == "images.web"
    assert [message.split(": ")[:2] for message in check.messages] == [
        ["app/Dockerfile:2", "DL3020"],
        ["app/Dockerfile:3", "DL3003"],
    ]
    (tmp_path / ".hadolint.yaml").write_text("ignored: [DL3020, DL3003]\n")
    assert images.check_dockerfile("web", bad, tmp_path).messages == ()


def test_dockerfile_lint_is_skipped_without_hadolint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    check = images.check_dockerfile("web", dockerfile(tmp_path, "FROM debian\n"), tmp_path)
    assert check.skip_reason == "hadolint is not installed"
    assert check.messages == ()


def test_broken_hadolint_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "hadolint"
    program.write_text("#!/bin/sh\necho out of order >&2\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(PreconditionError, match="Cannot lint app/Dockerfile") as caught:
        images.check_dockerfile("web", dockerfile(tmp_path, "FROM debian:12\n"), tmp_path)
    assert caught.value.details == ("out of order",)


def test_token_shapes_are_reported_without_the_token() -> None:
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" + "k1L2m3N4o5P6q7R8"
    text = f"nothing\nkey: {token}\n-----BEGIN RSA " + "PRIVATE KEY-----\n"
    messages = tokens.find_token_shapes([("/app/x", text), ("/app/y", "nothing at all, 127.0.0.1, password = hello\n")])
    assert messages == ["/app/x:2: GitHub Token", "/app/x:3: Private Key"]
    assert token not in "".join(messages)


def test_only_random_values_are_reported() -> None:
    random = "Zm9vYmFyLXF1dXgtMTIzNDU2Nzg5MC1hYmNkZWY" + "9Xq7LkPzRt"
    values = {"ENV A": random, "ENV B": "http://counter:8000/path", "ENV C": "production", "ENV D": "1"}
    assert tokens.find_random_values(values) == ["ENV A: Base64 High Entropy String"]


def test_text_sampler_keeps_small_own_texts() -> None:
    sampler = tokens.TextSampler()
    files = {
        "app/a.txt": b"one",
        "app/binary": b"two\0",
        "app/large": b"x" * 200_000,
        "usr/lib/python3/b.py": b"three",
        "app/node_modules/c/d.js": b"four",
        "opt/ü": "fünf".encode(),
    }
    for path, content in files.items():
        assert b"".join(sampler.watch(path, iter([content[:2], content[2:]]))) == content
    assert dict(sampler) == {"app/a.txt": "one", "opt/ü": "fünf"}
    sampler.close()


@pytest.mark.parametrize(
    ("step", "arguments"),
    [
        ("ARG PASSWORD=x", [("PASSWORD", "x")]),
        ("ARG PASSWORD", []),
        ("RUN |1 PASSWORD=x /bin/sh -c make TOKEN=y # buildkit", [("PASSWORD", "x")]),
        ("RUN /bin/sh -c make TOKEN=y # buildkit", []),
        ("ENV TOKEN=y", []),
    ],
)
def test_build_arguments_are_read_from_history(step: str, arguments: list[tuple[str, str]]) -> None:
    assert images.read_build_arguments(step) == arguments
