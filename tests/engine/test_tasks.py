"""build, test and clean on a real engine, run as a user runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.records.journal import Journal
from tests.conftest import Project, ours
from tests.test_processes import STRAY


@pytest.fixture
def built(project: Project) -> Project:
    """Return the shared project after a build."""
    outcome = project.lyra("build")
    assert outcome.code == 0, outcome.text
    return project


def test_build_test_clean_leave_only_records(tiny: Project, engine: Engine) -> None:
    """Run them with variables that other tools leave in a shell: they lead no program to another engine or builder."""
    stray = {name: value for name, value in STRAY.items() if name != "COMPOSE_FILE"}  # which is read as by Compose
    tiny.environment.update(stray)
    result = tiny.lyra("build", "test", "clean")
    assert result.code == 0, result.text
    assert "4 of 4 checks passed" in result.out
    assert ours(engine) == []
    runs = list((tiny.root / ".lyra" / "runs").iterdir())
    assert len(runs) == 1, "one command line is one run"
    assert {"bake.json", "tests.json", "tests.xml", "metrics.json", "report.html", "logs"} <= {
        path.name for path in runs[0].iterdir()
    }
    assert (runs[0] / "logs" / "web.log").is_file()
    (journal,) = tiny.state.glob("*/journal.jsonl")
    assert Journal(journal).find_problems() == []
    (finding,) = [item for item in json.loads(tiny.lyra("doctor", "--json").out) if item["subject"] == "environment"]
    assert finding["state"] == "warning"
    assert all(name in finding["message"] for name in stray if not name.startswith("DOCKER_")), finding
    assert "unset " in finding["fix"]


def test_dry_run_changes_nothing_and_applies_to_all_tasks_on_the_line(tiny: Project, engine: Engine) -> None:
    lock = tiny.root / ".lyra.lock.toml"
    lock.unlink(missing_ok=True)
    result, document = tiny.lyra("build", "--dry-run"), tiny.lyra("build", "--dry-run", "--json")
    assert (result.code, document.code) == (0, 0)
    assert json.loads(result.out)["target"]["image-web"]["tags"][0].startswith("tiny/web:0.1.0-dev.1_g")
    assert json.loads(document.out) == json.loads(result.out)
    assert not lock.exists()
    assert ours(engine) == []
    assert tiny.lyra("test").code == 3, "nothing was built"
    result = tiny.lyra("build", "clean", "--dry-run")
    assert result.code == 0, result.text
    assert "would remove nothing" in result.out
    assert ours(engine) == []


def test_second_build_reports_no_changes(built: Project) -> None:
    second = built.lyra("build")
    assert second.code == 0
    assert "unchanged" in second.out


def test_changed_source_makes_image_stale(built: Project) -> None:
    (built.root / "app" / "www" / "index.html").write_text("<p>It is changed.</p>")
    result = built.lyra("test")
    assert result.code == 3
    assert "web was built before its context changed" in result.err
    assert "hint: Run `lyra build` first" in result.err


def test_failing_check_exits_5_and_names_logs(built: Project, engine: Engine) -> None:
    built.replace(".lyra.toml", 'body = "It is tiny."', 'body = "It is huge."')
    result = built.lyra("test")
    assert result.code == 5
    assert "the body does not contain 'It is huge.'; it begins: <p>It is tiny.</p>" in result.out
    assert "1 of 4 check(s) failed: the page is there" in result.err
    assert [name for name in ours(engine) if name.startswith("lyra-")] == []


def test_partial_test_run_leaves_no_evidence(built: Project) -> None:
    evidence = sorted(built.state.glob("*/evidence/**/*"))
    result = built.lyra("test", "--only", "the page is there")
    assert result.code == 0, result.text
    assert "1 of 1 checks passed" in result.out
    assert sorted(built.state.glob("*/evidence/**/*")) == evidence


def test_image_without_layers_is_built(built: Project) -> None:
    built.replace(".lyra.toml", 'context = "app"\n', 'context = "app"\n\n[images.empty]\ncontext = "empty"\n')
    (built.root / "empty").mkdir()
    (built.root / "empty/Dockerfile").write_text("FROM scratch\nUSER 1:1\n")
    result = built.lyra("build", "--json")
    assert result.code == 0, result.text
    assert {image.partition("@")[0] for image in json.loads(result.out)["images"]} == {"web", "empty"}
    assert "empty" in built.lyra("status").out


def test_interrupted_test_removes_everything_and_clean_what_a_killed_one_left(built: Project, engine: Engine) -> None:
    built.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 50; echo kept')
    for number in (signal.SIGINT, signal.SIGTERM):
        running = start_check(built)
        start = time.monotonic()
        running.send_signal(number)
        _, errors = running.communicate(timeout=60)
        assert "error: Interrupted" in errors, number
        assert running.returncode == 130, number
        assert time.monotonic() - start < 10, number
        assert [name for name in ours(engine) if name.startswith("lyra-")] == [], number
    running = start_check(built)
    running.kill()
    running.communicate()
    assert [name for name in ours(engine) if name.startswith("lyra-")], "the kill came too late to test anything"
    built.clean()
    assert ours(engine) == []


def start_check(project: Project) -> subprocess.Popen[str]:
    """Start `test` and return it while its last check runs."""
    running = project.start("test")
    assert running.stdout is not None
    next(line for line in running.stdout if "the secret is in place" in line)
    time.sleep(0.5)
    return running


def test_clean_keeps_objects_of_others(built: Project, engine: Engine) -> None:
    api = engine.api
    (image,) = [image for image in api.images() if any(tag.startswith("tiny/web") for tag in image["RepoTags"] or [])]
    labels = {"dev.lyra.run": "somebody", "dev.lyra.nonce": "0123456789abcdef", "dev.lyra.project": "tiny"}
    network = api.create_network("foreign-network", labels=labels)["Id"]
    api.create_volume("foreign-volume", labels=labels)
    api.tag(image["Id"], "foreign/image", "1")
    container = api.create_container_from_config(
        {"Image": image["Id"], "Labels": labels, "HostConfig": {}}, "foreign-container"
    )["Id"]
    try:
        built.clean()
        assert api.inspect_network(network)["Name"] == "foreign-network"
        assert api.inspect_volume("foreign-volume")["Name"] == "foreign-volume"
        assert api.inspect_image("foreign/image:1")["Id"] == image["Id"]
        assert api.inspect_container(container)["Name"] == "/foreign-container"
        assert ours(engine) == []
    finally:
        api.remove_container(container, force=True)
        api.remove_network(network)
        api.remove_volume("foreign-volume")
        api.remove_image("foreign/image:1")


def test_clean_works_with_invalid_configuration(built: Project, engine: Engine) -> None:
    (built.root / "app" / "Dockerfile").unlink()
    built.replace(".lyra.toml", "[images.web]", "[imagez.web]")
    cleaned = built.lyra("clean", "build")
    assert cleaned.code == 2, "build requires a valid configuration"
    assert "warning: 1 problem in .lyra.toml; continuing with its valid parts" in cleaned.err
    assert ours(engine) == []
    built.replace(".lyra.toml", 'name = "tiny"', 'project_name = "tiny"')
    refused = built.lyra("clean")
    assert refused.code == 2, "the project is unknown without its name"
