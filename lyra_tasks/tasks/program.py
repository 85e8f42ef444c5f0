"""The programs `./inv` and `lyra`: Invoke's parser, with documented exit codes for usage (2) and Ctrl-C (130)."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.parser import Parser
from invoke.parser.context import ParserContext
from invoke.program import Program

import lyra_tasks
from lyra_tasks import console
from lyra_tasks.console.streams import replace_closed_streams
from lyra_tasks.errors import ConfigurationError, InterruptedRunError, PreconditionError, UsageError, from_os_error
from lyra_tasks.files import display_path
from lyra_tasks.tasks.line import list_short_names
from lyra_tasks.version import __version__

_EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE  # what a shell reports
_OWN_TASKS = "This project"
_PACKAGE_NAME = b"lyra_tasks"
_GC_THRESHOLD = 50_000  # objects; imports allocate many, none of which is garbage


class LyraProgram(Program):
    """Invoke's Program, where a usage error exits with 2 and an interrupt with 130 (Invoke: 1)."""

    _dont_write_bytecode = False

    def create_config(self) -> None:
        """Report a HOME that Invoke cannot read."""
        try:
            super().create_config()
        except OSError as error:
            # Invoke looks for its own configuration in the home directory
            console.error(f"{error.filename}: {error.strerror}", "Set HOME to a readable directory")
            raise Exit(code=PreconditionError.exit_code) from error

    def parse_core(self, argv: list[str] | None) -> None:
        """Print the completion script, and exit with 2 on a usage error."""
        self._dont_write_bytecode = sys.dont_write_bytecode
        if "--print-completion-script" in sys.argv[1:2]:
            _print_completion_script(sys.argv[2:3])
            raise Exit
        try:
            super().parse_core(argv)
        except ParseError as error:
            raise self._usage_exit(error, ()) from error

    def parse_tasks(self) -> None:
        """Exit with 2 on a usage error, with a hint."""
        try:
            super().parse_tasks()
        except ParseError as error:
            raise self._usage_exit(error, tuple(list_short_names(self.collection))) from error

    def _make_parser(self, line: Sequence[str] | None = None) -> Parser:
        """Prepare only those tasks for parsing whose names are in the line: Invoke copies each several times."""
        text = "\0".join(self.argv[1:] if line is None else line)
        contexts = [
            ParserContext(name, aliases, self.collection[name].get_arguments())
            for name, aliases in self.collection.task_names.items()
            if any(candidate in text for candidate in (name, *aliases))
        ]
        return Parser(initial=self.initial_context, contexts=contexts)

    def _usage_exit(self, error: ParseError, tasks: tuple[str, ...]) -> Exit:
        from lyra_tasks.tasks.usage import explain_parse_error

        usage_error = explain_parse_error(error, self.binary, tasks, tuple(self.initial_context.flags))
        console.error(usage_error.message, usage_error.hint)
        return Exit(code=UsageError.exit_code)

    def parse_cleanup(self) -> None:
        """Print completions, with the values that options take."""
        if self.args.complete.value:
            _print_completions(self.collection, self.initial_context)
            raise Exit
        super().parse_cleanup()

    def list_flat(self) -> None:
        """List all tasks in groups, in the order of work; those of the project come last."""
        from lyra_tasks.tasks.collection import TASK_GROUPS

        if self.list_root or self.list_depth:
            return super().list_flat()
        names = {name: self.collection[name] for name in list_short_names(self.collection)}
        width = max(map(len, names))
        commands = {task.command: title for title, tasks in TASK_GROUPS.items() for task in tasks}
        for title in (*TASK_GROUPS, _OWN_TASKS):
            group = [
                name for name, task in names.items() if commands.get(getattr(task, "command", ""), _OWN_TASKS) == title
            ]
            if group:
                console.print_verbatim(f"{console.style(title, 'bold')}\n")
            for name in group:
                summary = (names[name].__doc__ or "").strip().partition("\n")[0]
                console.print(f"  {name:<{width}}  {summary}".rstrip())
            if group:
                console.print("")
        return None

    def no_tasks_given(self) -> None:
        """Show the status of the project, or how to start one."""
        if "status" not in self.collection.task_names:
            return super().no_tasks_given()
        if not _is_below(_working_directory(), ".lyra.toml") and "LYRA_CONFIG" not in os.environ:
            console.print(
                f"No project here. Start one with `{self.binary} init`; `{self.binary} --list` shows all tasks."
            )
            raise Exit
        line = ["status"]
        self.tasks = self._make_parser(line).parse_argv(line)
        self.tasks.pop(0)  # the core options
        return None

    def print_columns(self, pairs: Any) -> None:
        """Print names and texts, also on a terminal narrower than the names."""
        try:
            super().print_columns(pairs)
        except ValueError:  # the terminal is narrower than the names alone
            for name, text in pairs:
                console.print(f"  {name}\n    {text}")

    def execute(self) -> None:
        """Run the tasks, and exit with 130 on an interrupt."""
        # Invoke writes no bytecode while it imports `tasks.py`; compiling all later imports takes a third of a start
        sys.dont_write_bytecode = self._dont_write_bytecode
        try:
            super().execute()
        except KeyboardInterrupt as error:
            console.error("Interrupted")
            raise Exit(code=InterruptedRunError.exit_code) from error


def main() -> None:
    """Run `lyra`: with the nearest `tasks.py` or `tasks/` that uses this package, or else with Lyra's own tasks."""
    replace_closed_streams()
    module = _find_tasks_module(_working_directory())
    namespace = None
    if module is None or not _uses_lyra(module):
        namespace = Collection.from_module(lyra_tasks)
        if module is not None and "--complete" not in sys.argv:
            console.info(f"note: {display_path(module)} does not use lyra_tasks; these are Lyra's own tasks")
    binary = "./inv" if "LYRA_INV_HOME" in os.environ else "lyra"
    _run_program(LyraProgram(version=__version__, name="Lyra", binary=binary, namespace=namespace))


def inv() -> None:
    """Run `./inv`: in the project around the working directory, or in the one that `./inv` belongs to.

    `init` stays in the working directory, which it makes a project.
    """
    inv_home = os.environ.get("LYRA_INV_HOME")
    if inv_home and not _is_below(_working_directory(), ".lyra.toml") and "init" not in sys.argv[1:]:
        os.chdir(inv_home)
    main()


def _is_below(directory: Path, filename: str) -> bool:
    return any((parent / filename).is_file() for parent in (directory, *directory.parents))


def _find_tasks_module(directory: Path) -> Path | None:
    """Return the `tasks.py`, or the `tasks/` package, that Invoke would load from `directory`."""
    for parent in (directory, *directory.parents):
        if (parent / "tasks.py").is_file():
            return parent / "tasks.py"
        if (parent / "tasks" / "__init__.py").is_file():
            return parent / "tasks"
    return None


def _uses_lyra(module: Path) -> bool:
    """Return whether a module or package names `lyra_tasks`; others are not imported, whatever they would do."""
    files = [module] if module.is_file() else sorted(module.rglob("*.py"))
    return any(_PACKAGE_NAME in file.read_bytes() for file in files if file.is_file())


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        console.error("The working directory no longer exists", "Change to the project's directory")
        sys.exit(ConfigurationError.exit_code)


def _run_program(program: Program) -> None:
    gc.set_threshold(_GC_THRESHOLD)
    try:
        try:
            program.run()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except KeyboardInterrupt:
        console.error("Interrupted")
        sys.exit(InterruptedRunError.exit_code)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Invoke exits with 1 while it looks for tasks
            console.error("Interrupted")
            error.code = InterruptedRunError.exit_code
        raise
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        _discard_output()
        sys.exit(_EXIT_BROKEN_PIPE)
    except OSError as error:
        known_error = from_os_error(error, "the output")
        if known_error is None:
            raise
        _discard_output()
        console.error(known_error.message, known_error.hint)
        sys.exit(known_error.exit_code)
    finally:
        gc.freeze()  # at exit, Python would traverse all objects once more, which takes 40 ms


def _discard_output() -> None:
    """Keep Python from flushing standard output when it exits, and complaining once more."""
    os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdout.fileno())


def _print_completion_script(shells: list[str]) -> None:
    from lyra_tasks.tasks.completion import completion_script

    try:
        console.print_verbatim(completion_script(shells[0] if shells else ""))
    except UsageError as error:
        console.error(error.message, error.hint)
        raise Exit(code=UsageError.exit_code) from error


def _print_completions(collection: Any, core_context: Any) -> None:
    """Print the candidates for the last argument of the line after `--`, one per line."""
    from lyra_tasks.tasks.completion import complete_command_line

    typed_arguments = sys.argv[sys.argv.index("--") + 2 :] if "--" in sys.argv else []
    commands = {}
    for context in collection.to_contexts():
        name = str(context.name)
        commands[name] = _command_spec(name, context.args.values(), collection[name].positional or ())
        commands |= dict.fromkeys(context.aliases, commands[name])
    core_options = _command_spec("", core_context.args.values(), ())
    for candidate in complete_command_line(typed_arguments, commands, core_options, Path.cwd()):
        console.print_verbatim(candidate)


def _command_spec(name: str, arguments: Iterable[Any], positional: Iterable[Any]) -> Any:
    from lyra_tasks.tasks.completion import CommandSpec

    options: dict[str, str] = {}
    for argument in arguments:
        value = str(argument.name).strip("_").replace("_", "-") if argument.takes_value else ""
        flags = (str(spelling).replace("_", "-") for spelling in argument.names)
        options |= dict.fromkeys((f"-{flag}" if len(flag) == 1 else f"--{flag}" for flag in flags), value)
    return CommandSpec(name, options, tuple(str(name) for name in positional))


if __name__ == "__main__":
    inv()
