"""Checks of kind `pytest`: the project's own tests, which get the services through Lyra's plugin."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.checks.commands import build_lab_variables
from lyra_tasks.checks.suites.suite import Outcome, SuiteRun, run_suite_command
from lyra_tasks.documents import DocumentError, parse_json_object
from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import private_directory
from lyra_tasks.ports import docker_port

if TYPE_CHECKING:
    from lyra_tasks.lab.lab import Lab

_PLUGIN = "lyra_tasks.pytest_plugin"
_NOTHING_COLLECTED = 5
_POLL_INTERVAL_S = 0.05
_MAX_EVENT_BYTES = 4 << 20


def require_pytest() -> None:
    """Raise PreconditionError if pytest is not installed."""
    if importlib.util.find_spec("pytest") is None:
        raise PreconditionError(
            "pytest not found; checks of kind `pytest` need it in the environment that Lyra is installed in",
            hint="Run `pip install 'lyra-tasks[pytest]'`",
        )


def run_pytest(run: SuiteRun, root: Path, directory: Path, *, fail_fast: bool) -> str:
    """Run pytest with Lyra's plugin; return the problem that no test explains, or an empty string."""
    path = str(run.test.pytest)
    options = ["-p", _PLUGIN, "-p", "no:cacheprovider", "-v", "--color=no", *(["-x"] if fail_fast else [])]
    # a secret of which pytest shows only the beginning and the end would not be recognised
    options += ["-o", "verbosity_assertions=2"]
    command = [sys.executable, "-m", "pytest", *options, path]
    with private_directory("pytest") as control:
        services, events = control / "services.json", control / "events.jsonl"
        services.touch(mode=0o600)
        services.write_text(json.dumps(_describe_services(run.lab)), encoding="utf-8")
        events.touch(mode=0o600)
        variables = {
            **build_lab_variables(run.lab),
            "LYRA_SERVICES": str(services),
            "LYRA_PYTEST_EVENTS": str(events),
            "PYTHONDONTWRITEBYTECODE": "1",  # what pytest writes into the project would change build contexts
            "PYTHONPATH": _extend_python_path(),
        }
        with _follow_events(events, lambda event: _handle_event(run, path, event)):
            completed = run_suite_command(
                run, [*command, *(["-x"] if fail_fast else []), path], root, variables, directory
            )
    if completed.exit_code is None:
        if run.running:
            run.add(run.running, "error", 0.0, f"did not end within {run.test.effective_timeout:g} s", ())
        return f"pytest did not end within {run.test.effective_timeout:g} s; its last lines: {completed.tail}"
    if completed.exit_code == _NOTHING_COLLECTED:
        return f"pytest has found no test in {path}"
    if completed.exit_code and not run.counts["failed"] and not run.counts["error"]:
        return f"pytest exited with code {completed.exit_code}; its last lines: {completed.tail}"
    return ""


def _extend_python_path() -> str:
    """Return the search path with which pytest finds the plugin, also where this package is not installed."""
    package = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), package]))


def _describe_services(lab: Lab) -> dict[str, Any]:
    """Return what the fixtures of the pytest plugin need; it has the test values of secrets."""
    services = {}
    for name, running in lab.services.items():
        target = running.check_target()
        services[name] = {
            "container": target.container_id,
            "host": target.engine.host_address,
            "ports": {
                key: {"container": docker_port(port), "published": target.ports[port]}
                for key, port in target.service.ports.items()
                if port in target.ports
            },
            "http_port": next(
                (key for key, port in target.service.ports.items() if port == target.service.http_port), ""
            ),
            "environment": dict(target.environment),
        }
    return {
        "docker": lab.engine.cli,
        "docker_environment": dict(lab.engine.cli_environment),
        "services": services,
    }


@contextmanager
def _follow_events(path: Path, handle: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Handle the events in a file, a JSON document per line, as they are written, until the end of the block."""
    has_ended = threading.Event()
    errors: list[BaseException] = []

    def follow() -> None:
        try:
            with path.open("rb") as file:
                rest = b""
                while True:
                    is_last = has_ended.is_set()
                    *lines, rest = (rest + file.read(_MAX_EVENT_BYTES)).split(b"\n")
                    for line in lines:
                        _handle_line(line, handle)
                    if is_last and not lines:
                        return
                    if not lines:
                        has_ended.wait(_POLL_INTERVAL_S)
        except BaseException as error:  # raised again by the thread that waits
            errors.append(error)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()
    if errors:
        raise errors[0]


def _handle_line(line: bytes, handle: Callable[[dict[str, Any]], None]) -> None:
    try:
        event = parse_json_object(line)
    except DocumentError:  # written by a test, not by the plugin
        return
    handle(event)


def _handle_event(run: SuiteRun, path: str, event: Mapping[str, Any]) -> None:
    name = _shorten_name(str(event.get("test", "")), path)
    kind, message = event.get("event"), str(event.get("message", ""))
    if kind == "started":
        run.running = name
        return
    run.running = ""
    if kind == "skipped":
        run.skip(name, message)
    elif kind == "finished":
        outcome: Outcome = event["outcome"] if event.get("outcome") in {"passed", "failed"} else "error"
        lines, seconds = event.get("lines"), event.get("seconds")
        run.add(
            name,
            outcome,
            float(seconds) if isinstance(seconds, int | float) else 0.0,
            message,
            [str(line) for line in lines] if isinstance(lines, list) else [],
        )


def _shorten_name(node: str, path: str) -> str:
    """Return the name of a test without the path of the suite."""
    return node.removeprefix(path.removesuffix("/")).removeprefix("/").removeprefix("::") or node
