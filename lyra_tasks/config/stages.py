"""What an image built from a Dockerfile will declare: a stage together with those that it is built on."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lyra_tasks.config.dockerfile import Dockerfile, Stage
from lyra_tasks.config.ports import AnyPort
from lyra_tasks.config.ports import read as read_port
from lyra_tasks.config.targets import stage_chain


@dataclass(frozen=True)
class Declared:
    """One variable that an image sets: None for a value that only a build knows; `comment` stands above it."""

    value: str | None
    comment: str
    line: int


@dataclass(frozen=True)
class Shape:
    """What the Dockerfile says of the image; what its base declares besides is not in it.

    `ports` are numbers of TCP ports, and UDP ports such as `53/udp`; `health` is the command of its HEALTHCHECK, `base`
    the reference of its FROM.
    """

    base: str
    user: str
    workdir: str
    environment: Mapping[str, Declared] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    ports: tuple[AnyPort, ...] = ()
    health: tuple[str, ...] = ()


def shape(dockerfile: Dockerfile, target: str = "", args: Mapping[str, str] | None = None) -> Shape:
    """The shape of the image that building `target` (default: the last stage) makes.

    ConfigurationError for an unknown target.
    """
    chain, base = stage_chain(dockerfile, target, args)
    user = workdir = ""
    environment: dict[str, Declared] = {}
    volumes: list[str] = []
    ports: list[AnyPort] = []
    health: tuple[str, ...] = ()
    for stage in chain:
        known = _known(dockerfile, stage, environment, args or {})
        for each in stage.assignments:
            value = _expand(each.value, known, dockerfile.escape)
            if value is not None:
                known[each.name] = value
            environment[each.name] = Declared(value, comment_above(dockerfile.lines, each.line), each.line)
        volumes += [path for each in stage.volumes if (path := _expand(each, known, dockerfile.escape))]
        ports += [port for each in stage.ports for port in _ports(_expand(each, known, dockerfile.escape) or "")]
        user = (_expand(stage.user, known, dockerfile.escape) or "") if stage.user else user
        workdir = posixpath.join(workdir or "/", _expand(stage.workdir, known, dockerfile.escape) or "")
        health = stage.health or health
    return Shape(
        base,
        user,
        posixpath.normpath(workdir),
        environment,
        tuple(dict.fromkeys(posixpath.normpath(each) for each in volumes)),
        tuple(dict.fromkeys(ports)),
        health[1:] if health[:1] == ("CMD",) else (),
    )


def comment_above(lines: Sequence[str], number: int) -> str:
    """The comment that ends on the line before line `number` (counted from 1), as one line of text."""
    found: list[str] = []
    for line in reversed(lines[: number - 1]):
        text = line.strip()
        if not text.startswith("#") or "=" in text.split(" ")[0] or text.lower().startswith(("# syntax", "# escape")):
            break
        found.insert(0, text.lstrip("# ").rstrip())
    return " ".join(each for each in found if each)


def _known(
    dockerfile: Dockerfile, stage: Stage, environment: Mapping[str, Declared], args: Mapping[str, str]
) -> dict[str, str]:
    """The values that variables have in a stage, as far as the Dockerfile and `args` say."""
    known = {name: each.value for name, each in environment.items() if each.value is not None}
    before = dict(dockerfile.arguments)
    for name, default in stage.arguments:
        value = args.get(name, default if default is not None else before.get(name))
        if value is not None and name not in known:
            known[name] = _expand(value, known, dockerfile.escape) or ""
    return known


def _expand(word: str, known: Mapping[str, str], escape: str) -> str | None:
    """A word with its quotes and variables resolved; None if a variable is not known."""
    from e2b_dockerfile_utils import ShellLex

    try:
        plain, marked = (ShellLex(escape, env=known, skip_unset_env=skip).process_word(word) for skip in (False, True))
    except ValueError:
        return None
    return plain if plain == marked else None


def _ports(word: str) -> list[AnyPort]:
    """The ports of one word of EXPOSE: `80`, `80/tcp`, `8000-8003`, `53/udp`; none of another protocol."""
    numbers, _, protocol = word.lower().partition("/")
    first, _, last = numbers.partition("-")
    last = last or first
    if protocol not in {"", "tcp", "udp"} or not (first + last).isascii() or not (first.isdigit() and last.isdigit()):
        return []
    found = range(max(int(first), 1), min(int(last), 65535) + 1)[:16]
    return [read_port(f"{number}/{protocol}") for number in found]
