"""Tasks as parts of other tasks: parameters count, and each task looks anew."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Outcome, Project, ours
from tests.forked import can_fork, run_forked
from tests.thorough import keep

OWN_TASKS = """
from pathlib import Path
from invoke import call, task
import lyra_tasks
from lyra_tasks.tasks import TaskError, build, clean, promote, release, test

@task
def tidy(c):
    clean(c, dry_run=True)

@task(pre=[call(build, dry_run=True, json=True)])
def planned(c):
    pass

@task
def own(c, dry_run=False, json=False):
    print("own", dry_run, clean(c).removed)

@task(post=[call(clean, yes=True, quiet=True)])
def last(c):
    pass

@task
def bump(c):
    Path("app/VERSION").write_text("2")
    c.run("git add . && git commit --quiet --message bump", in_stream=False)

@task
def stage(c):
    Path("note.txt").write_text("not committed")

@task
def careful(c):
    try:
        promote(c)
    except TaskError as error:
        print("caught", error.code, repr(error.message), repr(error.hint))

@task
def careless(c):
    promote(c)

namespace = lyra_tasks.collection(tidy, planned, own, last, bump, stage, careful, careless)
"""


@pytest.fixture(scope="module")
def composed(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Return the tiny project with tasks of its own."""
    project = make_tiny()
    (project.root / "tasks.py").write_text(OWN_TASKS)
    project.commit("tasks")
    yield project
    project.clean()


@pytest.fixture
def built(composed: Project) -> Project:
    """Return the project of this module after a build."""
    outcome = composed.lyra("build")
    assert outcome.code == 0, outcome.text
    return composed


def invoke(project: Project, *arguments: str) -> Outcome:
    """Run Invoke's own program in the project."""
    assert can_fork(project.environment)
    return Outcome(*run_forked(arguments, project.root, project.environment, 300, "invoke"))


def run(project: Project, *arguments: str) -> Outcome:
    """Run Python in the project."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project.root,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def python(project: Project, code: str, *arguments: str) -> Outcome:
    """Run a program of the user, with the arguments of its own."""
    (project.root.parent / "deploy.py").write_text(f"import sys\nsys.path.insert(0, {str(project.root)!r})\n{code}")
    return run(project, str(project.root.parent / "deploy.py"), *arguments)


def test_arguments_of_other_program_do_not_hold(composed: Project, engine: Engine) -> None:
    outcome = python(
        composed, "from invoke import Context\nimport tasks\ntasks.build(Context())", "--dry-run", "--json"
    )
    assert outcome.code == 0, outcome.text
    assert ours(engine)


def test_dry_run_as_parameter_removes_nothing(built: Project, engine: Engine) -> None:
    before = ours(engine)
    outcome = invoke(built, "tidy")
    assert outcome.code == 0, outcome.text
    assert "remove" in outcome.text
    assert before
    assert ours(engine) == before


def test_option_of_lyra_task_holds_for_whole_line(built: Project, engine: Engine) -> None:
    for line in (("build", "--dry-run", "own"), ("own", "build", "--dry-run"), ("--dry", "own")):
        outcome = invoke(built, *line)
        assert outcome.code == 0, outcome.text
        assert "own False" in outcome.out
        assert ours(engine), line


def test_dry_run_of_line_ends_with_it_in_own_program(built: Project, engine: Engine) -> None:
    """Show that a dry run of `clean` leaves everything for the next call to remove."""
    code = (
        "from invoke import Context, Program\nimport tasks\nprogram = Program(namespace=tasks.namespace)\n"
        'program.run("shipit clean --dry-run", exit=False)\n'
        "print('then:', tasks.clean(Context(), quiet=True).removed)"
    )
    outcome = python(built, code)
    assert outcome.code == 0, outcome.text
    assert "tiny/web" in outcome.out.partition("then:")[2], outcome.text
    assert not ours(engine)


def test_options_of_own_task_do_not_hold_for_lyra(built: Project, engine: Engine) -> None:
    outcome = invoke(built, "own", "--dry-run", "--json")
    assert outcome.code == 0, outcome.text
    assert "own True" in outcome.out
    assert not ours(engine)


def test_parameters_of_call_count(composed: Project, engine: Engine) -> None:
    composed.clean()
    outcome = invoke(composed, "planned")
    assert outcome.code == 0, outcome.text
    assert "target" in json.loads(outcome.out)
    assert not ours(engine)
    assert composed.lyra("build").code == 0
    outcome = invoke(composed, "last")
    assert (outcome.code, outcome.out) == (0, ""), outcome.text
    assert not ours(engine)


def test_commit_between_build_and_test_is_refused(composed: Project) -> None:
    (composed.root / "app" / "VERSION").write_text("1")
    composed.commit()
    outcome = invoke(composed, "build", "bump", "test")
    assert outcome.code == 3, outcome.text
    assert "was built before its" in outcome.err


def test_file_and_commit_after_test_are_refused_on_the_same_line(composed: Project) -> None:
    """Each of the tasks looks anew: at a file that is not committed, and at a commit that was not tested."""
    (composed.root / "app" / "VERSION").write_text("1")
    composed.commit()
    outcome = invoke(composed, "--no-dedupe", "build", "test", "stage", "careful", "bump", "careful", "release")
    assert outcome.code == 3, outcome.text
    file, commit = [line for line in outcome.out.splitlines() if line.startswith("caught")]
    assert file.startswith("caught 3 ") and "note.txt" in file
    for text in (commit.removeprefix("caught 3 "), outcome.err):
        assert "was built before its" in text or "HEAD is" in text, outcome.text
    assert composed.git("tag", "--list") == ""


def test_new_build_after_commit_is_promoted_with_the_file(composed: Project) -> None:
    (composed.root / "app" / "VERSION").write_text("1")
    composed.commit()
    outcome = invoke(composed, "--no-dedupe", "build", "bump", "build", "test", "promote", "--json")
    assert outcome.code == 0, outcome.text
    commit = composed.git("rev-parse", "HEAD").strip()
    manifest = json.loads(
        max(composed.bundles(), key=lambda path: path.stat().st_mtime).joinpath("manifest.json").read_text()
    )
    assert commit in json.dumps(manifest)


def test_error_in_python_carries_message_hint_and_code(composed: Project) -> None:
    (composed.root / "app" / "VERSION").write_text("3")
    outcome = invoke(composed, "careful")
    assert outcome.code == 0, outcome.text
    assert outcome.out.startswith("caught 3 '")
    assert "invoke build" in outcome.out
    assert outcome.err == ""
    outcome = invoke(composed, "careless")
    assert outcome.code == 3, outcome.text
    assert outcome.err.startswith("error: ")
    assert "\nhint: Run `invoke build" in outcome.err
    assert "Traceback" not in outcome.err
    composed.git("checkout", "--", ".")


SHAPES = {
    "package with collections": (
        {
            "tasks/__init__.py": (
                "from invoke import Collection\nimport lyra_tasks\nfrom . import docs, web\n"
                "namespace = Collection(docs, web)\n"
                "namespace.add_collection(lyra_tasks.collection(), 'containers')\n"
            ),
            "tasks/docs.py": "from invoke import task\n\n@task\ndef build(c):\n    print('docs built')\n",
            "tasks/web.py": (
                "from invoke import task\nfrom lyra_tasks.tasks import build, test\n\n"
                "@task(pre=[build, test])\ndef check(c):\n    print('web checked')\n"
            ),
        },
        ["-m", "invoke", "docs.build", "web.check", "containers.promote", "containers.clean"],
    ),
    "module with chains": (
        {
            "tasks.py": (
                "from invoke import call, task\nimport lyra_tasks\n"
                "from lyra_tasks.tasks import build, clean, promote, test\n\n"
                "@task\ndef lint(c):\n    c.run('true')\n\n"
                "@task(pre=[lint, build])\ndef verified(c):\n    test(c)\n\n"
                "@task(pre=[verified, promote], post=[call(clean, yes=True)])\n"
                "def publish(c):\n    print('published')\n\n"
                "namespace = lyra_tasks.collection(lint, verified, publish)\n"
            )
        },
        ["-m", "invoke", "publish"],
    ),
    "program of its own": (
        {
            "shipit.py": (
                "from invoke import Argument, Program\nimport lyra_tasks\n\n"
                "class Shipit(Program):\n"
                "    def core_args(self):\n"
                "        return [*super().core_args(), Argument(names=('region',), default='eu')]\n\n"
                "Shipit(version='1.0', namespace=lyra_tasks.collection()).run()\n"
            )
        },
        ["shipit.py", "--region", "us", "build", "test", "promote", "clean"],
    ),
}


@pytest.mark.parametrize("shape", keep(1, list(SHAPES)))
def test_shape_of_tasks_goes_through(make_tiny: Callable[[], Project], engine: Engine, shape: str) -> None:
    project = make_tiny()
    files, command = SHAPES[shape]
    for name, text in files.items():
        (project.root / name).parent.mkdir(exist_ok=True)
        (project.root / name).write_text(text)
    project.commit("tasks")
    before = ours(engine)
    outcome = run(project, *command)
    assert outcome.code == 0, outcome.text
    assert len(project.bundles()) == 1
    assert ours(engine) == before
