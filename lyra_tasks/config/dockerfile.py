"""A Dockerfile as it is written: its stages, and what the instructions of each say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from e2b_dockerfile_utils import DockerfileInstruction

_ONE_ARGUMENT = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


@dataclass(frozen=True)
class From:
    """One place where an image is named: a FROM, a `COPY --from=` or a `RUN --mount=…,from=`.

    `argument` is the global ARG that a FROM consists of, if it is exactly `${NAME}` or `$NAME`; `platform` is what its
    `--platform` says, empty for the one that is built for.
    """

    reference: str
    file: Path
    line: int
    argument: str = ""
    platform: str = ""

    @property
    def where(self) -> str:
        """`FILE:LINE`, as messages name it."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Assignment:
    """One variable of an ENV as it is written: quotes and other variables still stand in `value`."""

    name: str
    value: str
    line: int


@dataclass(frozen=True)
class Stage:
    """One build stage as it is written; the reference in `base` may still hold variables of global ARGs.

    `runs` is whether it has a RUN, `health` the HEALTHCHECK (`NONE`, or `CMD` and its words), `copies` what COPY and
    ADD take from the context.
    """

    name: str
    base: From
    sources: tuple[From, ...] = ()
    environment: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    user: str = ""
    instructions: tuple[str, ...] = ()
    runs: bool = False
    assignments: tuple[Assignment, ...] = ()
    arguments: tuple[tuple[str, str | None], ...] = ()
    workdir: str = ""
    health: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile: global ARGs with their defaults (None: no default), stages in order, and its text."""

    path: Path
    arguments: tuple[tuple[str, str | None], ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    lines: tuple[str, ...] = ()


def read(path: Path) -> Dockerfile:
    """Read a Dockerfile; a ConfigurationError names `FILE:LINE` of what BuildKit would not accept."""
    from e2b_dockerfile_utils import DockerfileSyntaxError, parse_dockerfile_ast

    try:
        text = path.read_text(encoding="utf-8")
        ast = parse_dockerfile_ast(text)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}", hint="check `context` and `dockerfile` of the image"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 text", hint="save it as UTF-8") from error
    except DockerfileSyntaxError as error:
        place = f"{path}:{error.line}" if error.line else str(path)
        raise dockerfile_fault(place, str(error).partition(": ")[2]) from error
    first = next((i for i, each in enumerate(ast.instructions) if each.name == "FROM"), len(ast.instructions))
    arguments = tuple(_arguments(ast.instructions[:first], path))
    stages = tuple(_stages(ast.instructions[first:], path))
    if not stages:
        raise ConfigurationError(f"{path}: has no FROM", hint="a Dockerfile needs at least one stage")
    return Dockerfile(path, arguments, stages, ast.escape_token, tuple(text.splitlines()))


def _arguments(instructions: Sequence[DockerfileInstruction], path: Path) -> Iterator[tuple[str, str | None]]:
    for each in instructions:
        if each.name != "ARG":
            raise dockerfile_fault(f"{path}:{each.start_line}", f"{each.name} stands before the first FROM")
        for name, equals, default in _parted(each.args):
            yield name, default if equals else None


def _stages(instructions: Sequence[DockerfileInstruction], path: Path) -> Iterator[Stage]:
    stage: Stage | None = None
    for each in instructions:
        if each.name == "FROM":
            if stage is not None:
                yield stage
            stage = _opened(each, path)
        elif stage is not None:
            stage = _extended(stage, each, path)
    if stage is not None:
        yield stage


def _opened(instruction: DockerfileInstruction, path: Path) -> Stage:
    words = instruction.args
    named = len(words) == 3 and words[1].upper() == "AS"
    if not named and len(words) != 1:
        raise dockerfile_fault(f"{path}:{instruction.start_line}", "FROM takes an image, and optionally AS and a name")
    match = _ONE_ARGUMENT.fullmatch(words[0])
    argument = (match[1] or match[2]) if match else ""
    flags = dict(flag.partition("=")[::2] for flag in instruction.flags)
    base = From(words[0], path, instruction.start_line, argument, flags.get("--platform", ""))
    return Stage(words[2] if named else "", base)


def _extended(stage: Stage, instruction: DockerfileInstruction, path: Path) -> Stage:
    words = tuple(instruction.args)
    stage = replace(stage, instructions=(*stage.instructions, instruction.name))
    match instruction.name:
        case "COPY" | "RUN":
            names = [name for flag in instruction.flags if (name := _source(instruction.name, flag))]
            added = tuple(From(name, path, instruction.start_line) for name in names)
            return replace(
                stage,
                sources=stage.sources + added,
                runs=stage.runs or instruction.name == "RUN",
                copies=stage.copies + _copied(instruction),
            )
        case "ADD":
            return replace(stage, copies=stage.copies + _copied(instruction))
        case "ENV":
            line = instruction.start_line
            added_here = tuple(Assignment(*pair, line) for pair in zip(words[::3], words[1::3], strict=True))
            return replace(
                stage, environment=stage.environment + words[::3], assignments=stage.assignments + added_here
            )
        case "ARG":
            named = tuple((name, value if equals else None) for name, equals, value in _parted(words))
            return replace(stage, arguments=stage.arguments + named)
        case "VOLUME":
            return replace(stage, volumes=stage.volumes + words)
        case "EXPOSE":
            return replace(stage, ports=stage.ports + words)
        case "USER":
            return replace(stage, user=" ".join(words))
        case "WORKDIR":
            return replace(stage, workdir=" ".join(words))
        case "HEALTHCHECK":
            return replace(stage, health=words if instruction.json else words[:1] + _shell(words[1:]))
    return stage


def _parted(words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for word in words:
        yield word.partition("=")


def _shell(words: tuple[str, ...]) -> tuple[str, ...]:
    """The shell form of a command, as the image's configuration has it."""
    return ("/bin/sh", "-c", " ".join(words)) if words else ()


def _copied(instruction: DockerfileInstruction) -> tuple[str, ...]:
    """The files of the context that an instruction takes: nothing of another stage, of the net or of itself."""
    if instruction.name == "RUN" or any(flag.startswith("--from=") for flag in instruction.flags):
        return ()
    return tuple(
        word for word in instruction.args[:-1] if not word.startswith("<<") and "://" not in word and "@" not in word
    )


def _source(instruction: str, flag: str) -> str:
    """The stage or image that a flag of COPY or RUN takes files from, or an empty string."""
    name, _, value = flag.partition("=")
    if instruction == "COPY":
        return value if name == "--from" else ""
    if name != "--mount":
        return ""
    fields = dict(field.partition("=")[::2] for field in value.split(","))
    return fields.get("from", "")


def dockerfile_fault(place: str, problem: str) -> ConfigurationError:
    """The error about a place in a Dockerfile, `FILE:LINE`."""
    return ConfigurationError(f"{place}: {problem}", hint="correct the Dockerfile")
