"""build, test and clean on the real engine, run as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.records.journal import Journal
from tests.conftest import Project, ours


def test_build_test_and_clean_in_one_line_leave_nothing_but_records(tiny: Project, engine: Engine) -> None:
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


def test_a_second_build_changes_nothing_and_says_so(tiny: Project) -> None:
    assert tiny.lyra("build").code == 0
    again = tiny.lyra("build")
    assert again.code == 0
    assert "unchanged" in again.out


def test_what_a_dry_run_shows_is_not_done(tiny: Project, engine: Engine) -> None:
    lock = tiny.root / ".lyra.lock.toml"
    lock.unlink(missing_ok=True)
    result, document = tiny.lyra("build", "--dry-run"), tiny.lyra("build", "--dry-run", "--json")
    assert (result.code, document.code) == (0, 0)
    assert json.loads(result.out)["target"]["image-web"]["tags"][0].startswith("tiny/web:0.1.0-dev.1_g")
    assert json.loads(document.out) == json.loads(result.out)
    assert not lock.exists()
    assert ours(engine) == []
    assert tiny.lyra("test").code == 3, "nothing was built"


def test_a_dry_run_anywhere_on_the_line_holds_for_all_of_it(tiny: Project, engine: Engine) -> None:
    result = tiny.lyra("build", "clean", "--dry-run")
    assert result.code == 0, result.text
    assert "would remove nothing" in result.out
    assert ours(engine) == []


def test_a_changed_source_file_makes_the_image_stale_and_names_what_changed(tiny: Project) -> None:
    assert tiny.lyra("build").code == 0
    (tiny.root / "app" / "www" / "index.html").write_text("<p>It is changed.</p>")
    result = tiny.lyra("test")
    assert result.code == 3
    assert "web was built before its context changed" in result.err
    assert "hint: run `build` first" in result.err


def test_a_failing_check_exits_5_and_says_what_was_seen_and_where_the_logs_are(tiny: Project, engine: Engine) -> None:
    tiny.replace(".lyra.toml", 'body = "It is tiny."', 'body = "It is huge."')
    result = tiny.lyra("build", "test")
    assert result.code == 5
    assert "the body does not contain 'It is huge.'; it begins: <p>It is tiny.</p>" in result.out
    assert "1 of 4 check(s) failed: the page is there" in result.err
    assert [name for name in ours(engine) if name.startswith("lyra-")] == []


def test_foreign_objects_are_untouched_by_clean_whatever_their_labels_say(tiny: Project, engine: Engine) -> None:
    assert tiny.lyra("build").code == 0
    api = engine.api
    (image,) = [each for each in api.images() if any(tag.startswith("tiny/web") for tag in each["RepoTags"] or [])]
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


def test_clean_does_its_work_in_spite_of_a_configuration_that_has_become_wrong(tiny: Project, engine: Engine) -> None:
    assert tiny.lyra("build").code == 0
    (tiny.root / "app" / "Dockerfile").unlink()
    tiny.replace(".lyra.toml", "[images.web]", "[imagez.web]")
    cleaned = tiny.lyra("clean", "build")
    assert cleaned.code == 2, "what is made needs a whole configuration"
    assert "warning: 2 problems in .lyra.toml; going on with what is right in it" in cleaned.err
    assert ours(engine) == []
    tiny.replace(".lyra.toml", 'name = "tiny"', 'nam = "tiny"')
    refused = tiny.lyra("clean")
    assert refused.code == 2, "nobody knows any more which project this is"
    tiny.git("checkout", "--", ".")


def interrupted_by(tiny: Project, number: signal.Signals) -> tuple[int, float]:
    """Send a signal while the checks run; exit code and seconds until the program had ended."""
    tiny.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 50; echo kept')
    assert tiny.lyra("build").code == 0
    running = tiny.start("test")
    assert running.stdout is not None
    for line in running.stdout:
        if "the secret is in place" in line:
            break
    time.sleep(0.5)
    began = time.monotonic()
    os.kill(running.pid, number)
    _, errors = running.communicate(timeout=60)
    assert "interrupted" in errors
    return running.returncode, time.monotonic() - began


def test_ctrl_c_during_a_check_removes_everything_within_ten_seconds(tiny: Project, engine: Engine) -> None:
    code, seconds = interrupted_by(tiny, signal.SIGINT)
    assert code == 130
    assert seconds < 10
    assert [name for name in ours(engine) if name.startswith("lyra-")] == []


def test_sigterm_during_a_check_removes_everything_too(tiny: Project, engine: Engine) -> None:
    code, seconds = interrupted_by(tiny, signal.SIGTERM)
    assert code == 130
    assert seconds < 10
    assert [name for name in ours(engine) if name.startswith("lyra-")] == []


def test_what_a_killed_run_left_is_removed_by_clean(tiny: Project, engine: Engine) -> None:
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


def test_only_some_checks_leave_no_evidence(tiny: Project) -> None:
    result = tiny.lyra("build", "test", "--only", "the page is there")
    assert result.code == 0, result.text
    assert "1 of 1 checks passed" in result.out
    assert not list(Path(tiny.state).glob("*/evidence/*"))
