"""What keeps this machine or user from running a private engine, found out without starting one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from lyra_tasks.processes import run_captured

_TOOLS = ("apt-get", "dpkg", "unshare")
_PROBE_TIMEOUT_S = 10.0
# Joining one's own mount namespace leads to its root, from where runc starts what `docker exec` runs.
_ROOT_PROBE = """
import ctypes, os
descriptors = os.open("/proc/self/fdinfo", os.O_RDONLY)
def identify_root():
    root = os.open("/", os.O_PATH)
    with open(os.open(str(root), os.O_RDONLY, dir_fd=descriptors)) as file:
        mount = [line for line in file if line.startswith("mnt_id")]
    return mount, os.stat("/").st_dev, os.stat("/").st_ino
inside = identify_root()
if ctypes.CDLL(None).setns(os.open("/proc/self/ns/mnt", os.O_RDONLY), 0x20000) == 0:
    print(inside == identify_root())
"""


def find_obstacle() -> str:
    """Return why no private engine can be started here, or ""."""
    if os.geteuid() != 0:
        return "not root"
    missing_tools = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing_tools:
        return f"{missing_tools[0]} not found"
    if is_chroot():
        return "this is a chroot, and commands in containers would reach the files outside"
    return ""


def is_chroot() -> bool:
    """Return whether `/` is not the root of the mount namespace; False where that cannot be found out."""
    try:
        result = run_captured([sys.executable, "-I", "-S", "-c", _ROOT_PROBE], timeout=_PROBE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.stdout.strip() == "False"
