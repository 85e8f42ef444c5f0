"""The programs and libraries that are there or not: hadolint, detect-secrets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lyra_tasks.errors import PreconditionError
from lyra_tasks.rules import images, tokens
from lyra_tasks.rules.scanning import _build_arguments


def dockerfile(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "app" / "Dockerfile"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_dockerfile_is_linted_and_what_is_ignored_in_the_projects_own_file_is_not_told(tmp_path: Path) -> None:
    bad = dockerfile(tmp_path, "FROM debian:12\nADD x /x\nRUN cd /tmp && true\n")
    look = images.check_dockerfile("web", bad, tmp_path)
    assert look.scope == "images.web"
    assert [each.split(": ")[:2] for each in look.messages] == [
        ["app/Dockerfile:2", "DL3020"],
        ["app/Dockerfile:3", "DL3003"],
    ]
    (tmp_path / ".hadolint.yaml").write_text("ignored: [DL3020, DL3003]\n")
    assert images.check_dockerfile("web", bad, tmp_path).messages == ()


def test_without_hadolint_the_rule_is_not_looked_at_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    look = images.check_dockerfile("web", dockerfile(tmp_path, "FROM debian\n"), tmp_path)
    assert look.skip_reason == "hadolint is not installed"
    assert look.messages == ()


def test_a_hadolint_that_cannot_be_used_is_a_fault_and_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "hadolint"
    program.write_text("#!/bin/sh\necho out of order >&2\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(PreconditionError, match="hadolint could not read app/Dockerfile") as caught:
        images.check_dockerfile("web", dockerfile(tmp_path, "FROM debian:12\n"), tmp_path)
    assert caught.value.details == ("out of order",)


def test_shapes_of_tokens_are_found_by_line_and_never_told_themselves() -> None:
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" + "k1L2m3N4o5P6q7R8"
    text = f"nothing\nkey: {token}\n-----BEGIN RSA " + "PRIVATE KEY-----\n"
    found = tokens.find_token_shapes([("/app/x", text), ("/app/y", "nothing at all, 127.0.0.1, password = hello\n")])
    assert found == ["/app/x:2: GitHub Token", "/app/x:3: Private Key"]
    assert token not in "".join(found)


def test_values_that_look_random_are_told_and_ordinary_ones_are_not() -> None:
    random = "Zm9vYmFyLXF1dXgtMTIzNDU2Nzg5MC1hYmNkZWY" + "9Xq7LkPzRt"
    values = {"ENV A": random, "ENV B": "http://counter:8000/path", "ENV C": "production", "ENV D": "1"}
    assert tokens.find_random_values(values) == ["ENV A: Base64 High Entropy String"]


def test_texts_wait_until_it_is_known_whose_they_are() -> None:
    texts = tokens.TextSampler()
    files = {
        "app/a.txt": b"one",
        "app/binary": b"two\0",
        "app/large": b"x" * 200_000,
        "usr/lib/python3/b.py": b"three",
        "app/node_modules/c/d.js": b"four",
        "opt/ü": "fünf".encode(),
    }
    for path, content in files.items():
        assert b"".join(texts.watch(path, iter([content[:2], content[2:]]))) == content
    assert dict(texts) == {"app/a.txt": "one", "opt/ü": "fünf"}
    texts.close()


@pytest.mark.parametrize(
    ("step", "named"),
    [
        ("ARG PASSWORD=x", [("PASSWORD", "x")]),
        ("ARG PASSWORD", []),
        ("RUN |1 PASSWORD=x /bin/sh -c make TOKEN=y # buildkit", [("PASSWORD", "x")]),
        ("RUN /bin/sh -c make TOKEN=y # buildkit", []),
        ("ENV TOKEN=y", []),
    ],
)
def test_the_history_names_arguments_and_their_values(step: str, named: list[tuple[str, str]]) -> None:
    assert _build_arguments(step) == named
