"""The words of a collection, as completion looks at them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lyra_tasks import console


def offer(collection: Any, core: Any) -> None:
    """Print what may stand in place of the last word of the line after `--`, one per line."""
    from lyra_tasks.setup.completion import complete

    typed = sys.argv[sys.argv.index("--") + 2 :] if "--" in sys.argv else []
    words = {
        str(context.name): _word(str(context.name), context.args.values(), collection[context.name].positional or ())
        for context in _known(collection)
    }
    words |= {alias: words[str(context.name)] for context in _known(collection) for alias in context.aliases}
    for candidate in complete(typed, words, _word("", core.args.values(), ()), Path.cwd()):
        console.say(candidate)


def _known(collection: Any) -> list[Any]:
    return list(collection.to_contexts())


def _word(name: str, arguments: Iterable[Any], positional: Iterable[Any]) -> Any:
    from lyra_tasks.setup.completion import Option, Word

    options = []
    for argument in dict.fromkeys(arguments):
        names = [str(name).replace("_", "-") for name in argument.names]
        flags = tuple(f"-{name}" if len(name) == 1 else f"--{name}" for name in names)
        options.append(Option(str(argument.name).replace("_", "-"), flags, bool(argument.takes_value)))
    return Word(name, tuple(options), tuple(str(each) for each in positional))
