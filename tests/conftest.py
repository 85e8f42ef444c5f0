"""The one engine of a test session, and projects to run the words in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine, connect_engine
from lyra_tasks.paths import project_paths, xdg_directory
from tests import engines
from tests.packages import unpacked

# A suite that was started in the background inherits an ignored SIGINT, and so would every program it interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

PROJECTS = Path(__file__).parent / "projects"
REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Outcome:
    """How a command line ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err


@dataclass(frozen=True)
class Project:
    """A git repository with a `.lyra.toml`, and the environment its words run in."""

    root: Path
    environment: dict[str, str]

    def lyra(self, *words: str, timeout: float = 300, **more: str) -> Outcome:
        """Run the program with `words` in the project, as a user would."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.root,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def command(self, *words: str) -> list[str]:
        """The argument list of the program."""
        # warnings are errors, but for sockets that the Docker SDK leaves to the collector
        quiet = ("-W", "error", "-W", "ignore:unclosed <socket:ResourceWarning")
        return [sys.executable, *quiet, "-m", "lyra_tasks.tasks.program", *words]

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """Start the program and do not wait for it."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.root,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def clean(self) -> None:
        """Run `clean`; it must succeed."""
        cleaned = self.lyra("clean")
        assert cleaned.code == 0, cleaned.text

    def git(self, *words: str) -> str:
        """Run git in the project."""
        return subprocess.run(["git", *words], cwd=self.root, check=True, capture_output=True, text=True).stdout

    def commit(self, message: str = "change") -> None:
        """Commit everything as it is."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def replace(self, file: str, old: str, new: str) -> None:
        """Change a file of the project; the old text must be there once."""
        path = self.root / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    @property
    def state(self) -> Path:
        """The state folders of all checkouts in this environment."""
        return Path(self.environment["XDG_STATE_HOME"]) / "lyra"

    def bundles(self) -> list[Path]:
        """The version folders below `promotion/`."""
        return sorted(path.parent for path in self.root.glob("promotion/*/*/manifest.json"))


def ours(engine: Engine) -> list[str]:
    """Every object in the engine that a project called tiny, or a lab, may have left."""
    api = engine.api
    names = [container["Names"][0] for container in api.containers(all=True)]
    names += [network["Name"] for network in api.networks()]
    names += [volume["Name"] for volume in api.volumes()["Volumes"] or []]
    names += [tag for image in api.images() for tag in image.get("RepoTags") or []]
    return [name.lstrip("/") for name in names if "lyra-" in name or "tiny" in name]


@pytest.fixture(scope="session")
def cache() -> Path:
    """The machine's own cache, so that packages are downloaded once and not once a session."""
    return xdg_directory("XDG_CACHE_HOME", ".cache") / "lyra"


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[sandbox.Sandbox]:
    """The sandbox engine of the session: the default one, or that of `LYRA_TEST_ENGINE`."""
    state = tmp_path_factory.mktemp("engine")
    kind = engines.chosen()
    yield sandbox.launch_sandbox(state, cache=cache, suite=kind.suite, store=kind.store)
    sandbox.shut_down_sandbox(state, purge=True)


@pytest.fixture(scope="session")
def engine(shared_engine: Engine) -> Engine:
    """A connection to the session's engine."""
    return shared_engine


@pytest.fixture(scope="session")
def shared_engine(box: sandbox.Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The same, also where a module calls something else `engine`."""
    config = Configuration.model_validate({"schema": 1, "project": {"name": "tests"}})
    os.environ["DOCKER_HOST"] = f"unix://{box.socket}"
    try:
        return connect_engine(config, project_paths(tmp_path_factory.mktemp("tests"), "tests"))
    finally:
        del os.environ["DOCKER_HOST"]


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder `bin` with a static busybox under the names that the sample projects call."""
    folder = tmp_path_factory.mktemp("busybox")
    root = unpacked(folder / "root", cache, "busybox-static")
    program = next(root.glob("**/bin/busybox"))
    (folder / "bin").mkdir()
    for name in ("busybox", "sh", "cat", "wc", "ls", "sleep", "dd", "id"):
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "bin" / "busybox").unlink()
    shutil.copy(program, folder / "bin" / "busybox")
    return folder / "bin"


@pytest.fixture
def lonely(tmp_path: Path, busybox: Path, cache: Path) -> Project:
    """The tiny project where no engine answers."""
    return tiny_project(tmp_path, busybox, cache, None)


@pytest.fixture
def tiny(tmp_path: Path, busybox: Path, cache: Path, box: sandbox.Sandbox) -> Iterator[Project]:
    """The tiny project as a git repository, with the session's engine; cleaned up afterwards."""
    made = tiny_project(tmp_path, busybox, cache, box)
    yield made
    made.clean()


@pytest.fixture(scope="module")
def make_tiny(
    tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path, box: sandbox.Sandbox
) -> Callable[[], Project]:
    """Makes tiny projects for tests that share one; who makes it cleans it."""
    return lambda: tiny_project(tmp_path_factory.mktemp("tiny"), busybox, cache, box)


def tiny_project(tmp_path: Path, busybox: Path, cache: Path, box: sandbox.Sandbox | None) -> Project:
    """A copy of the tiny project in `tmp_path`, for the engine `box` or none."""
    root = tmp_path / "project"
    shutil.copytree(PROJECTS / "tiny", root)
    shutil.copytree(busybox, root / "app" / "bin", symlinks=True)
    return repository(root, tmp_path, cache, box)


def repository(root: Path, tmp_path: Path, cache: Path, box: sandbox.Sandbox | None) -> Project:
    """`root` as a git repository with one commit, and an environment of its own."""
    project = Project(root, environment_of(tmp_path, cache, box))
    project.git("init", "--quiet", "--initial-branch", "main")
    project.git("config", "user.name", "Ada")
    project.git("config", "user.email", "ada@example.org")
    project.commit("start")
    return project


def environment_of(tmp_path: Path, cache: Path, box: sandbox.Sandbox | None) -> dict[str, str]:
    """The variables of a user whose state lies in `tmp_path`, and whose engine is `box`, if any."""
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
