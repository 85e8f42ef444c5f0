"""--quiet is an option of every Lyra task, and of no task of the project."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.tasks import task

from lyra_tasks.tasks.collection import create_collection
from lyra_tasks.tasks.task import LyraTask


@task
def project_task(c: object) -> None:
    """A task of the project."""


def test_every_lyra_task_has_quiet_option() -> None:
    collection: Collection = create_collection([project_task])
    tasks = [collection[name] for name in collection.task_names]
    assert len(tasks) > 20
    for item in tasks:
        has_quiet = any(argument.name == "quiet" for argument in item.get_arguments())
        assert has_quiet == isinstance(item, LyraTask), item.name
