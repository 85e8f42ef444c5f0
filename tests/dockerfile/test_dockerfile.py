"""Tests of parsing Dockerfiles and resolving their stages as BuildKit does."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.config.platforms import platform_build_args
from lyra_tasks.dockerfile.parse import Dockerfile, read_dockerfile
from lyra_tasks.dockerfile.stages import CheckStage, list_base_images, resolve_check_stage, resolve_declared_image
from lyra_tasks.errors import ConfigurationError


def parse(directory: Path, text: str) -> Dockerfile:
    path = directory / "Dockerfile"
    path.write_text(text)
    return read_dockerfile(path)


def base_references(dockerfile: Dockerfile, target: str = "", **args: str) -> list[str]:
    return [base.reference for base in list_base_images(dockerfile, target, args)]


MULTI = """\
ARG VERSION=3.12
ARG SUITE=bookworm
ARG BASE=python:${VERSION}-slim-$SUITE
FROM golang:1.22 AS Tools
RUN go build
FROM ${BASE} AS build
COPY --from=tools /bin/x /bin/x
RUN --mount=type=bind,from=busybox:1.36,source=/bin,target=/mnt cat <<EOF
FROM not/an:image
EOF
FROM node:20 AS unused
FROM scratch AS empty
COPY --from=build /x /x
FROM build AS runtime
COPY --from=0 /y /y
COPY --chown=1:1 --from=alpine:3.20 /z /z
"""


def test_default_target_ignores_unreachable_stages(tmp_path: Path) -> None:
    assert base_references(parse(tmp_path, MULTI)) == [
        "golang:1.22",
        "python:3.12-slim-bookworm",
        "busybox:1.36",
        "alpine:3.20",
    ]


def test_target_needs_only_its_own_bases(tmp_path: Path) -> None:
    dockerfile = parse(tmp_path, MULTI)
    assert base_references(dockerfile, "tools") == ["golang:1.22"]
    assert base_references(dockerfile, "TOOLS") == ["golang:1.22"]
    assert base_references(dockerfile, "2") == ["node:20"]
    assert base_references(dockerfile, "empty") == ["golang:1.22", "python:3.12-slim-bookworm", "busybox:1.36"]


def test_build_arguments_override_global_defaults(tmp_path: Path) -> None:
    dockerfile = parse(tmp_path, MULTI)
    assert base_references(dockerfile, "build", VERSION="3.13")[1] == "python:3.13-slim-bookworm"
    assert base_references(dockerfile, "build", BASE="own:1")[1] == "own:1"
    assert base_references(dockerfile, "build", UNDECLARED="x")[1] == "python:3.12-slim-bookworm"


@pytest.mark.parametrize("reference", ["$BASE", "${BASE}"])
def test_from_with_a_single_argument_names_it(tmp_path: Path, reference: str) -> None:
    (base,) = list_base_images(parse(tmp_path, f"ARG BASE=a:1\nFROM {reference}\n"))
    assert (base.reference, base.argument, base.line) == ("a:1", "BASE", 2)


@pytest.mark.parametrize("reference", ["${BASE}-slim", "a:1", "${BASE:-x}"])
def test_from_with_more_than_an_argument_names_none(tmp_path: Path, reference: str) -> None:
    (base,) = list_base_images(parse(tmp_path, f"ARG BASE=a:1\nFROM {reference}\n"))
    assert base.argument == ""


def test_expansion_follows_buildkit(tmp_path: Path) -> None:
    text = 'ARG A\nARG B="x y" C=img\nFROM --platform=$BUILDPLATFORM "${C}:${A:-1}" AS one\n'
    assert base_references(parse(tmp_path, text)) == ["img:1"]
    assert base_references(parse(tmp_path, text), A="2") == ["img:2"]


def test_platform_arguments_come_from_the_build(tmp_path: Path) -> None:
    assert base_references(parse(tmp_path, "FROM base-${TARGETARCH}:1\n"), TARGETARCH="amd64") == ["base-amd64:1"]


def test_base_has_the_platform_of_its_stage(tmp_path: Path) -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM go AS tools\nFROM tools AS build\nCOPY --from=helper / /\n"
        "FROM base\nCOPY --from=build / /\nCOPY --from=files / /\n"
    )
    uses = list_base_images(parse(tmp_path, text), args=platform_build_args("linux/amd64", "linux/arm64"))
    platforms = {use.reference: use.platform for use in uses}
    assert platforms == {"go": "linux/amd64", "helper": "linux/amd64", "base": "", "files": ""}


def test_stage_shadows_an_image_for_later_stages_only(tmp_path: Path) -> None:
    assert base_references(parse(tmp_path, "FROM python AS python\nFROM python\n")) == ["python"]


def test_escape_comments_and_continuations_are_parsed(tmp_path: Path) -> None:
    text = "# escape=`\n# FROM comment:1\nFROM `\n  base:1 `\n  AS x\nRUN echo `\n# comment\n  FROM y\n"
    assert base_references(parse(tmp_path, text)) == ["base:1"]


def test_instructions_of_a_stage_are_collected(tmp_path: Path) -> None:
    text = """\
FROM base:1
ENV A=1 B="two words"
ENV OLD form of it
VOLUME ["/data", "/more"]
VOLUME /a /b
EXPOSE 80 53/udp
USER 10001:10001
"""
    (stage,) = parse(tmp_path, text).stages
    assert [assignment.name for assignment in stage.assignments] == ["A", "B", "OLD"]
    assert stage.volumes == ("/data", "/more", "/a", "/b")
    assert stage.ports == ("80", "53/udp")
    assert stage.user == "10001:10001"


def test_unknown_target_lists_the_stages(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        base_references(parse(tmp_path, MULTI), "runtim")
    assert raised.value.message == f"{tmp_path}/Dockerfile has no stage 'runtim'"
    assert raised.value.hint == "Choose one of: Tools, build, unused, empty, runtime"
    with pytest.raises(ConfigurationError, match="has no stage"):
        base_references(parse(tmp_path, MULTI), "9" * 5000)


@pytest.mark.parametrize(
    ("text", "location", "problem"),
    [
        ("FROM a\nFRUM b\n", ":2: ", "unknown instruction: FRUM"),
        ("FROM a\nRUN <<EOF\nx\n", ":2: ", "unterminated heredoc"),
        ("FROM a AS\n", ":1: ", "FROM takes an image"),
        ("\n\nFROM\n", ":3: ", "FROM takes an image"),
        ("FROM a b c\n", ":1: ", "FROM takes an image"),
        ("ARG X=1\nRUN x\nFROM a\n", ":2: ", "RUN is not allowed before the first FROM"),
        ("ARG X\nFROM $X\n", ":2: ", "FROM $X is empty after expansion"),
        ("FROM ${X\n", ":1: ", "missing '}'"),
        ("FROM ${X?needed}\n", ":1: ", "X: needed"),
        ("FROM a\nCOPY --from=7 / /\n", ":2: ", "stage 7 does not exist"),
        ("# nothing\n", " ", "has no FROM"),
        ("ARG A=${B\nFROM $A\n", ": ", "missing '}'"),
    ],
)
def test_error_has_file_and_line(tmp_path: Path, text: str, location: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        base_references(parse(tmp_path, text))
    assert raised.value.message.startswith(f"{tmp_path}/Dockerfile{location}")
    assert problem in raised.value.message


def test_unreadable_dockerfile_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Cannot read .*: No such file"):
        read_dockerfile(tmp_path / "none")
    (tmp_path / "Dockerfile").write_bytes(b"FROM a\xff\n")
    with pytest.raises(ConfigurationError, match=r"Cannot read .*: not valid UTF-8"):
        read_dockerfile(tmp_path / "Dockerfile")


CHECKED = """\
FROM debian AS base
FROM base AS tools
RUN install-a-test-tool
FROM tools AS unit
RUN run-the-tests
FROM scratch AS results
COPY --from=unit /results /
FROM scratch AS mixed
COPY --from=base /lib /lib
COPY --from=unit /results /
FROM base AS runtime
"""


@pytest.mark.parametrize(
    ("stage", "no_cache_filter", "results"),
    [
        ("unit", ("unit",), False),
        ("results", ("unit", "results"), True),
        ("mixed", ("unit", "mixed"), True),
        ("tools", ("tools",), False),
        ("runtime", (), False),
    ],
)
def test_check_stage_rebuilds_only_what_checks(
    tmp_path: Path, stage: str, no_cache_filter: tuple[str, ...], results: bool
) -> None:
    assert resolve_check_stage(parse(tmp_path, CHECKED), stage, "runtime") == CheckStage(no_cache_filter, results)


def test_scratch_stage_with_run_does_not_only_hold_results(tmp_path: Path) -> None:
    text = 'FROM scratch AS unit\nCOPY test /\nRUN ["/test"]\nFROM scratch AS web\nCOPY web /\n'
    assert resolve_check_stage(parse(tmp_path, text), "unit", "web") == CheckStage(("unit",), False)


def test_impossible_ports_are_ignored(tmp_path: Path) -> None:
    dockerfile = parse(tmp_path, "FROM alpine\nEXPOSE 0 70000 ² 65534-65600 8000/udp\n")
    assert resolve_declared_image(dockerfile).ports == (65534, 65535, "8000/udp")
