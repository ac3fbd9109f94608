"""redefine, rename."""

from __future__ import annotations

from typing import Annotated

import typer

from tallystick.cli.backfilling import WORKERS, ChunkRows, MaxRowsPerSecond, Workers, telling
from tallystick.cli.output import Output, counted
from tallystick.cli.target import App, Dsn, Json, Names, Schema, opened
from tallystick.declare.counter import Counter
from tallystick.errors import UsageError
from tallystick.maintain import redefine as redefining
from tallystick.maintain.backfill import CHUNK_ROWS, Manner
from tallystick.maintain.redefine import Redefined


def add_to(app: typer.Typer) -> None:
    app.command()(redefine)
    app.command()(rename)


def redefine(
    names: Names = None,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    abort: Annotated[bool, typer.Option("--abort", help="Give up what has not been switched to yet.")] = False,
    workers: Workers = WORKERS,
    max_rows_per_second: MaxRowsPerSecond = None,
    chunk_rows: ChunkRows = CHUNK_ROWS,
    as_json: Json = False,
) -> None:
    """Build what is declared otherwise beside what is installed, and switch to it; readers see no gap."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        if abort:
            if not names:
                raise UsageError("which redefinition is to be given up?", hint="Run: tally redefine --abort NAME")
            with output.steps(len(names)) as steps:
                for name in names:
                    steps.begin(f"removing the next version of {name}")
                    redefining.abort(target.engine, target.schema, name)
                    steps.done(f"{name}: stays as it is")
            output.json({"aborted": names})
            return
        tally = target.registry()
        declared = [tally.declared(name) for name in target.declared_names(names)]
        kept = [each for each in declared if not isinstance(each, Counter)]
        manner = Manner(chunk_rows, workers, max_rows_per_second)
        found: list[Redefined] = []
        with output.steps(len(kept)) as steps:
            for each in kept:
                steps.begin(f"comparing {each.name}")
                try:
                    result = redefining.redefine(
                        target.engine, each, manner, step=steps.passing, told=steps.passing,
                        progress=telling(steps, each.name),
                    )  # fmt: skip
                except KeyboardInterrupt:
                    output.note(target.pasteable(f"{each.name}: to go on, run: tally redefine {each.name}"))
                    raise
                found.append(result)
                steps.done(_told(result))
    output.json({"aggregates": [{"name": each.aggregate, "changes": each.changes} for each in found]})


def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The name under which it is installed.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name under which it is declared.")],
    dsn: Dsn = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Give an installed aggregate the name under which it is declared now; nothing is built anew."""
    output = Output(as_json=as_json)
    with opened(dsn, app, None, output) as target, output.steps(1) as steps:
        steps.begin(f"renaming {old}")
        target.registry().rename(target.engine, old, new)
        steps.done(f"{old}: is {new} from now on")
    output.json({"was": old, "name": new})


def _told(result: Redefined) -> str:
    if not result.changes:
        return f"{result.aggregate}: is as declared"
    changes = "; ".join(map(str, result.changes))
    return f"{result.aggregate}: redefined, {counted(result.groups, result.unit)} exact ({changes})"
