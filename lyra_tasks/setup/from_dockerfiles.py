"""Dockerfiles as drafts of images: which of several variants is meant, what its context is, which stage is shipped."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from lyra_tasks.config.dockerfile import Dockerfile
from lyra_tasks.setup.draft import DraftImage, DraftService, free_name, name_of
from lyra_tasks.setup.facts import Facts

_DEVELOPMENT = {"dev", "develop", "development", "local", "debug"}
_CHECKING = {"test", "tests", "ci", "lint", "e2e"}
_PRODUCTION = {"prod", "production", "release", "final", "runtime"}
_NO_NAME = {"docker", ".docker", "dockerfiles", "build", "deploy", "src", "app"}


def drafts(facts: Facts) -> tuple[list[DraftImage], list[DraftService], list[str]]:
    """One image and one service per Dockerfile that is meant for production, and notes about the others."""
    images: list[DraftImage] = []
    notes: list[str] = []
    chosen, left_out = _chosen(facts.dockerfiles)
    for path, why in left_out:
        notes.append(f"{path} was left out: {why}")
    for path in chosen:
        image = _image(path, facts)
        image.name = free_name(image.name, {each.name for each in images})
        images.append(image)
    return images, [DraftService(each.name, image=each.name) for each in images], notes


def choose_stages(image: DraftImage, dockerfile: Dockerfile) -> None:
    """Name the stage that is shipped, where the last one is for development or tests, and the one to develop in."""
    names = [stage.name for stage in dockerfile.stages]
    if not image.dev_target:
        image.dev_target = next((name for name in names if name.lower() in _DEVELOPMENT), "")
    if image.target or names[-1].lower() not in _DEVELOPMENT | _CHECKING:
        return
    shipped = [name for name in names if name.lower() in _PRODUCTION]
    image.target = (
        shipped or [name for name in names if name.lower() not in _DEVELOPMENT | _CHECKING and name] or [""]
    )[-1]


def _chosen(paths: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The Dockerfiles that images are made of, and the others with the reason."""
    by_folder: dict[str, dict[str, str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        by_folder.setdefault(folder, {})[path] = _variant(name)
    chosen: list[str] = []
    left_out: list[tuple[str, str]] = []
    for variants in by_folder.values():
        production = next((path for path, variant in variants.items() if variant in _PRODUCTION), None)
        for path, variant in variants.items():
            if variant in _DEVELOPMENT:
                left_out.append((path, "it is for development; make it a stage of the other, for `dev_target`"))
            elif variant in _CHECKING:
                left_out.append((path, "it is for tests"))
            elif variant == "" and production:
                left_out.append((path, f"{production} is what production gets"))
            else:
                chosen.append(path)
    return sorted(chosen), left_out


def _variant(name: str) -> str:
    """What tells one Dockerfile of a folder from the others: `dev` of `Dockerfile.dev`, `web` of `web.Dockerfile`."""
    match = re.fullmatch(r"(?:Dockerfile|Containerfile)(?:[._-](.+))?|(.+)\.[Dd]ockerfile", name)
    return ((match[1] or match[2] or "") if match else "").lower()


def _image(path: str, facts: Facts) -> DraftImage:
    folder, _, file = path.rpartition("/")
    context, missing = _context(folder or ".", facts.dockerfiles[path], facts)
    variant = _variant(file)
    if variant and variant not in _PRODUCTION:
        name = name_of(variant)
    else:
        parts = [part for part in folder.split("/") if part and part not in _NO_NAME]
        name = name_of(parts[-1] if parts else facts.folder)
    image = DraftImage(name, context, posixpath.relpath(path, context))
    if missing:
        image.todos.append(f"{path} copies {', '.join(missing)}, which is not in the context {context}")
    return image


def _context(folder: str, dockerfile: Dockerfile, facts: Facts) -> tuple[str, list[str]]:
    """The nearest folder, from the Dockerfile's own upwards, that holds all that it copies; else its own."""
    copied = list(dict.fromkeys(path for stage in dockerfile.stages for path in stage.copies))
    candidate = folder
    while True:
        if not _missing(candidate, copied, facts):
            return candidate, []
        if candidate == ".":
            return folder, _missing(folder, copied, facts)
        candidate = posixpath.dirname(candidate) or "."


def _missing(context: str, copied: list[str], facts: Facts) -> list[str]:
    found: list[str] = []
    for path in copied:
        if re.search(r"[$*?\[\\]", path):
            continue
        place = posixpath.normpath(posixpath.join(context, path.lstrip("/")))
        if place not in facts.files and place not in facts.folders:
            found.append(path)
    return found


def parsed(image: DraftImage, dockerfiles: Mapping[str, Dockerfile]) -> Dockerfile | None:
    """The Dockerfile of an image, if it could be read."""
    return dockerfiles.get(posixpath.normpath(posixpath.join(image.context, image.dockerfile)))
