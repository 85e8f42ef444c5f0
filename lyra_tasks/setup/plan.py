"""What `init` will write, as a value: whole files, and lines that are added to ignore files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lyra_tasks.config.check_paths import leaves_out
from lyra_tasks.config.todo import OpenPoint, open_points
from lyra_tasks.errors import PreconditionError
from lyra_tasks.setup import from_compose, from_dockerfiles
from lyra_tasks.setup.complete import complete_service, shapes
from lyra_tasks.setup.draft import DraftImage, DraftService, name_of
from lyra_tasks.setup.facts import CONFIGURATION, TASKS, Facts
from lyra_tasks.setup.from_dockerfiles import parsed
from lyra_tasks.setup.render import configuration

# Each changes without the source having changed: a context that holds one is stale after every run or commit
_NO_SOURCE = (".git", ".lyra", "promotion")
_TASKS_TEXT = '''\
"""The words of lyra-tasks: `invoke --list` shows them. The program `lyra` has the same, and needs no such file."""

from lyra_tasks import namespace

# With tasks of your own beside them:
#
#   import lyra_tasks
#   namespace = lyra_tasks.collection(mine, other)

__all__ = ["namespace"]
'''


@dataclass(frozen=True)
class PlannedFile:
    """A new file with its text; or, with `adds`, the lines that a file gets at its end, which may be there already."""

    path: str
    text: str
    adds: tuple[str, ...] = ()


@dataclass(frozen=True)
class InitPlan:
    """What will be written. `kept` is there already and stays: with the configuration in it, nothing is written.

    `todos` are the open points of the configuration, `notes` what was seen and left out.
    """

    files: tuple[PlannedFile, ...]
    kept: tuple[str, ...]
    todos: tuple[OpenPoint, ...]
    notes: tuple[str, ...]

    @property
    def configured(self) -> bool:
        """Whether there is a configuration already."""
        return CONFIGURATION in self.kept


def plan(facts: Facts) -> InitPlan:
    """Plan the files for the repository; PreconditionError if there is nothing to make images of."""
    if facts.compose is None and not facts.dockerfiles and not facts.unreadable:
        raise PreconditionError(
            "there is no Dockerfile and no compose file in this folder or below",
            hint="call `init` in the folder of the project, or write a Dockerfile first",
        )
    images, services, notes, open_here = _drafted(facts)
    text = configuration(name_of(facts.folder), images, services, open_here, _origin(facts))
    files = [PlannedFile(CONFIGURATION, text), PlannedFile(TASKS, _TASKS_TEXT)]
    kept = tuple(each.path for each in files if each.path in facts.files)
    return InitPlan(
        files=(*(each for each in files if each.path not in kept), *_ignore_files(facts, images)),
        kept=kept,
        todos=open_points(text),
        notes=tuple(notes),
    )


def _drafted(facts: Facts) -> tuple[list[DraftImage], list[DraftService], list[str], list[str]]:
    notes = [f"{path} was not read" for path in facts.passed_over]
    if facts.compose is not None:
        images, services, more = from_compose.drafts(facts.compose, facts)
        used = {posixpath.normpath(posixpath.join(each.context, each.dockerfile)) for each in images}
        more += [
            f"{path} is built by no service of {facts.compose.path}" for path in facts.dockerfiles if path not in used
        ]
    else:
        images, services, more = from_dockerfiles.drafts(facts)
    more += [
        f"{path}: its `# syntax` line has every build ask a registry; where none answers, delete that line"
        for path, dockerfile in facts.dockerfiles.items()
        if re.match(r"#\s*syntax\s*=", "".join(dockerfile.lines[:1]))
    ]
    by_name = {image.name: image for image in images}
    declared = shapes(images, facts)
    written = {each.name for each in services if each.image or each.external}
    for service in (each for each in services if each.name in written):
        image = by_name.get(service.image)
        complete_service(
            service, declared.get(service.image), parsed(image, facts.dockerfiles) if image else None, facts
        )
    for service in services:
        service.depends_on = [name for name in dict.fromkeys(service.depends_on) if name in written]
    told = [note for each in services for note in each.notes]
    return (
        images,
        services,
        [*notes, *more, *told],
        [f"{why}: no image was made of it" for why in facts.unreadable.values()],
    )


def _origin(facts: Facts) -> str:
    parts = [facts.compose.path] if facts.compose else []
    count = len(facts.dockerfiles)
    if count:
        parts.append("1 Dockerfile" if count == 1 else f"{count} Dockerfiles")
    return " and ".join(parts)


def _ignore_files(facts: Facts, images: Sequence[DraftImage]) -> Iterator[PlannedFile]:
    """Contexts leave out what is no source, and git leaves out the bundles."""
    wanted: dict[str, list[str]] = {}
    for image in images:
        dockerfile = posixpath.normpath(posixpath.join(image.context, image.dockerfile))
        own = f"{dockerfile}.dockerignore"
        file = own if own in facts.files else posixpath.normpath(posixpath.join(image.context, ".dockerignore"))
        if image.context == ".":
            text = facts.texts.get(file, "")
            wanted[file] = [
                each for each in _NO_SOURCE if not leaves_out(text, each) and not _copied(each, image, facts)
            ]
    if facts.in_git and "promotion/" not in facts.texts.get(".gitignore", "").splitlines():
        wanted[".gitignore"] = ["promotion/"]
    for path, lines in wanted.items():
        if lines:
            yield PlannedFile(path, "".join(f"{line}\n" for line in lines), tuple(lines))


def _copied(folder: str, image: DraftImage, facts: Facts) -> bool:
    """Whether the Dockerfile asks for this very folder."""
    dockerfile = parsed(image, facts.dockerfiles)
    stages = dockerfile.stages if dockerfile else ()
    return any(path.strip("/").partition("/")[0] == folder for stage in stages for path in stage.copies)
