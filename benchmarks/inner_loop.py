"""The demo from an edit to the results of its tests, against Compose and the same checks by hand; and unchanged.

Compose builds the images and both test stages, starts the services, runs the checks and removes everything. Its file is
that of the bundle, with the health check intervals of a test environment.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import yaml

from benchmarks.build import rename_images
from benchmarks.measure import Measurement, Row, create_row, measure_in_turn, measure_script
from benchmarks.project import Project, copy_demo, start_engine
from lyra_tasks.engine.buildx.bake import BUILDX_ENVIRONMENT

ROUNDS = 5
_BASE = "127.0.0.1:9/demo-base:1"  # a closed port: no registry is asked
_EDITED_FILE = "dockerfiles/web/guestbook/server.py"
_CHECKS = """
set -ex
port=$(docker compose --file {file} --project-name demo port web 8000)
url=http://{address}:${{port##*:}}
run() {{ docker compose --file {file} --project-name demo exec -T "$@"; }}
curl -fsS $url/ | grep hello > /dev/null
curl -fsS $url/ | grep "<h1>The guestbook of the lyre</h1>" > /dev/null
curl -fsS -H 'Content-Type: application/json' -d '{{"name": "Ada", "message": "written in a test"}}' \\
  $url/entries | grep Ada > /dev/null
curl -fsS $url/ | grep "written in a test" > /dev/null
test $(curl -sS -o /dev/null -w '%{{http_code}}' -H 'Content-Type: application/json' \\
  -d '{{"name": "Ada", "message": ""}}' $url/entries) = 400
test $(curl -sS -o /dev/null -w '%{{http_code}}' $url/admin) = 401
curl -fsS -H "Authorization: Bearer only-for-tests" $url/admin | grep "entries: 1" > /dev/null
curl -fsS $url/metrics | grep "guestbook_entries 1" > /dev/null
curl -fsS $url/healthz | grep ok > /dev/null
curl -fsS -o /dev/null $url/healthz
docker compose --file {file} --project-name demo logs web | grep '"path": "/entries", "status": 201' > /dev/null
run web python3 -c "import os; print('uid', os.getuid())" | grep "uid 10001" > /dev/null
! run web python3 -c "open('/app/new', 'w')" 2> /dev/null
run counter python3 -m counter.healthcheck
run web python3 -c "from urllib.request import urlopen as u; print(u('http://counter:8000/hits', b'').read())" \\
  | grep hits > /dev/null
"""


def measure_inner_loop() -> Iterator[Row]:
    """Measure one changed line of the demo to the results, and everything again without a change."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, start_engine(Path(name), "containerd") as box:
        demo = copy_demo(Path(name), box)
        environment = demo.environment
        demo.run("build", "test", "promote")
        script = _write_compose_project(Path(name, "compose"), demo, box.address)
        numbers = count()

        def edit(root: Path) -> None:
            file = root / _EDITED_FILE
            file.write_text(f"{file.read_text()}\n# edit {next(numbers)}\n")

        def ours() -> Measurement:
            edit(demo.root)
            return demo.run("build", "test")

        def theirs() -> Measurement:
            edit(Path(name, "compose"))
            return measure_script(script, Path(name, "compose"), environment)

        theirs()  # fills the build cache
        edits = measure_in_turn(ROUNDS, ours=ours, theirs=theirs)
        yield create_row(
            "demo: one changed line to the results (build test)",
            edits["ours"],
            "docker compose build, test stages, up --wait, checks, down -v",
            edits["theirs"],
            0.5,
        )
        demo.run("build", "test", "promote")
        Path(name, "bake.json").write_text(rename_images(demo.output("build", "--dry-run")))
        files = f"--file {name}/bake.json --metadata-file {name}/metadata.json"
        variables = {key: value for key, value in BUILDX_ENVIRONMENT.items() if key != "BUILDX_GIT_INFO"}
        bake = partial(
            measure_script, f"docker buildx bake --progress plain {files}", demo.root, {**environment, **variables}
        )
        bake()
        unchanged = measure_in_turn(
            ROUNDS,
            ours=partial(demo.run, "build", "test", "promote"),
            bake=bake,
            start=partial(demo.run, "engine.status"),
        )
        yield create_row(
            "demo: nothing changed (build test promote), without start-up",
            unchanged["ours"].minus(unchanged["start"]),
            "docker buildx bake",
            unchanged["bake"],
            2.0,
        )


def _build_base(demo: Project) -> None:
    """Give the engine the base of the demo, made from Debian packages, as an image for Compose."""
    targets = json.loads(demo.output("build", "--dry-run"))["target"]
    (base,) = (target for name, target in targets.items() if name.startswith("base-"))
    command = ["docker", "buildx", "build", "--load", "--tag", _BASE, "--file", base["dockerfile"], base["context"]]
    subprocess.run(command, env=demo.environment, check=True, capture_output=True)


def _write_compose_project(root: Path, demo: Project, address: str) -> str:
    """Write the demo as a Compose project; return the script that builds, tests and removes it.

    `address` is where published ports are reached.
    """
    shutil.copytree(demo.root / "dockerfiles", root / "dockerfiles")
    (bundled,) = demo.root.glob("promotion/*/*/deploy")
    shutil.copytree(bundled / "configs", root / "configs", dirs_exist_ok=True)
    _build_base(demo)
    document = yaml.safe_load((bundled / "compose.yaml").read_text())
    tests = {}
    for name, service in document["services"].items():
        build = {"context": f"./dockerfiles/{name}", "args": {"PYTHON": _BASE}}
        service["build"] = {**build, "target": "runtime"}
        service["image"] = f"demo/{name}"
        service["healthcheck"] = {**service.get("healthcheck", {}), "interval": "1s", "start_interval": "200ms"}
        tests[f"test-{name}"] = {
            "build": {**build, "target": "test"},
            "image": f"demo/test-{name}",
        }
    document["services"]["web"]["environment"]["ADMIN_TOKEN"] = "only-for-tests"  # noqa: S105
    document["services"]["web"]["ports"] = ["8000"]
    (root / "session_key").write_text("0123456789abcdef0123456789abcdef")
    for secret in document.get("secrets", {}).values():
        secret.clear()
        secret["file"] = "./session_key"
    file = shlex.quote(str(root / "compose.yaml"))
    (root / "compose.yaml").write_text(yaml.safe_dump(document))
    (root / "tests.yaml").write_text(yaml.safe_dump({"services": tests}))
    compose = f"docker compose --file {file} --project-name demo"
    return "\n".join(
        (
            f"{compose} --progress plain build",
            f"docker compose --file {shlex.quote(str(root / 'tests.yaml'))} --project-name demo --progress plain build",
            f"{compose} up --wait --detach",
            _CHECKS.format(file=file, address=address).strip(),
            f"{compose} down --volumes --timeout 0",
        )
    )
