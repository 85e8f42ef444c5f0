"""Remove what Buildx notes of each build for its history commands, since it never removes that itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lyra_tasks.engine.client.contexts import docker_config_directory

_GROUPS = "__group__"
_METADATA_KEY = "buildx.build.ref"
_CLOCK_TOLERANCE_S = 2.0  # the resolution of times on some file systems


def forget_builds(environment: Mapping[str, str], directory: Path, metadata: Mapping[str, Any], since: float) -> None:
    """Remove the notes about builds since a time whose contexts are in `directory`, or that are in the metadata."""
    configured = environment.get("BUILDX_CONFIG")
    docker_config = Path(environment.get("DOCKER_CONFIG") or docker_config_directory())
    references = (Path(configured) if configured else docker_config / "buildx") / "refs"
    ids = {str(target.get(_METADATA_KEY)) for target in metadata.values() if isinstance(target, dict)}
    with suppress(OSError):
        for path in references.glob("*/*/*"):
            name = "/".join(path.parts[-3:])
            if name in ids or (_is_new(path, since) and str(directory) in path.read_text(errors="replace")):
                path.unlink()
                ids.add(name)
        quoted_ids = [f'"{name.rpartition("/")[2]}"' for name in ids]
        for path in (references / _GROUPS).glob("*"):
            if _is_new(path, since) and any(quoted in path.read_text(errors="replace") for quoted in quoted_ids):
                path.unlink()


def _is_new(path: Path, since: float) -> bool:
    return path.stat().st_mtime >= since - _CLOCK_TOLERANCE_S
