"""`build` without changes, against `docker buildx bake` of the same bake file.

The start-up time of every command (Python, the configuration, the first request to the engine) is subtracted.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, create_row, measure_in_turn, measure_script
from benchmarks.project import create_project, start_engine
from lyra_tasks.engine.buildx.bake import BUILDX_ENVIRONMENT

ROUNDS = 5


def rename_images(definition: str) -> str:
    """Return a bake definition whose images have other names, since replacing ours would be a change for `build`."""
    document = json.loads(definition)
    for target in document["target"].values():
        if "tags" in target:  # a base has none
            target["tags"] = [f"raw-{tag}" for tag in target["tags"]]
    return json.dumps(document)


def measure_build() -> Iterator[Row]:
    """Measure a project with one image, and one with twenty."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, start_engine(Path(name), "containerd") as box:
        for count in (1, 20):
            directory = Path(name, str(count))
            sample = create_project(directory, box, {f"image{number}": [] for number in range(count)})
            (directory / "bake.json").write_text(rename_images(sample.output("build", "--dry-run")))
            files = f"--file {directory}/bake.json --metadata-file {directory}/metadata.json"
            bake = f"docker buildx bake --progress plain {files}"
            # Buildx reads git, as Lyra does.
            variables = {key: value for key, value in BUILDX_ENVIRONMENT.items() if key != "BUILDX_GIT_INFO"}
            environment = {**sample.environment, **variables}
            sample.run("build")
            measurements = measure_in_turn(
                ROUNDS,
                build=partial(sample.run, "build"),
                bake=partial(measure_script, bake, sample.root, environment),
                start=partial(sample.run, "engine.status"),
            )
            row_name = f"build without changes, {count} image{'s' * (count > 1)}, without start-up"
            yield create_row(
                row_name,
                measurements["build"].minus(measurements["start"]),
                "docker buildx bake",
                measurements["bake"],
                1.7 if count == 1 else 1.3,
            )
