"""events: the log of operations in the database."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tallystick.cli.output import Output
from tallystick.cli.target import App, Dsn, Json, Schema, opened
from tallystick.store import events as logged
from tallystick.store.connection import transaction


def add_to(app: typer.Typer) -> None:
    app.command()(events)


def events(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 20,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Show who did what to which aggregate, the latest first."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target, transaction(target.engine, read_only=True) as cursor:
        found = logged.recent(cursor, target.schema, limit)
    output.json({"events": found})
    if as_json:
        return
    if not found:
        output.say("Nothing has been done yet.")
        return
    output.table(
        "",
        ["at", "role", "application", "what", "aggregate", "detail"],
        [
            [
                f"{each.at:%Y-%m-%d %H:%M:%S}", each.role, each.application, each.what, each.aggregate or "",
                json.dumps(each.detail, ensure_ascii=False) if each.detail else "",
            ]
            for each in found
        ],
    )  # fmt: skip
