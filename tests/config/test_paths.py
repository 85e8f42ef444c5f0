"""Test paths of the configuration: inside the project, and contexts without Lyra's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.config.load import load_config
from lyra_tasks.config.validation.paths import excludes_directory
from lyra_tasks.errors import ConfigurationError
from tests.config.conftest import MINIMAL, Project

ROOT_CONTEXT = MINIMAL + '[images.web]\ncontext = "."\n'


def problems() -> tuple[str, ...]:
    """Return the problems without the file name."""
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    return tuple(detail.removeprefix(".lyra.toml:") for detail in caught.value.details)


def test_invalid_pattern_is_shown_in_part_and_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"pattern '\[\[.*…: syntax error in pattern$") as caught:
        excludes_directory("[" * 3000, "lib")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("key", ["context", "dockerfile", "source"])
def test_link_out_of_project_is_refused(project: Project, tmp_path: Path, key: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "Dockerfile").write_text("FROM scratch\n")
    text = MINIMAL + '[images.web]\ncontext = "web"\n'
    root = project(text)
    if key == "context":
        (root / "web" / "link").symlink_to(outside)
        project(MINIMAL + '[images.web]\ncontext = "web/link"\n')
        expected = "5: images.web.context"
    elif key == "dockerfile":
        (root / "web" / "link").symlink_to(outside / "Dockerfile")
        project(text + 'dockerfile = "link"\n')
        expected = "6: images.web.dockerfile"
    else:
        (root / "web" / "link").symlink_to(outside / "Dockerfile")
        project(
            text + '[services.web]\nimage = "web"\n[services.web.configs.c]\npath = "/c"\nsource = "web/../web/link"\n'
        )
        expected = "10: services.web.configs.c.source"
    (problem,) = problems()
    assert problem.startswith(f"{expected}: ")
    assert problem.endswith("is outside the project; use a path below the directory of .lyra.toml")


def test_link_inside_project_is_followed(project: Project) -> None:
    root = project(MINIMAL + '[images.web]\ncontext = "link"\n')
    (root / "link").symlink_to("web")
    assert load_config().config.images["web"].context == "link"


def test_dockerfile_may_be_outside_context(project: Project) -> None:
    root = project(MINIMAL + '[images.web]\ncontext = "web"\ndockerfile = "../web.Dockerfile"\n')
    (root / "web.Dockerfile").write_text("FROM scratch\n")
    assert load_config().config.images["web"].dockerfile == "../web.Dockerfile"


def test_missing_archive_with_other_source_is_valid(project: Project) -> None:
    project(MINIMAL + '[bases.b]\narchive = "b.tar"\nimage = "debian:12"\n')
    assert load_config().config.bases["b"].archive == "b.tar"


def test_context_with_lyras_files_is_refused(project: Project) -> None:
    root = project(ROOT_CONTEXT)
    (root / "Dockerfile").write_text("FROM scratch\n")
    includes = '5: images.web.context: includes "{0}", where Lyra writes; add a line {0} to ".dockerignore"'
    assert problems() == (includes.format(".lyra"), includes.format("promotion"))
    (root / ".dockerignore").write_text("promotion/\n")
    assert problems() == (includes.format(".lyra"),)
    (root / ".dockerignore").write_text("promotion/\n.lyra\n")
    assert load_config().config.images["web"].context == "."


def test_ignore_file_of_dockerfile_takes_precedence(project: Project) -> None:
    root = project(ROOT_CONTEXT)
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / ".dockerignore").write_text("promotion\n.lyra\n")
    (root / "Dockerfile.dockerignore").write_text("promotion\n")
    (problem,) = problems()
    assert problem.endswith('includes ".lyra", where Lyra writes; add a line .lyra to "Dockerfile.dockerignore"')


def test_context_inside_lyras_directories_is_refused(project: Project) -> None:
    project(MINIMAL + '[images.web]\ncontext = "web"\n[promotion]\ndirectory = "."\n')
    assert problems() == ('5: images.web.context: is inside ".", where Lyra writes; move it',)


def test_configured_promotion_directory_is_checked(project: Project) -> None:
    project(MINIMAL + '[images.web]\ncontext = "web"\n[promotion]\ndirectory = "web/out"\n')
    (problem,) = problems()
    assert problem.endswith('includes "web/out", where Lyra writes; add a line out to ".dockerignore"')


def test_invalid_ignore_file_is_reported(project: Project) -> None:
    root = project(ROOT_CONTEXT)
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / ".dockerignore").write_text("[\n")
    (problem,) = problems()
    assert 'cannot read ".dockerignore"' in problem


@pytest.mark.parametrize(
    ("ignore_text", "expected"),
    [
        (".lyra", True),
        ("/.lyra/", True),
        ("**/.lyra", True),
        (".lyra/**", True),
        (".*", True),
        ("*\n!src", True),
        ("*\n!src/**/*.py", True),
        (".lyra\n!.lyra/keep", False),
        (".lyra\n!.lyra", False),
        (".lyra\n!**/*.py", False),
        ("*\n!**/*.py\n.lyra", True),
        ("*.lyra.bak", False),
        ("# .lyra", False),
        ("", False),
        ("[[a]*\n.lyra\n", True),  # Python's `re` warns of such a set
    ],
)
def test_ignore_file_excludes_directory(ignore_text: str, expected: bool) -> None:
    assert excludes_directory(ignore_text, ".lyra") is expected
