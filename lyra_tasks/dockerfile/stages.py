"""Resolve the stages of a build target, the base images it needs and the configuration it declares."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from lyra_tasks.dockerfile.parse import Dockerfile, ImageUse, Stage, dockerfile_error
from lyra_tasks.documents import find_comment_above
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.ports import ContainerPort, parse_port

_STAGE_NUMBER = re.compile(r"[0-9]{1,9}")
# BuildKit sets these without an ARG; the caller passes the ones it knows
_PLATFORM_ARGUMENTS = {
    f"{side}{part}" for side in ("TARGET", "BUILD") for part in ("PLATFORM", "OS", "ARCH", "VARIANT")
}


@dataclass(frozen=True)
class CheckStage:
    """A stage built as a check: the stages to build without cache, and whether it only holds results."""

    no_cache_filter: tuple[str, ...]
    is_results_only: bool


def list_base_images(
    dockerfile: Dockerfile, target: str = "", args: Mapping[str, str] | None = None
) -> tuple[ImageUse, ...]:
    """Return the images needed to build `target` (a name or index, default: the last stage), in the file's order."""
    _, uses = _collect_stages(dockerfile, target, args or {})
    uses_by_key = {(use.line, use.reference, use.platform): use for use in uses if use.reference != "scratch"}
    return tuple(uses_by_key[key] for key in sorted(uses_by_key))


def resolve_check_stage(
    dockerfile: Dockerfile, stage: str, shipped_target: str, args: Mapping[str, str] | None = None
) -> CheckStage:
    """Resolve how to build `stage` as a check of the image built from `shipped_target`.

    A stage that is `FROM scratch` and has no RUN holds results; the stages it copies them from are rebuilt as well.
    Stages of the image itself and stages further below (such as one that installs a test tool) stay cached.
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
    """Return the indexes of the stages needed for `target`, and the images they use that are not stages."""
    arguments = _global_arguments(dockerfile, args)
    bases = [_expand_base(stage.base, arguments, dockerfile.escape) for stage in dockerfile.stages]
    image_uses: list[ImageUse] = []
    pending, visited = [_find_target(dockerfile, target)], set[int]()
    while pending:
        index = pending.pop()
        if index in visited:
            continue
        visited.add(index)
        base_stage = _find_stage(dockerfile.stages[:index], bases[index].reference)
        uses = [(bases[index], base_stage)]
        # BuildKit resolves an image for the platform of the stage that copies from it
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
    """Return the platform of a stage or of the stages it is based on; empty for the target platform."""
    if bases[index].platform:
        return bases[index].platform
    base_stage = _find_stage(dockerfile.stages[:index], bases[index].reference)
    return "" if base_stage is None else _stage_platform(dockerfile, bases, base_stage)


def resolve_stage_chain(
    dockerfile: Dockerfile, target: str = "", args: Mapping[str, str] | None = None
) -> tuple[tuple[Stage, ...], str]:
    """Return the stages `target` (default: the last stage) is based on, itself last, and the base of the first."""
    arguments = _global_arguments(dockerfile, args or {})
    index: int | None = _find_target(dockerfile, target)
    chain: list[Stage] = []
    base = ""
    while index is not None:
        chain.insert(0, dockerfile.stages[index])
        base = _expand_base(chain[0].base, arguments, dockerfile.escape).reference
        index = _find_stage(dockerfile.stages[:index], base)
    return tuple(chain), base


def _global_arguments(dockerfile: Dockerfile, args: Mapping[str, str]) -> dict[str, str]:
    values = {name: args[name] for name in _PLATFORM_ARGUMENTS if name in args}
    for name, default in dockerfile.arguments:
        if name in args:
            values[name] = args[name]
        elif default is not None:
            values[name] = _expand(default, values, dockerfile.escape, str(dockerfile.path))
    return values


def _expand_base(base: ImageUse, arguments: Mapping[str, str], escape: str) -> ImageUse:
    reference = _expand(base.reference, arguments, escape, base.location)
    if not reference:
        raise ConfigurationError(
            f"{base.location}: FROM {base.reference} is empty after expansion",
            hint="Set a default for the ARG before the first FROM, or a value in `args` of the image",
        )
    return replace(base, reference=reference, platform=_expand(base.platform, arguments, escape, base.location))


def _expand(word: str, variables: Mapping[str, str], escape: str, location: str) -> str:
    from e2b_dockerfile_utils import ShellLex

    try:
        return ShellLex(escape, env=variables, skip_unset_env=False).process_word(word)
    except ValueError as error:
        raise dockerfile_error(location, str(error)) from error


def _find_target(dockerfile: Dockerfile, target: str) -> int:
    if not target:
        return len(dockerfile.stages) - 1
    if (index := _find_stage(dockerfile.stages, target)) is not None:
        return index
    if _STAGE_NUMBER.fullmatch(target) and int(target) < len(dockerfile.stages):
        return int(target)
    names = ", ".join(stage.name for stage in dockerfile.stages if stage.name) or "(none is named)"
    raise ConfigurationError(f"{dockerfile.path} has no stage {target!r}", hint=f"Choose one of: {names}")


def _find_stage(stages: Sequence[Stage], name: str) -> int | None:
    """Return the index of the last stage with this name, which BuildKit compares without case."""
    matches = [index for index, stage in enumerate(stages) if stage.name and stage.name.lower() == name.lower()]
    return matches[-1] if matches else None


def _find_source_stage(stages: Sequence[Stage], source: ImageUse) -> int | None:
    if not source.reference.isdecimal():
        return _find_stage(stages, source.reference)
    index = int(source.reference)
    if index >= len(stages):
        raise dockerfile_error(source.location, f"stage {index} does not exist; stages are counted from 0")
    return index


@dataclass(frozen=True)
class DeclaredVariable:
    """A variable set by ENV: its value (None if only known during a build) and the comment above it."""

    value: str | None
    comment: str
    line: int


@dataclass(frozen=True)
class DeclaredImage:
    """The image configuration that a Dockerfile declares, without what the image in its FROM adds."""

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
    """Return the image configuration declared for `target` (default: the last stage)."""
    chain, base = resolve_stage_chain(dockerfile, target, args)
    user = workdir = ""
    environment: dict[str, DeclaredVariable] = {}
    volumes: list[str] = []
    ports: list[ContainerPort] = []
    healthcheck: tuple[str, ...] = ()
    for stage in chain:
        variables = _stage_variables(dockerfile, stage, environment, args or {})
        expand = partial(_expand_known, variables=variables, escape=dockerfile.escape)
        for assignment in stage.assignments:
            value = expand(assignment.value)
            if value is not None:
                variables[assignment.name] = value
            comment = find_comment_above(dockerfile.lines, assignment.line)
            environment[assignment.name] = DeclaredVariable(value, comment, assignment.line)
        volumes += [path for volume in stage.volumes if (path := expand(volume))]
        ports += [port for port_range in stage.ports for port in _parse_ports(expand(port_range) or "")]
        user = (expand(stage.user) or "") if stage.user else user
        workdir = posixpath.join(workdir or "/", expand(stage.workdir) or "")
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


def _stage_variables(
    dockerfile: Dockerfile, stage: Stage, environment: Mapping[str, DeclaredVariable], args: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of a stage whose values are known."""
    variables = {name: variable.value for name, variable in environment.items() if variable.value is not None}
    global_arguments = dict(dockerfile.arguments)
    for name, default in stage.arguments:
        value = args.get(name, default if default is not None else global_arguments.get(name))
        if value is not None and name not in variables:
            variables[name] = _expand_known(value, variables, dockerfile.escape) or ""
    return variables


def _expand_known(word: str, variables: Mapping[str, str], escape: str) -> str | None:
    """Expand quotes and variables; None if a variable is unknown."""
    from e2b_dockerfile_utils import ShellLex

    try:
        unset_removed, unset_kept = (
            ShellLex(escape, env=variables, skip_unset_env=skip).process_word(word) for skip in (False, True)
        )
    except ValueError:
        return None
    return unset_removed if unset_removed == unset_kept else None


def _parse_ports(word: str) -> list[ContainerPort]:
    """Parse an argument of EXPOSE: `80`, `80/tcp`, `8000-8003` or `53/udp`; other protocols are ignored."""
    numbers, _, protocol = word.lower().partition("/")
    first, _, last = numbers.partition("-")
    last = last or first
    if protocol not in {"", "tcp", "udp"} or not (first + last).isascii() or not (first.isdigit() and last.isdigit()):
        return []
    port_range = range(max(int(first), 1), min(int(last), 65535) + 1)[:16]
    return [parse_port(f"{number}/{protocol}") for number in port_range]
