"""Parse Dockerfiles into stages, without expanding variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from e2b_dockerfile_utils import DockerfileInstruction

_SINGLE_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


@dataclass(frozen=True)
class ImageUse:
    """A reference to an image in a FROM, a `COPY --from=` or a `RUN --mount=...,from=`.

    Attributes:
        argument: The global ARG, if the FROM is exactly `${NAME}` or `$NAME`.
        platform: The value of `--platform`; empty for the target platform.
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

    Attributes:
        sources: Images or stages of `COPY --from=` and `RUN --mount=...,from=`.
        arguments: ARGs with their defaults (None: no default).
        healthcheck: The HEALTHCHECK: `NONE`, or `CMD` and its arguments.
        copied_paths: Paths that COPY and ADD take from the build context.
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

    @property
    def environment(self) -> tuple[str, ...]:
        """Return the names of the ENV variables."""
        return tuple(assignment.name for assignment in self.assignments)


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile: its global ARGs with their defaults (None: no default), stages and lines."""

    path: Path
    arguments: tuple[tuple[str, str | None], ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    lines: tuple[str, ...] = ()


def read_dockerfile(path: Path) -> Dockerfile:
    """Read a Dockerfile.

    Raises:
        ConfigurationError: The file cannot be read, or BuildKit would not accept it.
    """
    from e2b_dockerfile_utils import DockerfileSyntaxError, parse_dockerfile_ast

    try:
        text = path.read_text(encoding="utf-8")
        ast = parse_dockerfile_ast(text)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot read {path}: {error.strerror}", hint="Check `context` and `dockerfile` of the image"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"Cannot read {path}: not valid UTF-8", hint="Save it as UTF-8") from error
    except DockerfileSyntaxError as error:
        location = f"{path}:{error.line}" if error.line else str(path)
        raise dockerfile_error(location, str(error).partition(": ")[2]) from error
    first_from = next(
        (index for index, instruction in enumerate(ast.instructions) if instruction.name == "FROM"),
        len(ast.instructions),
    )
    arguments = tuple(_parse_global_arguments(ast.instructions[:first_from], path))
    stages = tuple(_parse_stages(ast.instructions[first_from:], path))
    if not stages:
        raise ConfigurationError(f"{path} has no FROM instruction", hint="Add at least one stage")
    return Dockerfile(path, arguments, stages, ast.escape_token, tuple(text.splitlines()))


def _parse_global_arguments(
    instructions: Sequence[DockerfileInstruction], path: Path
) -> Iterator[tuple[str, str | None]]:
    for instruction in instructions:
        if instruction.name != "ARG":
            raise dockerfile_error(
                f"{path}:{instruction.start_line}", f"{instruction.name} is not allowed before the first FROM"
            )
        yield from map(_parse_argument, instruction.args)


def _parse_stages(instructions: Sequence[DockerfileInstruction], path: Path) -> Iterator[Stage]:
    stage: Stage | None = None
    for instruction in instructions:
        if instruction.name == "FROM":
            if stage is not None:
                yield stage
            stage = _begin_stage(instruction, path)
        elif stage is not None:
            stage = _add_instruction(stage, instruction, path)
    if stage is not None:
        yield stage


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
        case "COPY" | "RUN":
            names = [name for flag in instruction.flags if (name := _parse_source(instruction.name, flag))]
            sources = tuple(ImageUse(name, path, instruction.start_line) for name in names)
            return replace(
                stage,
                sources=stage.sources + sources,
                has_run=stage.has_run or instruction.name == "RUN",
                copied_paths=stage.copied_paths + _list_copied_paths(instruction),
            )
        case "ADD":
            return replace(stage, copied_paths=stage.copied_paths + _list_copied_paths(instruction))
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
    if instruction.name == "RUN" or any(flag.startswith("--from=") for flag in instruction.flags):
        return ()
    return tuple(
        argument
        for argument in instruction.args[:-1]
        if not argument.startswith("<<") and "://" not in argument and "@" not in argument
    )


def _parse_source(instruction: str, flag: str) -> str:
    """Return the stage or image named by a flag of COPY or RUN, or an empty string."""
    name, _, value = flag.partition("=")
    if instruction == "COPY":
        return value if name == "--from" else ""
    if name != "--mount":
        return ""
    fields = dict(field.partition("=")[::2] for field in value.split(","))
    return fields.get("from", "")


def dockerfile_error(location: str, problem: str) -> ConfigurationError:
    """Return the error for a problem at `FILE:LINE`."""
    return ConfigurationError(f"{location}: {problem}", hint="Fix the Dockerfile")
