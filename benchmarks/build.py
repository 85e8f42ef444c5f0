"""`build` where nothing changed, against one raw `docker buildx bake` of the same definition.

What every word takes before it begins (Python, the configuration, the engine's first answer) is measured and left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, in_turn, row, shell
from benchmarks.project import engine, project
from lyra_tasks.engine.buildx.bake import BUILDX_ENVIRONMENT

TIMES = 5


def rows() -> Iterator[Row]:
    """One image, and twenty."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, engine(Path(name), "containerd") as box:
        for count in (1, 20):
            folder = Path(name, str(count))
            measured = project(folder, box, {f"image{number}": [] for number in range(count)})
            (folder / "bake.json").write_text(measured.says("build", "--dry-run"))
            bake = f"docker buildx bake --progress plain --file {folder}/bake.json --metadata-file {folder}/said.json"
            same = {
                key: value for key, value in BUILDX_ENVIRONMENT.items() if key != "BUILDX_GIT_INFO"
            }  # it asks git, as ours does
            environment = {**measured.environment, **same}
            measured.word("build")
            found = in_turn(
                TIMES,
                build=partial(measured.word, "build"),
                bake=partial(shell, bake, measured.root, environment),
                start=partial(measured.word, "engine.status"),
            )
            what = f"build, nothing changed, {count} image{'s' * (count > 1)}, beyond start-up"
            yield row(what, found["build"].beyond(found["start"]), "docker buildx bake", found["bake"], 1.3)
