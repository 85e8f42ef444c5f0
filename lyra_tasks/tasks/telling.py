"""`history` and `explain`: what happened, and what stands in the way."""

from __future__ import annotations

from typing import Any

from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.word import word


@word(
    run="everything that one run did; the beginning of its id is enough",
    object="everything about a container, network, volume, image, version or digest, by name or id",
    check="whether every line of the journal is as it was written; if not, the exit code is 5",
)
def history(c: Any, run: str = "", object: str = "", check: bool = False, json: bool = False) -> None:
    """What was done here, by whom and with what result, out of the journal."""
    from lyra_tasks.overview import history as reading
    from lyra_tasks.overview import show_history

    work = workspace()
    journal = work.journal
    # that somebody looks is written down too, and is not what they look for
    before = [] if check else [entry for entry in journal.entries() if entry.run != work.run]
    if check:
        return show_history.checked(journal)
    if run:
        return show_history.entries(reading.of_run(before, run))
    if object:
        return show_history.entries(reading.about(before, object))
    return show_history.table(reading.runs(before))


@word()
def explain(c: Any, json: bool = False) -> None:
    """What stands between this checkout and a promotion, which change did it, and the words to run; changes nothing."""
    from lyra_tasks.overview import explain_facts, show_explain
    from lyra_tasks.overview.explain import explain as explained

    show_explain.explained(explained(explain_facts.gather(workspace())))
