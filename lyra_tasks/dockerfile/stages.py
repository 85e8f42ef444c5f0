"""What building a target of a Dockerfile goes through: its stages, and the images that must come from outside."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lyra_tasks.dockerfile.parse import Dockerfile, ImageUse, Stage, dockerfile_error
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.ports import ContainerPort
from lyra_tasks.ports import parse_port as parse_port

# BuildKit gives these a value without an ARG; the caller passes those it knows.
_PLATFORM_ARGUMENTS = {
    f"{side}{part}" for side in ("TARGET", "BUILD") for part in ("PLATFORM", "OS", "ARCH", "VARIANT")
}


@dataclass(frozen=True)
class CheckStage:
    """A stage that is built as a check: the names of the stages to run anew, and whether it holds results alone."""

    no_cache_filter: tuple[str, ...]
    is_results_only: bool


def list_base_images(
    dockerfile: Dockerfile, target: str = "", args: Mapping[str, str] | None = None
) -> tuple[ImageUse, ...]:
    """The images that building `target` (default: the last stage) needs from outside, in the order they are named.

    `args` override the defaults of global ARGs. ConfigurationError for an unknown target or a FROM that stays empty.
    """
    _, uses = _collect_stages(dockerfile, target, args or {})
    uses_by_key = {(use.line, use.reference, use.platform): use for use in uses if use.reference != "scratch"}
    return tuple(uses_by_key[key] for key in sorted(uses_by_key))


def resolve_check_stage(
    dockerfile: Dockerfile, stage: str, shipped_target: str, args: Mapping[str, str] | None = None
) -> CheckStage:
    """How `stage` is built as a check of the image whose target is `shipped`.

    A stage that is `FROM scratch` and has no RUN holds results: what they are copied from runs anew as well. What the
    image itself is made of never does, nor do stages below, such as one that installs a test tool.
    """
    index = _find_target(dockerfile, stage)
    check_stage = dockerfile.stages[index]
    is_results_only = check_stage.base.reference == "scratch" and not check_stage.has_run
    stage_indexes = {index}
    if is_results_only:
        source_indexes = (_find_source_stage(dockerfile.stages, source) for source in check_stage.sources)
        stage_indexes |= {source_index for source_index in source_indexes if source_index is not None}
    stage_indexes -= _collect_stages(dockerfile, shipped_target, args or {})[0]
    names = (dockerfile.stages[stage_index].name for stage_index in sorted(stage_indexes))
    return CheckStage(tuple(name for name in names if name), is_results_only)


def _collect_stages(dockerfile: Dockerfile, target: str, args: Mapping[str, str]) -> tuple[set[int], list[ImageUse]]:
    """The stages that building `target` goes through, and every image that these name and that is not one of them."""
    environment = _global_arguments(dockerfile, args)
    bases = [_expand_base(stage.base, environment, dockerfile.escape) for stage in dockerfile.stages]
    image_uses: list[ImageUse] = []
    pending, visited = [_find_target(dockerfile, target)], set[int]()
    while pending:
        index = pending.pop()
        if index in visited:
            continue
        visited.add(index)
        base_stage = _find_stage(dockerfile.stages[:index], bases[index].reference)
        uses = [(bases[index], base_stage)]
        # like BuildKit, which takes an image for the platform of the stage that copies from it
        platform = _stage_platform(dockerfile, bases, index)
        uses += [
            (replace(source, platform=platform), _find_source_stage(dockerfile.stages, source))
            for source in dockerfile.stages[index].sources
        ]
        for use, stage_index in uses:
            if stage_index is not None:
                pending.append(stage_index)
            else:
                image_uses.append(use)
    return visited, image_uses


def _stage_platform(dockerfile: Dockerfile, bases: Sequence[ImageUse], index: int) -> str:
    """What a stage is built for: what its FROM says, else that of the stage it stands on; empty for the target's."""
    if bases[index].platform:
        return bases[index].platform
    base_stage = _find_stage(dockerfile.stages[:index], bases[index].reference)
    return "" if base_stage is None else _stage_platform(dockerfile, bases, base_stage)


def resolve_stage_chain(
    dockerfile: Dockerfile, target: str = "", args: Mapping[str, str] | None = None
) -> tuple[tuple[Stage, ...], str]:
    """The stages that `target` (default: the last) is built on, itself last, and the image that the first begins with.

    ConfigurationError for an unknown target or a FROM that stays empty.
    """
    environment = _global_arguments(dockerfile, args or {})
    index: int | None = _find_target(dockerfile, target)
    chain: list[Stage] = []
    base = ""
    while index is not None:
        chain.insert(0, dockerfile.stages[index])
        base = _expand_base(chain[0].base, environment, dockerfile.escape).reference
        index = _find_stage(dockerfile.stages[:index], base)
    return tuple(chain), base


def _global_arguments(dockerfile: Dockerfile, args: Mapping[str, str]) -> dict[str, str]:
    from e2b_dockerfile_utils import ShellLex

    values = {name: args[name] for name in _PLATFORM_ARGUMENTS if name in args}
    for name, default in dockerfile.arguments:
        if name in args:
            values[name] = args[name]
        elif default is not None:
            lexer = ShellLex(dockerfile.escape, env=values, skip_unset_env=False)
            values[name] = _expand_word(lexer.process_word, default, str(dockerfile.path))
    return values


def _expand_base(base: ImageUse, environment: Mapping[str, str], escape: str) -> ImageUse:
    from e2b_dockerfile_utils import ShellLex

    lexer = ShellLex(escape, env=environment, skip_unset_env=False)
    reference = _expand_word(lexer.process_word, base.reference, base.location)
    if not reference:
        raise ConfigurationError(
            f"{base.location}: FROM {base.reference} names no image",
            hint="give the ARG a default before the first FROM, or a value in `args` of the image",
        )
    return replace(base, reference=reference, platform=_expand_word(lexer.process_word, base.platform, base.location))


def _expand_word(process: Callable[[str], str], word: str, location: str) -> str:
    try:
        return process(word)
    except ValueError as error:
        raise dockerfile_error(location, str(error)) from error


def _find_target(dockerfile: Dockerfile, target: str) -> int:
    if not target:
        return len(dockerfile.stages) - 1
    index = _find_stage(dockerfile.stages, target)
    if index is None and target.isdecimal() and int(target) < len(dockerfile.stages):
        index = int(target)
    if index is None:
        names = ", ".join(stage.name for stage in dockerfile.stages if stage.name) or "none has a name"
        raise ConfigurationError(f"{dockerfile.path}: has no stage named {target!r}", hint=f"its stages are: {names}")
    return index


def _find_stage(stages: Sequence[Stage], name: str) -> int | None:
    """The last of `stages` with this name; BuildKit does not care about case."""
    matches = [index for index, stage in enumerate(stages) if stage.name and stage.name.lower() == name.lower()]
    return matches[-1] if matches else None


def _find_source_stage(stages: Sequence[Stage], source: ImageUse) -> int | None:
    if not source.reference.isdecimal():
        return _find_stage(stages, source.reference)
    index = int(source.reference)
    if index >= len(stages):
        raise dockerfile_error(source.location, f"there is no stage {index}; they are counted from 0")
    return index


@dataclass(frozen=True)
class DeclaredVariable:
    """One variable that an image sets: None for a value that only a build knows; `comment` stands above it."""

    value: str | None
    comment: str
    line: int


@dataclass(frozen=True)
class DeclaredImage:
    """What the Dockerfile says of the image; what its base declares besides is not in it.

    `ports` are numbers of TCP ports, and UDP ports such as `53/udp`; `health` is the command of its HEALTHCHECK, `base`
    the reference of its FROM.
    """

    base: str
    user: str
    workdir: str
    environment: Mapping[str, DeclaredVariable] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    healthcheck: tuple[str, ...] = ()


def resolve_declared_image(
    dockerfile: Dockerfile, target: str = "", args: Mapping[str, str] | None = None
) -> DeclaredImage:
    """The shape of the image that building `target` (default: the last stage) makes.

    ConfigurationError for an unknown target.
    """
    chain, base = resolve_stage_chain(dockerfile, target, args)
    user = workdir = ""
    environment: dict[str, DeclaredVariable] = {}
    volumes: list[str] = []
    ports: list[ContainerPort] = []
    healthcheck: tuple[str, ...] = ()
    for stage in chain:
        variables = _stage_variables(dockerfile, stage, environment, args or {})
        for assignment in stage.assignments:
            value = _expand_variables(assignment.value, variables, dockerfile.escape)
            if value is not None:
                variables[assignment.name] = value
            environment[assignment.name] = DeclaredVariable(
                value, find_comment_above(dockerfile.lines, assignment.line), assignment.line
            )
        volumes += [
            path for volume in stage.volumes if (path := _expand_variables(volume, variables, dockerfile.escape))
        ]
        ports += [
            port
            for exposed_port in stage.ports
            for port in _parse_ports(_expand_variables(exposed_port, variables, dockerfile.escape) or "")
        ]
        user = (_expand_variables(stage.user, variables, dockerfile.escape) or "") if stage.user else user
        workdir = posixpath.join(workdir or "/", _expand_variables(stage.workdir, variables, dockerfile.escape) or "")
        healthcheck = stage.healthcheck or healthcheck
    return DeclaredImage(
        base,
        user,
        posixpath.normpath(workdir),
        environment,
        tuple(dict.fromkeys(posixpath.normpath(path) for path in volumes)),
        tuple(dict.fromkeys(ports)),
        healthcheck[1:] if healthcheck[:1] == ("CMD",) else (),
    )


def find_comment_above(lines: Sequence[str], line_number: int) -> str:
    """The comment that ends on the line before line `number` (counted from 1), as one line of text."""
    comment_lines: list[str] = []
    for line in reversed(lines[: line_number - 1]):
        text = line.strip()
        if not text.startswith("#") or "=" in text.split(" ")[0] or text.lower().startswith(("# syntax", "# escape")):
            break
        comment_lines.insert(0, text.lstrip("# ").rstrip())
    return " ".join(text for text in comment_lines if text)


def _stage_variables(
    dockerfile: Dockerfile, stage: Stage, environment: Mapping[str, DeclaredVariable], args: Mapping[str, str]
) -> dict[str, str]:
    """The values that variables have in a stage, as far as the Dockerfile and `args` say."""
    variables = {name: variable.value for name, variable in environment.items() if variable.value is not None}
    global_arguments = dict(dockerfile.arguments)
    for name, default in stage.arguments:
        value = args.get(name, default if default is not None else global_arguments.get(name))
        if value is not None and name not in variables:
            variables[name] = _expand_variables(value, variables, dockerfile.escape) or ""
    return variables


def _expand_variables(word: str, variables: Mapping[str, str], escape: str) -> str | None:
    """A word with its quotes and variables resolved; None if a variable is not known."""
    from e2b_dockerfile_utils import ShellLex

    try:
        unset_removed, unset_kept = (
            ShellLex(escape, env=variables, skip_unset_env=skip).process_word(word) for skip in (False, True)
        )
    except ValueError:
        return None
    return unset_removed if unset_removed == unset_kept else None


def _parse_ports(word: str) -> list[ContainerPort]:
    """The ports of one word of EXPOSE: `80`, `80/tcp`, `8000-8003`, `53/udp`; none of another protocol."""
    numbers, _, protocol = word.lower().partition("/")
    first, _, last = numbers.partition("-")
    last = last or first
    if protocol not in {"", "tcp", "udp"} or not (first + last).isascii() or not (first.isdigit() and last.isdigit()):
        return []
    port_range = range(max(int(first), 1), min(int(last), 65535) + 1)[:16]
    return [parse_port(f"{number}/{protocol}") for number in port_range]
