"""What building a target of a Dockerfile goes through: its stages, and the images that must come from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lyra_tasks.config.dockerfile import Dockerfile, From, Stage, dockerfile_fault
from lyra_tasks.errors import ConfigurationError

# BuildKit gives these a value without an ARG; the caller passes those it knows.
_PLATFORM_ARGUMENTS = {
    f"{side}{part}" for side in ("TARGET", "BUILD") for part in ("PLATFORM", "OS", "ARCH", "VARIANT")
}


@dataclass(frozen=True)
class CheckedStage:
    """A stage that is built as a check: the names of the stages to run anew, and whether it holds results alone."""

    anew: tuple[str, ...]
    results: bool


def external_bases(dockerfile: Dockerfile, target: str = "", args: Mapping[str, str] | None = None) -> tuple[From, ...]:
    """The images that building `target` (default: the last stage) needs from outside, in the order they are named.

    `args` override the defaults of global ARGs. ConfigurationError for an unknown target or a FROM that stays empty.
    """
    _, uses = _reached(dockerfile, target, args or {})
    found = {(use.line, use.reference, use.platform): use for use in uses if use.reference != "scratch"}
    return tuple(found[key] for key in sorted(found))


def checked_stage(
    dockerfile: Dockerfile, stage: str, shipped: str, args: Mapping[str, str] | None = None
) -> CheckedStage:
    """How `stage` is built as a check of the image whose target is `shipped`.

    A stage that is `FROM scratch` and has no RUN holds results: what they are copied from runs anew as well. What the
    image itself is made of never does, nor do stages below, such as one that installs a test tool.
    """
    index = _target(dockerfile, stage)
    own = dockerfile.stages[index]
    results = own.base.reference == "scratch" and not own.runs
    chosen = {index}
    if results:
        sources = (_stage_of_source(dockerfile.stages, each) for each in own.sources)
        chosen |= {source for source in sources if source is not None}
    chosen -= _reached(dockerfile, shipped, args or {})[0]
    names = (dockerfile.stages[each].name for each in sorted(chosen))
    return CheckedStage(tuple(name for name in names if name), results)


def _reached(dockerfile: Dockerfile, target: str, args: Mapping[str, str]) -> tuple[set[int], list[From]]:
    """The stages that building `target` goes through, and every image that these name and that is not one of them."""
    environment = _environment(dockerfile, args)
    bases = [_expanded(stage.base, environment, dockerfile.escape) for stage in dockerfile.stages]
    outside: list[From] = []
    waiting, seen = [_target(dockerfile, target)], set[int]()
    while waiting:
        index = waiting.pop()
        if index in seen:
            continue
        seen.add(index)
        own = _stage_named(dockerfile.stages[:index], bases[index].reference)
        uses = [(bases[index], own)]
        # like BuildKit, which takes an image for the platform of the stage that copies from it
        platform = _platform(dockerfile, bases, index)
        uses += [
            (replace(each, platform=platform), _stage_of_source(dockerfile.stages, each))
            for each in dockerfile.stages[index].sources
        ]
        for use, stage in uses:
            if stage is not None:
                waiting.append(stage)
            else:
                outside.append(use)
    return seen, outside


def _platform(dockerfile: Dockerfile, bases: Sequence[From], index: int) -> str:
    """What a stage is built for: what its FROM says, else that of the stage it stands on; empty for the target's."""
    if bases[index].platform:
        return bases[index].platform
    below = _stage_named(dockerfile.stages[:index], bases[index].reference)
    return "" if below is None else _platform(dockerfile, bases, below)


def stage_chain(
    dockerfile: Dockerfile, target: str = "", args: Mapping[str, str] | None = None
) -> tuple[tuple[Stage, ...], str]:
    """The stages that `target` (default: the last) is built on, itself last, and the image that the first begins with.

    ConfigurationError for an unknown target or a FROM that stays empty.
    """
    environment = _environment(dockerfile, args or {})
    index: int | None = _target(dockerfile, target)
    chain: list[Stage] = []
    base = ""
    while index is not None:
        chain.insert(0, dockerfile.stages[index])
        base = _expanded(chain[0].base, environment, dockerfile.escape).reference
        index = _stage_named(dockerfile.stages[:index], base)
    return tuple(chain), base


def _environment(dockerfile: Dockerfile, args: Mapping[str, str]) -> dict[str, str]:
    from e2b_dockerfile_utils import ShellLex

    values = {name: args[name] for name in _PLATFORM_ARGUMENTS if name in args}
    for name, default in dockerfile.arguments:
        if name in args:
            values[name] = args[name]
        elif default is not None:
            lexer = ShellLex(dockerfile.escape, env=values, skip_unset_env=False)
            values[name] = _worded(lexer.process_word, default, str(dockerfile.path))
    return values


def _expanded(base: From, environment: Mapping[str, str], escape: str) -> From:
    from e2b_dockerfile_utils import ShellLex

    lexer = ShellLex(escape, env=environment, skip_unset_env=False)
    reference = _worded(lexer.process_word, base.reference, base.where)
    if not reference:
        raise ConfigurationError(
            f"{base.where}: FROM {base.reference} names no image",
            hint="give the ARG a default before the first FROM, or a value in `args` of the image",
        )
    return replace(base, reference=reference, platform=_worded(lexer.process_word, base.platform, base.where))


def _worded(process: Callable[[str], str], word: str, place: str) -> str:
    try:
        return process(word)
    except ValueError as error:
        raise dockerfile_fault(place, str(error)) from error


def _target(dockerfile: Dockerfile, target: str) -> int:
    if not target:
        return len(dockerfile.stages) - 1
    index = _stage_named(dockerfile.stages, target)
    if index is None and target.isdecimal() and int(target) < len(dockerfile.stages):
        index = int(target)
    if index is None:
        known = ", ".join(stage.name for stage in dockerfile.stages if stage.name) or "none has a name"
        raise ConfigurationError(f"{dockerfile.path}: has no stage named {target!r}", hint=f"its stages are: {known}")
    return index


def _stage_named(stages: Sequence[Stage], name: str) -> int | None:
    """The last of `stages` with this name; BuildKit does not care about case."""
    matches = [index for index, stage in enumerate(stages) if stage.name and stage.name.lower() == name.lower()]
    return matches[-1] if matches else None


def _stage_of_source(stages: Sequence[Stage], source: From) -> int | None:
    if not source.reference.isdecimal():
        return _stage_named(stages, source.reference)
    index = int(source.reference)
    if index >= len(stages):
        raise dockerfile_fault(source.where, f"there is no stage {index}; they are counted from 0")
    return index
