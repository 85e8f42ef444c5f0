"""`config.*`: the effective configuration, and what it may be."""

from __future__ import annotations

from json import dumps
from typing import Any

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.task import command_line_options, is_dry_run, task


@task("show")
def config_show(c: Any, json: bool = False) -> None:
    """The effective values, and where each came from."""
    from lyra_tasks.config.show import list_settings

    rows = list_settings(workspace().loaded)
    if "--json" in command_line_options():
        return console.print_json([{"key": row.key, "value": row.value, "from": row.origin} for row in rows])
    return console.print_table(
        ("key", "from", "value"), [(row.key, row.origin, _format_value(row.value)) for row in rows]
    )


@task("schema")
def config_schema(c: Any) -> None:
    """The JSON Schema of .lyra.toml, with which editors complete and check it."""
    from lyra_tasks.config.schema import build_json_schema

    console.print_json(build_json_schema())


def _format_value(value: object) -> str:
    """A value in a column: words as they are, anything else as JSON writes it."""
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False)


@task("init")
def init(c: Any, dry_run: bool = False, json: bool = False) -> None:
    """Write a commented .lyra.toml and a tasks.py from Dockerfiles and a compose file; never overwrites."""
    from pathlib import Path

    from lyra_tasks.init.plan import plan_init
    from lyra_tasks.init.project_files import inspect_project
    from lyra_tasks.init.run import print_init_plan, print_init_result, write_init_files

    root = Path.cwd()
    init_plan = plan_init(inspect_project(root))
    if is_dry_run(c):
        return print_init_plan(init_plan)
    return print_init_result(init_plan, write_init_files(init_plan, root))


@task("list")
def rules_list(c: Any, json: bool = False) -> None:
    """Every rule: what it asks, how much it weighs, which rule of the runbook it serves."""
    from lyra_tasks.rules.show import print_rules

    print_rules()


@task("explain", positional=("rule",), rule="the id of a rule, as `rules.list` shows it")
def rules_explain(c: Any, rule: str, json: bool = False) -> None:
    """One rule: why there is one, how to keep it, who else asks for it."""
    from lyra_tasks.rules.show import print_rule

    print_rule(rule)
