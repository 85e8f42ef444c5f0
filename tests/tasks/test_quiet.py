"""--quiet is an option of every word, and of no task of somebody else's."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.tasks import task

from lyra_tasks.tasks.collection import create_collection
from lyra_tasks.tasks.task import LyraTask


@task
def stranger(c: object) -> None:
    """A task that a project brings along."""


def test_every_word_can_be_quiet() -> None:
    found: Collection = create_collection(stranger)
    words = [found[name] for name in found.task_names]
    assert len(words) > 20
    for word in words:
        has = any(argument.name == "quiet" for argument in word.get_arguments())
        assert has == isinstance(word, LyraTask), word.name
