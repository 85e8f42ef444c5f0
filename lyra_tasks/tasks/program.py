"""The programs `./inv` and `lyra`: Invoke's own parser, with documented exit codes for usage (2) and Ctrl-C (130)."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.program import Program

import lyra_tasks
from lyra_tasks import console
from lyra_tasks.errors import ConfigurationError, InterruptedRunError, PreconditionError, UsageError, system_fault

_NOBODY_READS = 128 + signal.SIGPIPE  # as a shell tells it
_COLLECT_AFTER = 50_000  # objects; what is imported is made of many, of which none is garbage


class LyraProgram(Program):
    """Invoke's Program; a usage error ends with 2 and an interrupt with 130, where plain `invoke` returns 1."""

    _without_bytecode = False

    def create_config(self) -> None:
        try:
            super().create_config()
        except OSError as error:
            # Invoke looks for a configuration of its own in the home folder
            console.error(f"{error.filename}: {error.strerror}", "set HOME to a folder that you can read")
            raise Exit(code=PreconditionError.exit_code) from error

    def parse_core(self, argv: list[str] | None) -> None:
        self._without_bytecode = sys.dont_write_bytecode
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
            raise Exit(f"{error}\nhint: {self._nearest(str(error))}{hint}", code=2) from error

    def _nearest(self, said: str) -> str:
        """The word that may have been meant by the one that Invoke does not know."""
        from difflib import get_close_matches

        unknown = said.split("'")[1] if said.count("'") >= 2 else ""
        near = get_close_matches(unknown, list(self.collection.task_names), 1)
        return f"did you mean {near[0]}? " if near else ""

    def print_columns(self, pairs: Any) -> None:
        try:
            super().print_columns(pairs)
        except ValueError:  # a terminal that is narrower than the names alone
            for name, text in pairs:
                console.say(f"  {name}\n    {text}")

    def parse_cleanup(self) -> None:
        if self.args.complete.value:
            from lyra_tasks.tasks.complete import offer

            offer(self.collection, self.initial_context)
            raise Exit
        super().parse_cleanup()

    def execute(self) -> None:
        # Invoke writes none for a `tasks.py`, which has been read by now; compiling all that the words import would be
        # a third of every start
        sys.dont_write_bytecode = self._without_bytecode
        try:
            super().execute()
        except KeyboardInterrupt as error:
            raise Exit(code=InterruptedRunError.exit_code) from error


def main() -> None:
    """The entry point of `lyra`, and of `./inv` where a `tasks.py` is in reach."""
    namespace = None if _has_tasks(_here()) else Collection.from_module(sys.modules["lyra_tasks"])
    _run(LyraProgram(version=lyra_tasks.__version__, name="Lyra", binary="lyra", namespace=namespace))


def inv() -> None:
    """The entry point of `./inv`: works in the caller's project, or in the one `./inv` belongs to.

    `init` makes the caller's folder one.
    """
    home = os.environ.get("LYRA_INV_HOME")
    here = _here()
    known = any((folder / ".lyra.toml").is_file() for folder in (here, *here.parents))
    if home and not known and "init" not in sys.argv[1:]:
        os.chdir(home)
    main()


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        console.error("the working directory no longer exists", "change to the project")
        sys.exit(ConfigurationError.exit_code)


def _run(program: Program) -> None:
    """Run it, and leave at once when all is done: to take the modules apart, Python needs 60 ms of every word."""
    gc.set_threshold(_COLLECT_AFTER)
    code = 1

    def leave() -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BrokenPipeError:
            os._exit(_NOBODY_READS)
        except (OSError, ValueError):
            return  # Python tells it on its own way out
        os._exit(code)

    # the first that is registered is the last that is called; what modules of Python's own have registered is left out
    atexit.register(leave)
    try:
        program.run()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        raise
    except KeyboardInterrupt:
        code = InterruptedRunError.exit_code
        raise
    except BrokenPipeError:
        # whoever read has had enough, as `… | head`; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _NOBODY_READS
        sys.exit(code)
    except OSError as error:
        fault = system_fault(error, "what is printed")
        if fault is None:
            raise
        console.error(fault.message, fault.hint)
        code = fault.exit_code
        sys.exit(code)


def _print_completion_script(shells: list[str]) -> None:
    from lyra_tasks.setup.completion import script

    try:
        console.say(script(shells[0] if shells else ""))
    except UsageError as error:
        raise Exit(f"{error.message}\nhint: {error.hint}", code=2) from error


def _has_tasks(start: Path) -> bool:
    return any((folder / "tasks.py").is_file() for folder in (start, *start.parents))


if __name__ == "__main__":
    inv()
