"""Configs and secrets as files to bind mount, for engines that cannot mount single files of a volume."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lyra_tasks.engine.objects.containers import ContainerFile
from lyra_tasks.lab.mounted_files import write_mounted_files


def test_mounted_secret_is_private_without_root_and_rewritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "mounts" / "web" / "secrets" / "key"
    mounts = [{"Type": "bind", "Source": str(source)}, {"Type": "tmpfs"}]
    modes = []

    def refuse(path: Path, _uid: int, _gid: int) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "chown", refuse)
    for content in (b"first", b"second"):
        service = SimpleNamespace(
            payload={"HostConfig": {"Mounts": mounts}},
            config_files=(),
            secret_files=(ContainerFile("key", content, 65534, 65534, 0o400),),
        )
        plan: Any = SimpleNamespace(services={"web": service})
        write_mounted_files(plan)
        assert source.read_bytes() == content
        assert stat.S_IMODE(source.stat().st_mode) == 0o444, "the container's user is a different one"
        assert stat.S_IMODE(source.parent.stat().st_mode) == 0o700
    assert modes == [0o600, 0o600]
