"""Parse Dockerfiles into stages, without expanding variables."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.documents import read_document, shorten, translate_failures
from lyra_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from e2b_dockerfile_utils import DockerfileInstruction

_MAX_DOCKERFILE_BYTES = 1024**2
_SINGLE_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


@dataclass(frozen=True)
class ImageUse:
    """A reference to an image in a FROM, a `COPY --from=` or a `RUN --mount=...,from=`.

    `argument` is the global ARG, if the FROM is exactly `${NAME}` or `$NAME`; `platform` the value of `--platform`.
    """

    reference: str
    file: Path
    line: int
    argument: str = ""
    platform: str = ""

    @property
    def location(self) -> str:
        """Return `FILE:LINE` for messages."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Assignment:
    """A variable of an ENV instruction; quotes and variables in `value` are not expanded."""

    name: str
    value: str
    line: int


@dataclass(frozen=True)
class Stage:
    """A build stage; variables in its instructions are not expanded.

    `sources` are the images or stages of `COPY --from=` and `RUN --mount=...,from=`, `arguments` the ARGs with their
    defaults, `copied_paths` what COPY and ADD take from the build context. `healthcheck` is `NONE`, or `CMD` and words.
    """

    name: str
    base: ImageUse
    sources: tuple[ImageUse, ...] = ()
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    user: str = ""
    instructions: tuple[str, ...] = ()
    has_run: bool = False
    assignments: tuple[Assignment, ...] = ()
    arguments: tuple[tuple[str, str | None], ...] = ()
    workdir: str = ""
    healthcheck: tuple[str, ...] = ()
    copied_paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile: its global ARGs with their defaults (None: no default), stages and lines."""

    path: Path
    arguments: tuple[tuple[str, str | None], ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    lines: tuple[str, ...] = ()


def read_dockerfile(path: Path) -> Dockerfile:
    """Read a Dockerfile; ConfigurationError if BuildKit would not accept it."""
    with translate_failures(
        lambda problem: ConfigurationError(
            f"Cannot read {path}: {problem}", hint="Check `context` and `dockerfile` of the image, and save it as UTF-8"
        )
    ):
        text = read_document(path, _MAX_DOCKERFILE_BYTES).decode()
    with translate_failures(partial(dockerfile_error, str(path))):
        return _parse_dockerfile(path, text)


def _parse_dockerfile(path: Path, text: str) -> Dockerfile:
    from e2b_dockerfile_utils import DockerfileSyntaxError, parse_dockerfile_ast

    try:
        ast = parse_dockerfile_ast(text)
    except DockerfileSyntaxError as error:
        location = f"{path}:{error.line}" if error.line else str(path)
        raise dockerfile_error(location, str(error).partition(": ")[2]) from error
    arguments: list[tuple[str, str | None]] = []
    stages: list[Stage] = []
    for instruction in ast.instructions:
        if instruction.name == "FROM":
            stages.append(_begin_stage(instruction, path))
        elif stages:
            stages[-1] = _add_instruction(stages[-1], instruction, path)
        elif instruction.name == "ARG":
            arguments += map(_parse_argument, instruction.args)
        else:
            location = f"{path}:{instruction.start_line}"
            raise dockerfile_error(location, f"{instruction.name} is not allowed before the first FROM")
    if not stages:
        raise ConfigurationError(f"{path} has no FROM instruction", hint="Add at least one stage")
    return Dockerfile(path, tuple(arguments), tuple(stages), ast.escape_token, tuple(text.splitlines()))


def _begin_stage(instruction: DockerfileInstruction, path: Path) -> Stage:
    arguments = instruction.args
    has_name = len(arguments) == 3 and arguments[1].upper() == "AS"
    if not has_name and len(arguments) != 1:
        raise dockerfile_error(f"{path}:{instruction.start_line}", "FROM takes an image and optionally AS NAME")
    match = _SINGLE_VARIABLE.fullmatch(arguments[0])
    argument = (match[1] or match[2]) if match else ""
    flags = dict(flag.partition("=")[::2] for flag in instruction.flags)
    base = ImageUse(arguments[0], path, instruction.start_line, argument, flags.get("--platform", ""))
    return Stage(arguments[2] if has_name else "", base)


def _add_instruction(stage: Stage, instruction: DockerfileInstruction, path: Path) -> Stage:
    arguments = tuple(instruction.args)
    stage = replace(stage, instructions=(*stage.instructions, instruction.name))
    match instruction.name:
        case "COPY" | "RUN" | "ADD":
            names = filter(None, (_parse_source(instruction.name, flag) for flag in instruction.flags))
            sources = tuple(ImageUse(name, path, instruction.start_line) for name in names)
            copied_paths = () if instruction.name == "RUN" else _list_copied_paths(instruction)
            return replace(
                stage,
                sources=stage.sources + sources,
                has_run=stage.has_run or instruction.name == "RUN",
                copied_paths=stage.copied_paths + copied_paths,
            )
        case "ENV":
            line = instruction.start_line
            assignments = tuple(Assignment(*pair, line) for pair in zip(arguments[::3], arguments[1::3], strict=True))
            return replace(stage, assignments=stage.assignments + assignments)
        case "ARG":
            return replace(stage, arguments=stage.arguments + tuple(map(_parse_argument, arguments)))
        case "VOLUME":
            return replace(stage, volumes=stage.volumes + arguments)
        case "EXPOSE":
            return replace(stage, ports=stage.ports + arguments)
        case "USER":
            return replace(stage, user=" ".join(arguments))
        case "WORKDIR":
            return replace(stage, workdir=" ".join(arguments))
        case "HEALTHCHECK":
            if not instruction.json and len(arguments) > 1:  # the shell form, as the image configuration stores it
                arguments = (arguments[0], "/bin/sh", "-c", " ".join(arguments[1:]))
            return replace(stage, healthcheck=arguments)
    return stage


def _parse_argument(assignment: str) -> tuple[str, str | None]:
    name, equals, default = assignment.partition("=")
    return name, default if equals else None


def _list_copied_paths(instruction: DockerfileInstruction) -> tuple[str, ...]:
    """Return the paths from the build context; other stages, URLs and here-documents are left out."""
    if any(flag.startswith("--from=") for flag in instruction.flags):
        return ()
    return tuple(
        argument
        for argument in instruction.args[:-1]
        if not argument.startswith("<<") and "://" not in argument and "@" not in argument
    )


def _parse_source(instruction: str, flag: str) -> str:
    """Return the stage or image named by a flag of COPY or RUN, or an empty string."""
    name, _, value = flag.partition("=")
    if (instruction, name) == ("COPY", "--from"):
        return value
    if (instruction, name) != ("RUN", "--mount"):
        return ""
    fields = dict(field.partition("=")[::2] for field in value.split(","))
    return fields.get("from", "")


def dockerfile_error(location: str, problem: str) -> ConfigurationError:
    """Return the error for a problem at `FILE:LINE`."""
    return ConfigurationError(f"{location}: {shorten(problem)}", hint="Fix the Dockerfile")
