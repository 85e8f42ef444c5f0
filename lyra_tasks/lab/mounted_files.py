"""Configs and secrets as files of this machine, for engines that cannot mount single files of a volume."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lyra_tasks.engine.objects.containers import ContainerFile
from lyra_tasks.lab.facts import MOUNTS_DIRECTORY
from lyra_tasks.lab.plan import LabPlan


def write_mounted_files(plan: LabPlan) -> None:
    """Write the configs and secrets that a lab mounts from here; no other user can enter their directory."""
    for service in plan.services.values():
        for mount in service.payload["HostConfig"]["Mounts"]:
            if mount["Type"] != "bind":
                continue
            source = Path(mount["Source"])
            kind, key = source.parts[-2:]
            files = service.config_files if kind == "configs" else service.secret_files
            source.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_mounted_file(source, next(file for file in files if file.name == key))


def _write_mounted_file(path: Path, file: ContainerFile) -> None:
    path.unlink(missing_ok=True)  # the file of an earlier `create` is read-only
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(file.content)
    mode = file.mode
    if file.uid:
        try:
            os.chown(path, file.uid, file.gid)
        except PermissionError:
            mode = 0o444  # only root can change the owner, and the container's user must be able to read the file
    path.chmod(mode)


def remove_mounted_files(run_directory: Path) -> None:
    """Remove the files that `write_mounted_files` wrote."""
    shutil.rmtree(run_directory / MOUNTS_DIRECTORY, ignore_errors=True)
