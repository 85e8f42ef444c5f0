"""Which images a Dockerfile needs from outside, as BuildKit reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.config.platforms import platform_build_args
from lyra_tasks.dockerfile.parse import Dockerfile, read_dockerfile
from lyra_tasks.dockerfile.stages import CheckStage, list_base_images, resolve_check_stage, resolve_declared_image
from lyra_tasks.errors import ConfigurationError


def parsed(folder: Path, text: str) -> Dockerfile:
    path = folder / "Dockerfile"
    path.write_text(text)
    return read_dockerfile(path)


def needed(dockerfile: Dockerfile, target: str = "", **args: str) -> list[str]:
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


def test_the_last_stage_is_the_target_and_unreachable_stages_need_nothing(tmp_path: Path) -> None:
    assert needed(parsed(tmp_path, MULTI)) == [
        "golang:1.22",
        "python:3.12-slim-bookworm",
        "busybox:1.36",
        "alpine:3.20",
    ]


def test_a_target_needs_only_what_it_is_made_from(tmp_path: Path) -> None:
    dockerfile = parsed(tmp_path, MULTI)
    assert needed(dockerfile, "tools") == ["golang:1.22"]
    assert needed(dockerfile, "TOOLS") == ["golang:1.22"]
    assert needed(dockerfile, "2") == ["node:20"]
    assert needed(dockerfile, "empty") == ["golang:1.22", "python:3.12-slim-bookworm", "busybox:1.36"]


def test_build_arguments_override_the_defaults_of_global_args(tmp_path: Path) -> None:
    dockerfile = parsed(tmp_path, MULTI)
    assert needed(dockerfile, "build", VERSION="3.13")[1] == "python:3.13-slim-bookworm"
    assert needed(dockerfile, "build", BASE="own:1")[1] == "own:1"
    assert needed(dockerfile, "build", UNDECLARED="x")[1] == "python:3.12-slim-bookworm"


@pytest.mark.parametrize("written", ["$BASE", "${BASE}"])
def test_a_from_that_is_one_argument_names_it(tmp_path: Path, written: str) -> None:
    (base,) = list_base_images(parsed(tmp_path, f"ARG BASE=a:1\nFROM {written}\n"))
    assert (base.reference, base.argument, base.line) == ("a:1", "BASE", 2)


@pytest.mark.parametrize("written", ["${BASE}-slim", "a:1", "${BASE:-x}"])
def test_a_from_that_is_more_than_one_argument_names_none(tmp_path: Path, written: str) -> None:
    (base,) = list_base_images(parsed(tmp_path, f"ARG BASE=a:1\nFROM {written}\n"))
    assert base.argument == ""


def test_substitutions_and_quotes_are_those_of_buildkit(tmp_path: Path) -> None:
    text = 'ARG A\nARG B="x y" C=img\nFROM --platform=$BUILDPLATFORM "${C}:${A:-1}" AS one\n'
    assert needed(parsed(tmp_path, text)) == ["img:1"]
    assert needed(parsed(tmp_path, text), A="2") == ["img:2"]


def test_platform_arguments_have_the_value_that_the_build_gives_them(tmp_path: Path) -> None:
    assert needed(parsed(tmp_path, "FROM base-${TARGETARCH}:1\n"), TARGETARCH="amd64") == ["base-amd64:1"]


def test_a_base_is_for_the_platform_that_its_stage_is_built_for(tmp_path: Path) -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM go AS tools\nFROM tools AS build\nCOPY --from=helper / /\n"
        "FROM base\nCOPY --from=build / /\nCOPY --from=files / /\n"
    )
    uses = list_base_images(parsed(tmp_path, text), args=platform_build_args("linux/amd64", "linux/arm64"))
    found = {each.reference: each.platform for each in uses}
    assert found == {"go": "linux/amd64", "helper": "linux/amd64", "base": "", "files": ""}


def test_a_stage_may_shadow_an_image_name_only_for_later_stages(tmp_path: Path) -> None:
    assert needed(parsed(tmp_path, "FROM python AS python\nFROM python\n")) == ["python"]


def test_escape_directive_comments_and_continuations_are_understood(tmp_path: Path) -> None:
    text = "# escape=`\n# FROM comment:1\nFROM `\n  base:1 `\n  AS x\nRUN echo `\n# comment\n  FROM y\n"
    assert needed(parsed(tmp_path, text)) == ["base:1"]


def test_what_a_stage_declares_is_kept(tmp_path: Path) -> None:
    text = """\
FROM base:1
ENV A=1 B="two words"
ENV OLD form of it
VOLUME ["/data", "/more"]
VOLUME /a /b
EXPOSE 80 53/udp
USER 10001:10001
"""
    (stage,) = parsed(tmp_path, text).stages
    assert stage.environment == ("A", "B", "OLD")
    assert stage.volumes == ("/data", "/more", "/a", "/b")
    assert stage.ports == ("80", "53/udp")
    assert stage.user == "10001:10001"


def test_an_unknown_target_names_the_file_and_the_known_stages(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        needed(parsed(tmp_path, MULTI), "runtim")
    assert caught.value.message == f"{tmp_path}/Dockerfile: has no stage named 'runtim'"
    assert caught.value.hint == "its stages are: Tools, build, unused, empty, runtime"


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("FROM a\nFRUM b\n", ":2: ", "unknown instruction: FRUM"),
        ("FROM a\nRUN <<EOF\nx\n", ":2: ", "unterminated heredoc"),
        ("FROM a AS\n", ":1: ", "FROM takes an image"),
        ("\n\nFROM\n", ":3: ", "FROM takes an image"),
        ("FROM a b c\n", ":1: ", "FROM takes an image"),
        ("ARG X=1\nRUN x\nFROM a\n", ":2: ", "RUN stands before the first FROM"),
        ("ARG X\nFROM $X\n", ":2: ", "FROM $X names no image"),
        ("FROM ${X\n", ":1: ", "missing '}'"),
        ("FROM ${X?needed}\n", ":1: ", "X: needed"),
        ("FROM a\nCOPY --from=7 / /\n", ":2: ", "there is no stage 7"),
        ("# nothing\n", ": ", "has no FROM"),
        ("ARG A=${B\nFROM $A\n", ": ", "missing '}'"),
    ],
)
def test_a_fault_is_reported_with_file_and_line(tmp_path: Path, text: str, place: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        needed(parsed(tmp_path, text))
    assert caught.value.message.startswith(f"{tmp_path}/Dockerfile{place}")
    assert problem in caught.value.message


def test_a_missing_or_unreadable_file_is_a_configuration_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_dockerfile(tmp_path / "none")
    (tmp_path / "Dockerfile").write_bytes(b"FROM a\xff\n")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
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
    ("stage", "anew", "results"),
    [
        ("unit", ("unit",), False),
        ("results", ("unit", "results"), True),
        ("mixed", ("unit", "mixed"), True),
        ("tools", ("tools",), False),
        ("runtime", (), False),
    ],
)
def test_of_a_stage_that_is_a_check_only_what_checks_runs_anew(
    tmp_path: Path, stage: str, anew: tuple[str, ...], results: bool
) -> None:
    assert resolve_check_stage(parsed(tmp_path, CHECKED), stage, "runtime") == CheckStage(anew, results)


def test_a_stage_from_scratch_that_runs_something_is_no_mere_folder_of_results(tmp_path: Path) -> None:
    text = 'FROM scratch AS unit\nCOPY test /\nRUN ["/test"]\nFROM scratch AS web\nCOPY web /\n'
    assert resolve_check_stage(parsed(tmp_path, text), "unit", "web") == CheckStage(("unit",), False)


def test_ports_that_no_container_can_have_are_none(tmp_path: Path) -> None:
    dockerfile = parsed(tmp_path, "FROM alpine\nEXPOSE 0 70000 ² 65534-65600 8000/udp\n")
    assert resolve_declared_image(dockerfile).ports == (65534, 65535, "8000/udp")
