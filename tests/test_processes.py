from __future__ import annotations

import sys

import pytest

from lyra_tasks.processes import create_environment, list_ignored_variables, run_captured

STRAY = {
    "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/nowhere", "DOCKER_API_VERSION": "1.9",
    "DOCKER_DEFAULT_PLATFORM": "linux/none", "BUILDX_BUILDER": "gone", "BUILDKIT_HOST": "tcp://192.0.2.1",
    "COMPOSE_FILE": "other.yaml", "COMPOSE_PROFILES": "a",
}  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*create_environment(), *list_ignored_variables()]:
        monkeypatch.delenv(name)
    for name, value in {**STRAY, "DOCKER_HOST": "unix:///x", "DOCKER_CONFIG": "/c", "BUILDX_CONFIG": "/b"}.items():
        monkeypatch.setenv(name, value)
    for name, value in {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy",
        "no_proxy": "localhost",
        "GIT_DIR": "/g",
    }.items():
        monkeypatch.setenv(name, value)


def test_started_program_gets_only_variables_that_are_meant() -> None:
    settings = {"DOCKER_HOST": "unix:///y", "BUILDX_GIT_INFO": "0"}
    assert create_environment(settings, remove={"GIT_DIR", "PYTEST_CURRENT_TEST"}) == {
        "PATH": "/bin", "HTTPS_PROXY": "http://proxy", "no_proxy": "localhost", "DOCKER_CONFIG": "/c",
        "DOCKER_HOST": "unix:///y", "BUILDX_GIT_INFO": "0",
    }  # fmt: skip


def test_ignored_variables_are_listed() -> None:
    for_remote_engines = {"DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"}
    assert list_ignored_variables() == sorted(STRAY.keys() - for_remote_engines)


def test_captured_program_has_no_stray_variable() -> None:
    names = run_captured([sys.executable, "-c", "import os; print(*os.environ, sep='\\n')"]).stdout.splitlines()
    assert set(names) & {*STRAY, "DOCKER_HOST", "HTTPS_PROXY"} == {"HTTPS_PROXY"}
