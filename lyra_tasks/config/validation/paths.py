"""Check paths in the configuration: they exist in the project, and no build context includes Lyra's own files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from lyra_tasks.config.models import Configuration, Image
from lyra_tasks.config.patterns import compile_patterns
from lyra_tasks.config.platforms import expand_platform
from lyra_tasks.config.service_models import ChangeRule, Dev, fixed_part
from lyra_tasks.config.validation.positions import Location
from lyra_tasks.config.validation.problems import Problem, quote_text

_PROBE_FILE = "lyra-probe/file"


def check_paths(config: Configuration, root: Path) -> Iterator[Problem]:
    """Yield the problems of all files and directories that the configuration names below `root`."""
    root = root.resolve()
    for name, image in config.images.items():
        yield from _check_image(("images", name), image, config.promotion.directory, root)
    for name, base in config.bases.items():
        if base.archive is not None:
            # Without the archive, the next source is used
            is_only_source = not (base.image or base.rootfs)
            for archive in dict.fromkeys(
                expand_platform(base.archive, platform) for platform in config.proxima.platforms
            ):
                yield from _check_file(("bases", name, "archive"), archive, root, must_exist=is_only_source)
    for name, service in config.services.items():
        for key, file in service.configs.items():
            if file.source is not None:
                yield from _check_file(("services", name, "configs", key, "source"), file.source, root)
        if service.dev is not None:
            yield from _check_on_change(
                ("services", name, "dev"), service.dev, root, has_own_image=service.image in config.images
            )
    for index, test in enumerate(config.tests):
        if test.structure is not None:
            yield from _check_file(("tests", index, "structure"), test.structure, root)
        if test.pytest is not None:
            yield from _check_suite(("tests", index, "pytest"), test.pytest, root)
        if test.junit is not None:
            yield from _check_report(("tests", index, "junit", "file"), test.junit.file, root)


def _check_suite(location: Location, path: str, root: Path) -> Iterator[Problem]:
    resolved = _resolve_inside(root, path)
    if resolved is None:
        yield _outside_project(location, path)
    elif not _exists(resolved.exists):
        yield Problem(location, f"{quote_text(path)} does not exist; name a directory or a file with tests")


def _check_report(location: Location, path: str, root: Path) -> Iterator[Problem]:
    """Yield the problems of a file that a command writes: it is removed before, and must not be something else."""
    resolved = _resolve_inside(root, path)
    if resolved is None:
        yield _outside_project(location, path)
    elif not path.endswith(".xml"):
        yield Problem(location, f"{quote_text(path)} must end with .xml; it is removed before each run")
    elif _exists(resolved.is_dir):
        yield Problem(location, f"{quote_text(path)} is a directory; name the file that the command writes")


def _check_on_change(location: Location, dev: Dev, root: Path, *, has_own_image: bool) -> Iterator[Problem]:
    """Check that rules are about files of the project, and that each can do something."""
    if not dev.sync and dev.source is not None:
        yield Problem((*location, "source"), "has no effect with sync = false; remove one of the two")
    if isinstance(dev.on_change, str) or any(isinstance(item, str) for item in dev.on_change or ()):
        if not has_own_image:
            message = "needs paths, since the service has no image of its own; write a table with paths and action"
            yield Problem((*location, "on_change"), message)
        return
    for index, rule in enumerate(dev.on_change or ()):
        if isinstance(rule, ChangeRule):
            rule_location: Location = (*location, "on_change", index)
            yield from _check_patterns(rule_location, rule, root)
            if rule.action == "sync" and rule.target is None and not dev.sync:
                yield Problem(
                    (*rule_location, "action"), '"sync" needs a target with sync = false; add a path in the container'
                )
            if rule.action == "rebuild" and not has_own_image:
                yield Problem((*rule_location, "action"), '"rebuild" needs an image of the project; write "restart"')


def _check_patterns(location: Location, rule: ChangeRule, root: Path) -> Iterator[Problem]:
    for key, patterns in (("paths", rule.paths), ("ignore", rule.ignore)):
        for number, pattern in enumerate(patterns):
            pattern_location: Location = (*location, key, number)
            if error := _pattern_error(pattern):
                yield Problem(pattern_location, f"{quote_text(pattern)} is not a pattern: {error}")
            elif _resolve_inside(root, fixed_part(pattern.removeprefix("!"))) is None:
                yield _outside_project(pattern_location, pattern)


def _pattern_error(pattern: str) -> str:
    """Return what is wrong with a pattern as in `.dockerignore`, or an empty text."""
    try:
        compile_patterns([pattern])
    except ValueError as error:
        return str(error).rpartition(": ")[2]
    return ""


def _check_image(location: Location, image: Image, promotion_directory: str, root: Path) -> Iterator[Problem]:
    context = _resolve_inside(root, image.context)
    if context is None:
        yield _outside_project((*location, "context"), image.context)
        return
    if not _exists(context.is_dir):
        yield Problem((*location, "context"), f"{quote_text(image.context)} is not a directory in the project")
        return
    dockerfile_path = PurePosixPath(image.context, image.dockerfile).as_posix()
    dockerfile = _resolve_inside(root, dockerfile_path)
    if dockerfile is None:
        yield _outside_project((*location, "dockerfile"), dockerfile_path)
    elif not _exists(dockerfile.is_file):
        yield Problem((*location, "dockerfile"), f"Dockerfile {quote_text(dockerfile_path)} does not exist")
    else:
        for directory in (".lyra", promotion_directory):
            yield from _check_excluded((*location, "context"), context, dockerfile, root / directory, directory)


def _check_file(location: Location, path: str, root: Path, *, must_exist: bool = True) -> Iterator[Problem]:
    file = _resolve_inside(root, path)
    if file is None:
        yield _outside_project(location, path)
    elif must_exist and not _exists(file.is_file):
        yield Problem(location, f"file {quote_text(path)} does not exist")


def _exists(predicate: Callable[[], bool]) -> bool:
    """Return the result of `predicate`, or False for invalid names and inaccessible directories."""
    try:
        return predicate()
    except OSError:
        return False


def _check_excluded(
    location: Location, context: Path, dockerfile: Path, directory: Path, display_name: str
) -> Iterator[Problem]:
    """Check that the context excludes a directory that Lyra writes, or each run would make the image stale."""
    directory = directory.resolve()
    if context.is_relative_to(directory):
        yield Problem(location, f"is inside {quote_text(display_name)}, where Lyra writes; move it")
    elif directory.is_relative_to(context):
        specific_file = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
        ignore_file = specific_file if specific_file.exists() else context / ".dockerignore"
        relative = directory.relative_to(context).as_posix()
        try:
            ignore_text = ignore_file.read_text(encoding="utf-8-sig") if ignore_file.is_file() else ""
            if not excludes_directory(ignore_text, relative):
                hint = f"add a line {relative} to {quote_text(ignore_file.name)}"
                yield Problem(location, f"includes {quote_text(display_name)}, where Lyra writes; {hint}")
        except (OSError, ValueError) as error:
            yield Problem(location, f"cannot read {quote_text(ignore_file.name)}: {error}")


def excludes_directory(ignore_text: str, directory: str) -> bool:
    """Return whether a `.dockerignore` excludes a directory of the context with everything that may be in it.

    Raises ValueError if a pattern is not valid.
    """
    probe_file = f"{directory}/{_PROBE_FILE}"
    patterns = compile_patterns(ignore_text.splitlines()).patterns
    reinclusions = [
        index
        for index, pattern in enumerate(patterns)
        if pattern.startswith("!")
        and (
            compile_patterns([pattern]).may_match_under(directory)
            or compile_patterns([pattern[1:]]).matches(probe_file)
        )
    ]
    remaining_patterns = patterns[reinclusions[-1] + 1 :] if reinclusions else patterns
    return compile_patterns(remaining_patterns).matches(probe_file)


def _resolve_inside(root: Path, relative_path: str) -> Path | None:
    """Resolve a path, or return None if it is outside of `root`: absolute, through `..` or a link."""
    if relative_path.startswith(("/", "~")) or "\\" in relative_path:
        return None
    try:
        path = (root / relative_path).resolve()
    except (OSError, RuntimeError):
        return None
    return path if path.is_relative_to(root) else None


def _outside_project(location: Location, path: str) -> Problem:
    return Problem(location, f"{quote_text(path)} is outside the project; use a path below the directory of .lyra.toml")
