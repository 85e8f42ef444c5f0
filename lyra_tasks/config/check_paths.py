"""What the configuration names on disk stays inside the project, is there, and does not take in what Lyra writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from lyra_tasks.config.models import Configuration, Image
from lyra_tasks.config.platforms import for_platform
from lyra_tasks.config.positions import Location
from lyra_tasks.config.problems import Problem, quoted

_PROBE = "lyra-probe/file"


def check_paths(config: Configuration, root: Path) -> Iterator[Problem]:
    """Everything wrong with the files and folders that the configuration names below `root`."""
    root = root.resolve()
    for name, image in config.images.items():
        yield from _check_image(("images", name), image, config.promotion.directory, root)
    for name, base in config.bases.items():
        if base.archive is not None:
            # The next source is used where the archive is not there
            only = not (base.image or base.rootfs)
            for written in dict.fromkeys(for_platform(base.archive, each) for each in config.proxima.platforms):
                yield from _check_file(("bases", name, "archive"), written, root, must_exist=only)
    for name, service in config.services.items():
        for key, file in service.configs.items():
            yield from _check_file(("services", name, "configs", key, "source"), file.source, root)
    for number, test in enumerate(config.tests):
        if test.structure is not None:
            yield from _check_file(("tests", number, "structure"), test.structure, root)


def _check_image(at: Location, image: Image, promotion: str, root: Path) -> Iterator[Problem]:
    context = _inside(root, image.context)
    if context is None:
        yield _escapes((*at, "context"), image.context)
        return
    if not _there(context.is_dir):
        yield Problem((*at, "context"), f"{quoted(image.context)} is not a folder of the project")
        return
    written = PurePosixPath(image.context, image.dockerfile).as_posix()
    dockerfile = _inside(root, written)
    if dockerfile is None:
        yield _escapes((*at, "dockerfile"), written)
    elif not _there(dockerfile.is_file):
        yield Problem((*at, "dockerfile"), f"there is no Dockerfile {quoted(written)}")
    else:
        for folder in (".lyra", promotion):
            yield from _check_left_out((*at, "context"), context, dockerfile, root / folder, folder)


def _check_file(at: Location, written: str, root: Path, *, must_exist: bool = True) -> Iterator[Problem]:
    file = _inside(root, written)
    if file is None:
        yield _escapes(at, written)
    elif must_exist and not _there(file.is_file):
        yield Problem(at, f"there is no file {quoted(written)}")


def _there(look: Callable[[], bool]) -> bool:
    """What `look` says; nothing is there under a name that the system does not take, or where it lets nobody look."""
    try:
        return look()
    except OSError:
        return False


def _check_left_out(at: Location, context: Path, dockerfile: Path, folder: Path, written: str) -> Iterator[Problem]:
    """A context that holds `folder` must leave it out, or every run would change what is built."""
    folder = folder.resolve()
    if context.is_relative_to(folder):
        yield Problem(at, f"lies inside {quoted(written)}, which Lyra writes; move it")
        return
    if not folder.is_relative_to(context):
        return
    ignore = _ignore_file(context, dockerfile)
    inner = folder.relative_to(context).as_posix()
    try:
        left_out = leaves_out(ignore.read_text(encoding="utf-8-sig"), inner) if ignore.is_file() else False
    except (OSError, ValueError) as error:
        yield Problem(at, f"{quoted(ignore.name)} cannot be used: {error}")
        return
    if not left_out:
        yield Problem(at, f"takes in {quoted(written)}, which Lyra writes; add a line {inner} to {quoted(ignore.name)}")


def leaves_out(ignore: str, folder: str) -> bool:
    """Whether a `.dockerignore` keeps a folder, given relative to the context, and all that may be in it, out of it.

    ValueError if a pattern is not valid.
    """
    from e2b_dockerfile_utils import PatternMatcher

    probe = f"{folder}/{_PROBE}"
    patterns = PatternMatcher(ignore.splitlines()).patterns
    brings_back = [
        number
        for number, pattern in enumerate(patterns)
        if pattern.startswith("!")
        and (PatternMatcher([pattern]).may_match_under(folder) or PatternMatcher([pattern[1:]]).matches(probe))
    ]
    after = patterns[brings_back[-1] + 1 :] if brings_back else patterns
    return PatternMatcher(after).matches(probe)


def _ignore_file(context: Path, dockerfile: Path) -> Path:
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    return own if own.exists() else context / ".dockerignore"


def _inside(root: Path, written: str) -> Path | None:
    """The real path of what is written, or None if that is not below `root`: absolute, through `..` or a link."""
    if written.startswith(("/", "~")) or "\\" in written:
        return None
    try:
        path = (root / written).resolve()
    except (OSError, RuntimeError):
        return None
    return path if path.is_relative_to(root) else None


def _escapes(at: Location, written: str) -> Problem:
    return Problem(at, f"{quoted(written)} escapes the project; name a path below the folder of the configuration")
