"""build, test and clean on a real engine, run as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.records.journal import Journal
from tests.conftest import Project, ours


def test_build_test_clean_leave_only_records(tiny: Project, engine: Engine) -> None:
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


def test_second_build_reports_no_changes(tiny: Project) -> None:
    assert tiny.lyra("build").code == 0
    second = tiny.lyra("build")
    assert second.code == 0
    assert "unchanged" in second.out


def test_dry_run_changes_nothing(tiny: Project, engine: Engine) -> None:
    lock = tiny.root / ".lyra.lock.toml"
    lock.unlink(missing_ok=True)
    result, document = tiny.lyra("build", "--dry-run"), tiny.lyra("build", "--dry-run", "--json")
    assert (result.code, document.code) == (0, 0)
    assert json.loads(result.out)["target"]["image-web"]["tags"][0].startswith("tiny/web:0.1.0-dev.1_g")
    assert json.loads(document.out) == json.loads(result.out)
    assert not lock.exists()
    assert ours(engine) == []
    assert tiny.lyra("test").code == 3, "nothing was built"


def test_dry_run_applies_to_all_tasks_on_the_line(tiny: Project, engine: Engine) -> None:
    result = tiny.lyra("build", "clean", "--dry-run")
    assert result.code == 0, result.text
    assert "would remove nothing" in result.out
    assert ours(engine) == []


def test_changed_source_makes_image_stale(tiny: Project) -> None:
    assert tiny.lyra("build").code == 0
    (tiny.root / "app" / "www" / "index.html").write_text("<p>It is changed.</p>")
    result = tiny.lyra("test")
    assert result.code == 3
    assert "web was built before its context changed" in result.err
    assert "hint: Run `lyra build` first" in result.err


def test_failing_check_exits_5_and_names_logs(tiny: Project, engine: Engine) -> None:
    tiny.replace(".lyra.toml", 'body = "It is tiny."', 'body = "It is huge."')
    result = tiny.lyra("build", "test")
    assert result.code == 5
    assert "the body does not contain 'It is huge.'; it begins: <p>It is tiny.</p>" in result.out
    assert "1 of 4 check(s) failed: the page is there" in result.err
    assert [name for name in ours(engine) if name.startswith("lyra-")] == []


def test_clean_keeps_objects_of_others(tiny: Project, engine: Engine) -> None:
    assert tiny.lyra("build").code == 0
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
        tiny.clean()
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


def test_clean_works_with_invalid_configuration(tiny: Project, engine: Engine) -> None:
    assert tiny.lyra("build").code == 0
    (tiny.root / "app" / "Dockerfile").unlink()
    tiny.replace(".lyra.toml", "[images.web]", "[imagez.web]")
    cleaned = tiny.lyra("clean", "build")
    assert cleaned.code == 2, "build requires a valid configuration"
    assert "warning: 1 problem in .lyra.toml; continuing with its valid parts" in cleaned.err
    assert ours(engine) == []
    tiny.replace(".lyra.toml", 'name = "tiny"', 'project_name = "tiny"')
    refused = tiny.lyra("clean")
    assert refused.code == 2, "the project is unknown without its name"
    tiny.git("checkout", "--", ".")


def interrupted_by(tiny: Project, number: signal.Signals) -> tuple[int, float]:
    """Send a signal while the checks run; return the exit code and the seconds until the program exited."""
    tiny.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 50; echo kept')
    assert tiny.lyra("build").code == 0
    running = tiny.start("test")
    assert running.stdout is not None
    for line in running.stdout:
        if "the secret is in place" in line:
            break
    time.sleep(0.5)
    start = time.monotonic()
    os.kill(running.pid, number)
    _, errors = running.communicate(timeout=60)
    assert "error: Interrupted" in errors
    return running.returncode, time.monotonic() - start


def test_interrupt_during_check_removes_everything(tiny: Project, engine: Engine) -> None:
    code, seconds = interrupted_by(tiny, signal.SIGINT)
    assert code == 130
    assert seconds < 10
    assert [name for name in ours(engine) if name.startswith("lyra-")] == []


def test_sigterm_during_check_removes_everything(tiny: Project, engine: Engine) -> None:
    code, seconds = interrupted_by(tiny, signal.SIGTERM)
    assert code == 130
    assert seconds < 10
    assert [name for name in ours(engine) if name.startswith("lyra-")] == []


def test_clean_removes_leftovers_of_killed_run(tiny: Project, engine: Engine) -> None:
    tiny.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 50; echo kept')
    assert tiny.lyra("build").code == 0
    running = tiny.start("test")
    assert running.stdout is not None
    next(line for line in running.stdout if "the secret is in place" in line)
    running.kill()
    running.communicate()
    assert [name for name in ours(engine) if name.startswith("lyra-")], "the kill came too late to test anything"
    tiny.clean()
    assert ours(engine) == []


def test_partial_test_run_leaves_no_evidence(tiny: Project) -> None:
    result = tiny.lyra("build", "test", "--only", "the page is there")
    assert result.code == 0, result.text
    assert "1 of 1 checks passed" in result.out
    assert not list(Path(tiny.state).glob("*/evidence/*"))


def test_image_without_layers_is_built(tiny: Project) -> None:
    tiny.replace(".lyra.toml", 'context = "app"\n', 'context = "app"\n\n[images.empty]\ncontext = "empty"\n')
    (tiny.root / "empty").mkdir()
    (tiny.root / "empty/Dockerfile").write_text("FROM scratch\nUSER 1:1\n")
    result = tiny.lyra("build", "--json")
    assert result.code == 0, result.text
    assert {image.partition("@")[0] for image in json.loads(result.out)["images"]} == {"web", "empty"}
    assert "empty" in tiny.lyra("status").out
