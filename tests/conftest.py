"""The engine of a test session, and projects to run tasks in."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lyra_tasks.bundle.content.sbom_process import SbomProcess, start_sbom_process
from lyra_tasks.config.models import Configuration
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine, connect_engine
from lyra_tasks.paths import project_paths, xdg_directory
from tests import engines
from tests.forked import can_fork, run_forked
from tests.packages import unpacked
from tests.reaper import reap_engines_below
from tests.thorough import note_selection

# A background shell ignores SIGINT, which the programs that tests interrupt would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

PROJECTS = Path(__file__).parent / "projects"
REPOSITORY = Path(__file__).parents[1]
# To compress the programs of the tiny project would take longer than all else of its creation
GIT_CONFIG = "[user]\n\tname = Ada\n\temail = ada@example.org\n[core]\n\tcompression = 0\n"


def pytest_configure(config: pytest.Config) -> None:
    """Tell the test modules, before they are imported, which tests are selected."""
    note_selection(config.option.markexpr)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Let pytest keep what it makes of test modules, whatever the environment says; else each worker makes it anew."""
    setting, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = setting


@functools.cache
def may_have_slow_tests(path: Path) -> bool:
    """Return whether a file is of the engine's tests, or has the name of a mark."""
    text = "" if path.is_relative_to(REPOSITORY / "tests" / "engine") else path.read_text().lower()
    return not text or "slow" in text or "thorough" in text


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file without slow tests if only those are selected; each worker would spend seconds on them."""
    only_slow = config.option.markexpr.startswith("slow") and collection_path.suffix == ".py"
    return True if only_slow and not may_have_slow_tests(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark thorough tests as slow, too."""
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not may_have_slow_tests(item.path):
            raise pytest.UsageError(f"{item.path} has a slow test, but not the name of its mark")


@dataclass(frozen=True)
class Outcome:
    """The exit code and the output of a command line."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Return both streams."""
        return self.out + self.err


@dataclass(frozen=True)
class Project:
    """A git repository with a `.lyra.toml`, and the environment of its tasks."""

    root: Path
    environment: dict[str, str]

    def lyra(self, *arguments: str, timeout: float = 300, **more: str) -> Outcome:
        """Run the program with `arguments` in the project, as a user would."""
        environment = {**self.environment, **more}
        if can_fork(environment):
            return Outcome(*run_forked(arguments, self.root, environment, timeout))
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of the program."""
        # Warnings are errors, except sockets that the Docker SDK does not close
        warning_options = ("-W", "error", "-W", "ignore:unclosed <socket:ResourceWarning")
        return [sys.executable, *warning_options, "-m", "lyra_tasks", *arguments]

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start the program without waiting for it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def clean(self) -> None:
        """Run `clean`; it must succeed."""
        outcome = self.lyra("clean")
        assert outcome.code == 0, outcome.text

    def git(self, *arguments: str) -> str:
        """Run git in the project."""
        return subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True).stdout

    def commit(self, message: str = "change") -> None:
        """Commit all changes."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def replace(self, file: str, old: str, new: str) -> None:
        """Replace a text that occurs once in a file of the project."""
        path = self.root / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    @property
    def state(self) -> Path:
        """Return the parent of the state directories of all checkouts."""
        return Path(self.environment["XDG_STATE_HOME"]) / "lyra"

    def bundles(self) -> list[Path]:
        """Return the bundle directories below `promotion/`."""
        return sorted(path.parent for path in self.root.glob("promotion/*/*/manifest.json"))


def ours(engine: Engine) -> list[str]:
    """Return the objects of the project tiny and of labs in the engine."""
    api = engine.api
    names = [container["Names"][0] for container in api.containers(all=True)]
    names += [network["Name"] for network in api.networks()]
    names += [volume["Name"] for volume in api.volumes()["Volumes"] or []]
    names += [tag for image in api.images() for tag in image.get("RepoTags") or []]
    return sorted(name.lstrip("/") for name in names if "lyra-" in name or "tiny" in name)


@pytest.fixture(scope="session")
def cache() -> Path:
    """Return the user's cache, so that packages are downloaded once and not once per session."""
    return xdg_directory("XDG_CACHE_HOME", ".cache") / "lyra"


@pytest.fixture(scope="session")
def engine_reaper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """End the engines of this session if it is killed; return the id of the process that does so."""
    with reap_engines_below(tmp_path_factory.getbasetemp()) as pid:
        yield pid


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory, cache: Path, engine_reaper: int) -> Iterator[sandbox.Sandbox]:
    """Run the private engine of the session: the default one, or that of `LYRA_TEST_ENGINE`."""
    state = tmp_path_factory.mktemp("engine")
    kind = engines.chosen()
    yield sandbox.launch_sandbox(state, cache=cache, suite=kind.suite, store=kind.store)
    sandbox.shut_down_sandbox(state, purge=True)


@pytest.fixture(scope="session")
def sboms() -> Iterator[SbomProcess]:
    """Run the process that formats SBOMs."""
    with start_sbom_process() as process:
        yield process


@pytest.fixture(scope="session")
def engine(shared_engine: Engine) -> Engine:
    """Return a connection to the session's engine."""
    return shared_engine


@pytest.fixture(scope="session")
def shared_engine(box: sandbox.Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Return the same connection, for modules with another fixture `engine`."""
    config = Configuration.model_validate({"schema": 1, "project": {"name": "tests"}})
    os.environ["DOCKER_HOST"] = f"unix://{box.socket}"
    try:
        return connect_engine(config, project_paths(tmp_path_factory.mktemp("tests"), "tests"))
    finally:
        del os.environ["DOCKER_HOST"]


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Return a directory with a static busybox and links for the programs that the sample projects call."""
    directory = tmp_path_factory.mktemp("busybox")
    program = next(unpacked(cache, "busybox-static").glob("**/bin/busybox"))
    (directory / "bin").mkdir()
    for name in ("busybox", "sh", "cat", "wc", "ls", "sleep", "dd", "id"):
        (directory / "bin" / name).symlink_to("busybox")
    (directory / "bin" / "busybox").unlink()
    shutil.copy(program, directory / "bin" / "busybox")
    return directory / "bin"


@pytest.fixture
def lonely(tmp_path: Path, busybox: Path, cache: Path) -> Project:
    """Return the tiny project without an engine."""
    return tiny_project(tmp_path, busybox, cache, None)


@pytest.fixture
def tiny(tmp_path: Path, busybox: Path, cache: Path, box: sandbox.Sandbox) -> Iterator[Project]:
    """Return the tiny project with the session's engine; clean it up afterwards."""
    project = tiny_project(tmp_path, busybox, cache, box)
    yield project
    project.clean()


@pytest.fixture(scope="module")
def make_tiny(
    tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path, box: sandbox.Sandbox
) -> Callable[[], Project]:
    """Return a factory of tiny projects, which the caller cleans up."""
    return lambda: tiny_project(tmp_path_factory.mktemp("tiny"), busybox, cache, box)


def tiny_project(tmp_path: Path, busybox: Path, cache: Path, box: sandbox.Sandbox | None) -> Project:
    """Copy the tiny project to `tmp_path`, for the engine `box` or none."""
    root = tmp_path / "project"
    shutil.copytree(PROJECTS / "tiny", root)
    shutil.copytree(busybox, root / "app" / "bin", symlinks=True)
    return repository(root, tmp_path, cache, box)


def repository(root: Path, tmp_path: Path, cache: Path, box: sandbox.Sandbox | None) -> Project:
    """Make `root` a git repository with one commit, and return it as a project."""
    project = Project(root, environment_of(tmp_path, cache, box))
    project.git("init", "--quiet", "--initial-branch", "main")
    with (root / ".git" / "config").open("a") as file:
        file.write(GIT_CONFIG)
    project.commit("start")
    return project


def environment_of(tmp_path: Path, cache: Path, box: sandbox.Sandbox | None) -> dict[str, str]:
    """Return the environment of a user with the state in `tmp_path` and the engine `box`, if any."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "LYRA_", "XDG_", "GIT_"))
    }
    environment |= {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CACHE_HOME": str(cache.parent),
        "PYTHONPATH": str(REPOSITORY),
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    if box is not None:
        environment["DOCKER_HOST"] = f"unix://{box.socket}"
    return environment
