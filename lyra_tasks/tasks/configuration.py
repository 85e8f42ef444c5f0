"""Tasks about the configuration and the rules: `init`, `config.*` and `rules.*`."""

from __future__ import annotations

from json import dumps

from invoke.context import Context

from lyra_tasks import console
from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.task import task


@task("config.show")
def config_show(c: Context, json: bool = False, quiet: bool = False) -> None:
    """Show the effective configuration and the origin of each value."""
    from lyra_tasks.config.show import list_settings

    rows = list_settings(workspace().loaded)
    if console.is_json_mode():
        return console.print_json([{"key": row.key, "value": row.value, "from": row.origin} for row in rows])
    values = [row.value if isinstance(row.value, str) else dumps(row.value, ensure_ascii=False) for row in rows]
    return console.print_table(
        ("key", "from", "value"), [(row.key, row.origin, value) for row, value in zip(rows, values, strict=True)]
    )


@task("config.schema")
def config_schema(c: Context, quiet: bool = False) -> None:
    """Print the JSON Schema of .lyra.toml, for completion in editors."""
    from lyra_tasks.config.schema import build_json_schema

    console.print_json(build_json_schema())


@task("init")
def init(c: Context, dry_run: bool = False, json: bool = False, quiet: bool = False) -> None:
    """Write .lyra.toml and tasks.py from Dockerfiles and a Compose file."""
    from pathlib import Path

    from lyra_tasks.init.plan import plan_init
    from lyra_tasks.init.project_files import inspect_project
    from lyra_tasks.init.run import print_init_plan, print_init_result, write_init_files

    root = Path.cwd()
    init_plan = plan_init(inspect_project(root))
    if dry_run:
        return print_init_plan(init_plan)
    return print_init_result(init_plan, write_init_files(init_plan, root))


@task("rules.list")
def rules_list(c: Context, json: bool = False, quiet: bool = False) -> None:
    """List all rules with requirement, severity and rule of the runbook."""
    from lyra_tasks.rules.show import print_rules

    print_rules()


@task("rules.explain", positional=("rule",), rule="The id of a rule; `rules.list` shows all")
def rules_explain(c: Context, rule: str, json: bool = False, quiet: bool = False) -> None:
    """Explain a rule: reason, how to comply, who else requires it."""
    from lyra_tasks.rules.show import print_rule

    print_rule(rule)
