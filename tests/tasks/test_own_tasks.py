"""Tasks of a project beside Lyra's: one rule each for names, directories and programs, without an engine."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Outcome, Project, repository
from tests.forked import can_fork, run_forked

pytestmark = pytest.mark.slow

CONFIG = 'schema = 1\n[project]\nname = "{name}"\n'
OWN = "from invoke import Collection, task\nimport lyra_tasks\nfrom lyra_tasks import tasks as lyra\n"


@pytest.fixture
def alpha(tmp_path: Path) -> Project:
    """Return a project without images, beside another one called beta."""
    for name in ("alpha", "beta"):
        root = tmp_path / name
        root.mkdir()
        (root / ".lyra.toml").write_text(CONFIG.format(name=name))
        (root / "tasks.py").write_text("from lyra_tasks import namespace\n")
        project = repository(root, tmp_path, tmp_path / "cache" / "lyra", None)
        project.git("tag", f"v{len(name)}.0.0")
    packages = {"PYTHONPATH": os.environ.get("PYTHONPATH") or str(REPOSITORY)}  # with those of test_invoke_versions.py
    return Project(tmp_path / "alpha", {**project.environment, **packages})


def run(project: Project, *arguments: str, cwd: Path | None = None) -> Outcome:
    """Run Python in the project."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=cwd or project.root, env=project.environment, capture_output=True, text=True, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def invoke(project: Project, *arguments: str, cwd: Path | None = None) -> Outcome:
    """Run Invoke's own program in the project."""
    if can_fork(project.environment):
        return Outcome(*run_forked(arguments, cwd or project.root, project.environment, 60, module="invoke"))
    return run(project, "-m", "invoke", *arguments, cwd=cwd)


def lyra(project: Project, *arguments: str, cwd: Path | None = None) -> Outcome:
    """Run `lyra` in the project."""
    if can_fork(project.environment):
        return Outcome(*run_forked(arguments, cwd or project.root, project.environment, 60))
    return run(project, "-c", "from lyra_tasks.tasks.program import main; main()", *arguments, cwd=cwd)


def test_projects_use_the_invoke_of_the_tests(alpha: Project) -> None:
    outcome = run(alpha, "-c", "import invoke; print(invoke.__version__)")
    assert outcome.out.strip() == version("invoke"), outcome.text


@pytest.mark.parametrize(
    "change",
    [
        "os.chdir('../beta')",
        "os.environ['LYRA_CONFIG'] = '../beta/.lyra.toml'",
        "context.command_cwds.append('../beta')",
    ],
)
def test_each_call_finds_its_project(alpha: Project, change: str) -> None:
    code = (
        "import os\nfrom invoke import Context\nfrom lyra_tasks.tasks import release_version\n"
        f"context = Context()\nrelease_version(context)\n{change}\nrelease_version(context)\n"
    )
    outcome = run(alpha, "-c", code)
    assert outcome.code == 0, outcome.text
    versions = [line for line in outcome.out.splitlines() if line.startswith(("4.", "5."))]
    assert [version[0] for version in versions] == ["5", "4"], outcome.out


def test_directory_of_context_holds_for_paths_of_user(alpha: Project) -> None:
    (alpha.root.parent / "beta" / "bundle").mkdir()
    code = (
        "from invoke import Context\nfrom lyra_tasks.tasks import TaskError, verify\ncontext = Context()\n"
        "try:\n    with context.cd('../beta'):\n        verify(context, 'bundle')\n"
        "except TaskError as error:\n    print(error.code, error.message)\n"
    )
    outcome = run(alpha, "-c", code)
    assert outcome.out.startswith("6 "), outcome.text
    assert "beta/bundle" in outcome.out, outcome.text
    new = alpha.root.parent / "new"
    new.mkdir()
    (new / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    code = "from invoke import Context\nfrom lyra_tasks.tasks import init\ncontext = Context()\n"
    code += "with context.cd('../new'):\n"
    for arguments, written in (("dry_run=True", {"Dockerfile"}), ("", {"Dockerfile", ".lyra.toml", "tasks.py"})):
        outcome = run(alpha, "-c", f"{code}    init(context, {arguments})")
        assert outcome.code == 0, outcome.text
        assert written <= {path.name for path in new.iterdir()}
        assert (new / ".lyra.toml").exists() == (len(written) > 1)


def test_tasks_loaded_from_elsewhere_are_refused(alpha: Project) -> None:
    outcome = run(alpha, "-m", "invoke", "-r", "../beta", "history")  # what counts is where Python imports them
    assert outcome.code == 2, outcome.text
    assert "These tasks were loaded from" in outcome.err
    assert "hint: Change to it: `cd " in outcome.err
    (alpha.root / "below").mkdir()
    assert invoke(alpha, "history", cwd=alpha.root / "below").code == 0


def test_each_project_of_repository_has_its_collection(alpha: Project) -> None:
    top = alpha.root.parent
    (top / "tasks.py").write_text(
        "from invoke import Collection\nimport lyra_tasks\nnamespace = Collection()\n"
        "for name in ('alpha', 'beta'):\n"
        "    namespace.add_collection(lyra_tasks.collection(config=f'{name}/.lyra.toml'), name)\n"
    )
    outcome = invoke(alpha, "alpha.release.version", "beta.release.version", cwd=top)
    assert outcome.code == 0, outcome.text
    assert [line[0] for line in outcome.out.splitlines() if line.startswith(("4.", "5."))] == ["5", "4"], outcome.out
    outcome = invoke(alpha, "beta.bundle.pack", "1.0.0", cwd=top)
    assert "`invoke beta.bundle.pack VERSION" in outcome.err


def test_hints_name_commands_as_the_program_has_them(alpha: Project) -> None:
    (alpha.root / "tasks.py").write_text(
        "from invoke import Collection\nimport lyra_tasks\nnamespace = Collection()\n"
        "namespace.add_collection(lyra_tasks.collection(), 'containers')\n"
    )
    outcome = invoke(alpha, "containers.bundle.pack", "1.0.0")
    assert outcome.code != 0
    assert "`invoke containers.bundle.pack VERSION" in outcome.err
    outcome = run(
        alpha,
        "-c",
        "import sys; sys.path.insert(0, '.')\nfrom invoke import Program\nimport tasks\n"
        "Program(name='ship', binary='shipit', namespace=tasks.namespace).run('shipit containers.bundle.pack 1.0.0')",
    )
    assert "`shipit containers.bundle.pack VERSION" in outcome.err, outcome.text
    outcome = invoke(alpha, "containers.verify", "./nothing")
    assert "nothing" in outcome.err, outcome.text


@pytest.mark.parametrize(
    ("definition", "arguments"),
    [
        ("@task\ndef build(c): print('own')", "build"),
        ("@task\ndef release(c): print('own')", "release"),
        ("dev = Collection('dev')", "dev"),
        ("@task(aliases=['clean'])\ndef tidy(c): print('own')", "tidy"),
    ],
)
def test_own_task_replaces_lyras_only_if_told(alpha: Project, definition: str, arguments: str) -> None:
    tasks = alpha.root / "tasks.py"
    tasks.write_text(f"{OWN}{definition}\nnamespace = lyra_tasks.collection({arguments})\n")
    outcome = invoke(alpha, "--list")
    assert outcome.code == 2, outcome.text
    assert outcome.err.startswith("error: tasks.py: `")
    assert outcome.err.count("\n") == 2
    replaced = "clean" if arguments == "tidy" else arguments
    tasks.write_text(f"{OWN}{definition}\nnamespace = lyra_tasks.collection({arguments}, replace=['{replaced}'])\n")
    outcome = invoke(alpha, "--list")
    assert outcome.code == 0, outcome.text
    if arguments == "build":
        assert invoke(alpha, "build").out == "own\n"


def test_collection_includes_only_what_is_named(alpha: Project) -> None:
    (alpha.root / "tasks.py").write_text(f"{OWN}namespace = lyra_tasks.collection(only=['history', 'release'])\n")
    outcome = invoke(alpha, "--list")
    names = [line.split()[0] for line in outcome.out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert names == ["history", "release.list", "release.release", "release.version"]
    (alpha.root / "tasks.py").write_text(f"{OWN}namespace = lyra_tasks.collection(only=['hist'])\n")
    outcome = invoke(alpha, "--list")
    assert (outcome.code, outcome.err) == (
        2,
        "error: tasks.py: Unknown task 'hist'\nhint: Did you mean history?\n",
    )


@pytest.mark.parametrize("module", ["tasks.py", "tasks/__init__.py"])
def test_lyra_takes_only_tasks_that_use_it(alpha: Project, module: str, tmp_path: Path) -> None:
    (alpha.root / "tasks.py").unlink()
    file = alpha.root / module
    file.parent.mkdir(exist_ok=True)
    file.write_text("from celery import Celery\nraise SystemExit('imported')\n")
    outcome = lyra(alpha, "history")
    assert outcome.code == 0, outcome.text
    assert "does not use lyra_tasks; these are Lyra's own tasks" in outcome.err
    file.write_text(f"{OWN}@task\ndef own(c): print('own task')\nnamespace = lyra_tasks.collection(own)\n")
    assert "own task" in lyra(alpha, "own").out


def test_module_that_hides_a_package_is_named(alpha: Project) -> None:
    (alpha.root / "docker.py").write_text("print('mine')\n")
    outcome = run(alpha, "-m", "invoke", "status")
    assert outcome.code == 3, outcome.text
    assert "docker.py hides the package docker" in outcome.err
    assert "Traceback" not in outcome.err


def test_sigterm_handler_of_process_stays(alpha: Project) -> None:
    code = (
        "import signal, threading\nfrom invoke import Context\nfrom lyra_tasks.tasks import release_version\n"
        "def own(*_): pass\nsignal.signal(signal.SIGTERM, own)\nrelease_version(Context())\n"
        "assert signal.getsignal(signal.SIGTERM) is own\n"
        "thread = threading.Thread(target=release_version, args=(Context(),)); thread.start(); thread.join()\n"
    )
    outcome = run(alpha, "-W", "error", "-c", code)
    assert outcome.code == 0, outcome.text
    assert outcome.out.count("5.0.0") >= 2
    assert outcome.err == ""


def test_one_value_is_a_list_of_one(alpha: Project) -> None:
    code = (
        "from invoke import Context\nfrom lyra_tasks.tasks import TaskError, build, test\n"
        "for call in (lambda: build(Context(), image='web'), lambda: test(Context(), only='page', repeat=2),\n"
        "             lambda: test(Context(), repeat=0)):\n"
        "    try:\n        call()\n    except TaskError as error:\n        print(error.message)\n"
    )
    outcome = run(alpha, "-c", code)
    assert outcome.code == 0, outcome.text
    assert "No images configured" in outcome.out
    assert "--repeat takes a number from 1 to 1000, not 0" in outcome.out
    outcome = invoke(alpha, "test", "--repeat", "many")
    assert (outcome.code, "--repeat takes a number" in outcome.err) == (2, True), outcome.text


def test_program_alone_shows_status_or_how_to_start(alpha: Project, tmp_path: Path) -> None:
    assert lyra(alpha).out.startswith("alpha      5.0.0, main at ")
    empty = tmp_path / "empty"
    empty.mkdir()
    outcome = lyra(alpha, cwd=empty)
    assert (outcome.code, outcome.out) == (
        0,
        "No project here. Start one with `lyra init`; `lyra --list` shows all tasks.\n",
    )


def test_list_is_grouped_in_the_order_of_work(alpha: Project) -> None:
    (alpha.root / "tasks.py").write_text(
        f"{OWN}@task\ndef own(c):\n    'Do it.'\nnamespace = lyra_tasks.collection(own)\n"
    )
    lines = lyra(alpha, "--list").out.splitlines()
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles[0] == "Start"
    assert titles[-1] == "This project"
    assert lines[-2].split() == ["own", "Do", "it."]
    assert max(map(len, lines)) <= 79


@pytest.mark.parametrize("name", ["1.2.3", "bundle"])
def test_verify_takes_a_version_or_what_is_there(alpha: Project, name: str) -> None:
    (alpha.root / "bundle").mkdir()
    outcome = invoke(alpha, "verify", name)
    assert ("No bundle with version '1.2.3'" if name == "1.2.3" else "not a promotion bundle") in outcome.err
    assert outcome.code == (2 if name == "1.2.3" else 6), outcome.text


def test_no_task_is_imported_from_another_place() -> None:
    names = ("build", "test", "release", "promote", "clean", "init", "create", "verify", "status", "doctor")
    code = (
        f"import importlib\nfor name in {names}:\n"
        "    try:\n        exec(f'from lyra_tasks import {name}')\n"
        "    except ImportError as error:\n        print(error)\n"
        "    exec(f'from lyra_tasks.tasks import {name}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.split("'")[1] for line in done.stdout.splitlines() if "cannot import name" in line] == [*names]
