"""schedule: tasks that workers do at the times of a cron expression."""

from __future__ import annotations

from typing import Annotated

import typer

from tallystick.cli.output import Output
from tallystick.cli.target import App, Dsn, Json, Schema, opened
from tallystick.maintain import schedule as scheduling
from tallystick.store.schedules import Schedule

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's own name.")]
Cron = Annotated[
    str,
    typer.Argument(
        metavar="CRON", help='When, in UTC: "0 0 * * *" is every midnight, "*/10 * * * *" every 10 minutes.'
    ),
]

schedule = typer.Typer(help="Tasks that workers do at given times, each once: reset counters, verify aggregates.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(schedule, name="schedule")


@schedule.callback(invoke_without_command=True)
def _start(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@schedule.command()
def add(
    name: Name,
    cron: Cron,
    task: Annotated[str, typer.Argument(metavar="TASK", help="reset or verify.")],
    aggregate: Annotated[
        str | None, typer.Argument(metavar="[AGGREGATE]", help="The counter to reset, or what to verify. Default: all.")
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="The only key to reset. Default: all.")] = None,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Have workers do a task at the times of CRON. Times that are missed while none runs are made up for once."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        added = scheduling.add(target.engine, target.schema, name, cron, task, aggregate, key)
    output.json(added)
    if not as_json:
        output.say(f"{name}: {_task(added)}, for the first time at {added.due_at:%Y-%m-%d %H:%M:%S} UTC")


@schedule.command("list")
def list_(dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False) -> None:
    """Show all schedules: what is done, when next, and when it was done last."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        found = scheduling.every(target.engine, target.schema)
    output.json({"schedules": found})
    if as_json:
        return
    if not found:
        output.say("There are no schedules.")
        return
    rows = [[each.name, each.cron, _task(each), each.due_at, each.done_at or "never"] for each in found]
    output.table("", ["schedule", "cron (UTC)", "task", "next", "last done"], rows)


@schedule.command()
def remove(name: Name, dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False) -> None:
    """Remove a schedule."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        scheduling.remove(target.engine, target.schema, name)
    output.json({"removed": name})
    if not as_json:
        output.say(f"{name}: removed")


def _task(each: Schedule) -> str:
    of_key = f", key {each.key!r}" if each.key is not None else ""
    return f"{each.task} {each.aggregate or 'all'}{of_key}"
