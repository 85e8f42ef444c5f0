"""Paths on disk: nothing leaves the project, and no build takes in what Lyra writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.config.load import load_config
from lyra_tasks.config.validation.paths import excludes_directory
from lyra_tasks.errors import ConfigurationError

Project = Callable[[str], Path]
HEAD = 'schema = 1\n[project]\nname = "guestbook"\n'
ROOT_CONTEXT = HEAD + '[images.web]\ncontext = "."\n'


def problems(run: Callable[[], object] = load_config) -> tuple[str, ...]:
    """What is wrong, without the file's name."""
    with pytest.raises(ConfigurationError) as caught:
        run()
    return tuple(detail.removeprefix(".lyra.toml:") for detail in caught.value.details)


@pytest.mark.parametrize("where", ["context", "dockerfile", "source"])
def test_a_link_out_of_the_project_is_refused(project: Project, tmp_path: Path, where: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "Dockerfile").write_text("FROM scratch\n")
    text = HEAD + '[images.web]\ncontext = "web"\n'
    root = project(text)
    if where == "context":
        (root / "web" / "link").symlink_to(outside)
        project(HEAD + '[images.web]\ncontext = "web/link"\n')
        expected = "5: images.web.context"
    elif where == "dockerfile":
        (root / "web" / "link").symlink_to(outside / "Dockerfile")
        project(text + 'dockerfile = "link"\n')
        expected = "6: images.web.dockerfile"
    else:
        (root / "web" / "link").symlink_to(outside / "Dockerfile")
        project(
            text + '[services.web]\nimage = "web"\n[services.web.configs.c]\npath = "/c"\nsource = "web/../web/link"\n'
        )
        expected = "10: services.web.configs.c.source"
    (found,) = problems()
    assert found.startswith(f"{expected}: ")
    assert found.endswith("is outside the project; use a path below the directory of .lyra.toml")


def test_a_link_inside_of_the_project_is_followed(project: Project) -> None:
    root = project(HEAD + '[images.web]\ncontext = "link"\n')
    (root / "link").symlink_to("web")
    assert load_config().config.images["web"].context == "link"


def test_a_dockerfile_may_lie_beside_the_context(project: Project) -> None:
    root = project(HEAD + '[images.web]\ncontext = "web"\ndockerfile = "../web.Dockerfile"\n')
    (root / "web.Dockerfile").write_text("FROM scratch\n")
    assert load_config().config.images["web"].dockerfile == "../web.Dockerfile"


def test_a_missing_archive_is_no_problem_where_there_is_another_source(project: Project) -> None:
    project(HEAD + '[bases.b]\narchive = "b.tar"\nimage = "debian:12"\n')
    assert load_config().config.bases["b"].archive == "b.tar"


def test_a_context_that_takes_in_what_lyra_writes_is_refused(project: Project) -> None:
    root = project(ROOT_CONTEXT)
    (root / "Dockerfile").write_text("FROM scratch\n")
    takes_in = '5: images.web.context: includes "{0}", where Lyra writes; add a line {0} to ".dockerignore"'
    assert problems() == (takes_in.format(".lyra"), takes_in.format("promotion"))
    (root / ".dockerignore").write_text("promotion/\n")
    assert problems() == (takes_in.format(".lyra"),)
    (root / ".dockerignore").write_text("promotion/\n.lyra\n")
    assert load_config().config.images["web"].context == "."


def test_the_ignore_file_of_a_dockerfile_wins(project: Project) -> None:
    root = project(ROOT_CONTEXT)
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / ".dockerignore").write_text("promotion\n.lyra\n")
    (root / "Dockerfile.dockerignore").write_text("promotion\n")
    (found,) = problems()
    assert found.endswith('includes ".lyra", where Lyra writes; add a line .lyra to "Dockerfile.dockerignore"')


def test_a_context_inside_of_what_lyra_writes_is_refused(project: Project) -> None:
    project(HEAD + '[images.web]\ncontext = "web"\n[promotion]\ndirectory = "."\n')
    assert problems() == ('5: images.web.context: is inside ".", where Lyra writes; move it',)


def test_the_promotion_directory_is_the_configured_one(project: Project) -> None:
    project(HEAD + '[images.web]\ncontext = "web"\n[promotion]\ndirectory = "web/out"\n')
    (found,) = problems()
    assert found.endswith('includes "web/out", where Lyra writes; add a line out to ".dockerignore"')


def test_an_ignore_file_that_is_not_valid_is_told(project: Project) -> None:
    root = project(ROOT_CONTEXT)
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / ".dockerignore").write_text("[\n")
    (found,) = problems()
    assert 'cannot read ".dockerignore"' in found


@pytest.mark.parametrize(
    ("ignore", "expected"),
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
    ],
)
def test_whether_an_ignore_file_leaves_a_folder_out(ignore: str, expected: bool) -> None:
    assert excludes_directory(ignore, ".lyra") is expected
