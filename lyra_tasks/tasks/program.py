"""The programs `./inv` and `lyra`: Invoke's own parser, with documented exit codes for usage (2) and Ctrl-C (130)."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.program import Program

import lyra_tasks
from lyra_tasks import console
from lyra_tasks.errors import ConfigurationError, InterruptedRunError, PreconditionError, UsageError, from_os_error

_EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE  # as a shell tells it
_GC_THRESHOLD = 50_000  # objects; what is imported is made of many, of which none is garbage


class LyraProgram(Program):
    """Invoke's Program; a usage error ends with 2 and an interrupt with 130, where plain `invoke` returns 1."""

    _dont_write_bytecode = False

    def create_config(self) -> None:
        try:
            super().create_config()
        except OSError as error:
            # Invoke looks for a configuration of its own in the home folder
            console.error(f"{error.filename}: {error.strerror}", "set HOME to a folder that you can read")
            raise Exit(code=PreconditionError.exit_code) from error

    def parse_core(self, argv: list[str] | None) -> None:
        self._dont_write_bytecode = sys.dont_write_bytecode
        if "--print-completion-script" in sys.argv[1:2]:
            _print_completion_script(sys.argv[2:3])
            raise Exit
        try:
            super().parse_core(argv)
        except ParseError as error:
            raise Exit(str(error), code=2) from error

    def parse_tasks(self) -> None:
        try:
            super().parse_tasks()
        except ParseError as error:
            hint = "`--list` shows all words, `WORD --help` the options of one"
            raise Exit(f"{error}\nhint: {self._closest_task_hint(str(error))}{hint}", code=2) from error

    def _closest_task_hint(self, message: str) -> str:
        """The word that may have been meant by the one that Invoke does not know."""
        from difflib import get_close_matches

        unknown = message.split("'")[1] if message.count("'") >= 2 else ""
        matches = get_close_matches(unknown, list(self.collection.task_names), 1)
        return f"did you mean {matches[0]}? " if matches else ""

    def print_columns(self, pairs: Any) -> None:
        try:
            super().print_columns(pairs)
        except ValueError:  # a terminal that is narrower than the names alone
            for name, text in pairs:
                console.print(f"  {name}\n    {text}")

    def parse_cleanup(self) -> None:
        if self.args.complete.value:
            print_completions(self.collection, self.initial_context)
            raise Exit
        super().parse_cleanup()

    def execute(self) -> None:
        # Invoke writes none for a `tasks.py`, which has been read by now; compiling all that the words import would be
        # a third of every start
        sys.dont_write_bytecode = self._dont_write_bytecode
        try:
            super().execute()
        except KeyboardInterrupt as error:
            raise Exit(code=InterruptedRunError.exit_code) from error


def main() -> None:
    """The entry point of `lyra`, and of `./inv` where a `tasks.py` is in reach."""
    namespace = None if _has_tasks_file(_working_directory()) else Collection.from_module(sys.modules["lyra_tasks"])
    _run_program(LyraProgram(version=lyra_tasks.__version__, name="Lyra", binary="lyra", namespace=namespace))


def inv() -> None:
    """The entry point of `./inv`: works in the caller's project, or in the one `./inv` belongs to.

    `init` makes the caller's folder one.
    """
    inv_home = os.environ.get("LYRA_INV_HOME")
    start = _working_directory()
    is_in_project = any((directory / ".lyra.toml").is_file() for directory in (start, *start.parents))
    if inv_home and not is_in_project and "init" not in sys.argv[1:]:
        os.chdir(inv_home)
    main()


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        console.error("the working directory no longer exists", "change to the project")
        sys.exit(ConfigurationError.exit_code)


def _run_program(program: Program) -> None:
    """Run it, and leave at once when all is done: to take the modules apart, Python needs 60 ms of every word."""
    gc.set_threshold(_GC_THRESHOLD)
    exit_code = 1

    def exit_now() -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BrokenPipeError:
            os._exit(_EXIT_BROKEN_PIPE)
        except (OSError, ValueError):
            return  # Python tells it on its own way out
        os._exit(exit_code)

    # the first that is registered is the last that is called; what modules of Python's own have registered is left out
    atexit.register(exit_now)
    try:
        program.run()
        exit_code = 0
    except SystemExit as exit_request:
        exit_code = exit_request.code if isinstance(exit_request.code, int) else 0 if exit_request.code is None else 1
        raise
    except KeyboardInterrupt:
        exit_code = InterruptedRunError.exit_code
        raise
    except BrokenPipeError:
        # whoever read has had enough, as `… | head`; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        exit_code = _EXIT_BROKEN_PIPE
        sys.exit(exit_code)
    except OSError as error:
        known_error = from_os_error(error, "what is printed")
        if known_error is None:
            raise
        console.error(known_error.message, known_error.hint)
        exit_code = known_error.exit_code
        sys.exit(exit_code)


def _print_completion_script(shells: list[str]) -> None:
    from lyra_tasks.init.completion import completion_script

    try:
        console.print(completion_script(shells[0] if shells else ""))
    except UsageError as error:
        raise Exit(f"{error.message}\nhint: {error.hint}", code=2) from error


def _has_tasks_file(start: Path) -> bool:
    return any((directory / "tasks.py").is_file() for directory in (start, *start.parents))


if __name__ == "__main__":
    inv()


def print_completions(collection: Any, core_context: Any) -> None:
    """Print what may stand in place of the last word of the line after `--`, one per line."""
    from lyra_tasks.init.completion import complete_command_line

    typed_words = sys.argv[sys.argv.index("--") + 2 :] if "--" in sys.argv else []
    entries = {
        str(context.name): _completion_entry(
            str(context.name), context.args.values(), collection[context.name].positional or ()
        )
        for context in _task_contexts(collection)
    }
    entries |= {
        alias: entries[str(context.name)] for context in _task_contexts(collection) for alias in context.aliases
    }
    for candidate in complete_command_line(
        typed_words, entries, _completion_entry("", core_context.args.values(), ()), Path.cwd()
    ):
        console.print(candidate)


def _task_contexts(collection: Any) -> list[Any]:
    return list(collection.to_contexts())


def _completion_entry(name: str, arguments: Iterable[Any], positional: Iterable[Any]) -> Any:
    from lyra_tasks.init.completion import CommandSpec, OptionSpec

    options = []
    for argument in dict.fromkeys(arguments):
        names = [str(spelling).replace("_", "-") for spelling in argument.names]
        flags = tuple(f"-{flag}" if len(flag) == 1 else f"--{flag}" for flag in names)
        options.append(OptionSpec(str(argument.name).replace("_", "-"), flags, bool(argument.takes_value)))
    return CommandSpec(name, tuple(options), tuple(str(name) for name in positional))
