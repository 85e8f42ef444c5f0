"""The tasks, to compose in an own `tasks.py` or to call from Python, and the error that a failing call raises.

Each is called with an Invoke context, does what its parameters say, and returns what its `--json` prints as a frozen
result of `lyra_tasks.results`. Here, and only here, Invoke is known; everything else is imported when a task runs.
"""

from lyra_tasks.tasks.bundle import bundle_list, bundle_pack, bundle_rehearse, bundle_remove, diff, verify
from lyra_tasks.tasks.configuration import config_schema, config_show, init, rules_explain, rules_list
from lyra_tasks.tasks.development import create, dev_exec, dev_restart, dev_shell, dev_stop, dev_sync
from lyra_tasks.tasks.engine import engine_down, engine_status, engine_up, lock_show, lock_update
from lyra_tasks.tasks.lifecycle import build, clean, promote, test
from lyra_tasks.tasks.overview import doctor, explain, history, logs, stats, status
from lyra_tasks.tasks.releases import release, release_list, release_version
from lyra_tasks.tasks.task import TaskError

__all__ = [
    "TaskError",
    "build",
    "bundle_list",
    "bundle_pack",
    "bundle_rehearse",
    "bundle_remove",
    "clean",
    "config_schema",
    "config_show",
    "create",
    "dev_exec",
    "dev_restart",
    "dev_shell",
    "dev_stop",
    "dev_sync",
    "diff",
    "doctor",
    "engine_down",
    "engine_status",
    "engine_up",
    "explain",
    "history",
    "init",
    "lock_show",
    "lock_update",
    "logs",
    "promote",
    "release",
    "release_list",
    "release_version",
    "rules_explain",
    "rules_list",
    "stats",
    "status",
    "test",
    "verify",
]
