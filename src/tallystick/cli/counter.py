"""counter: read, set, reset, rebalance and verify single keys of a counter, without its declaration."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer
from sqlalchemy import select

from tallystick.cli.output import Output
from tallystick.cli.target import App, Dsn, Json, Schema, Target, opened
from tallystick.declare.counter import Counter
from tallystick.errors import UsageError
from tallystick.maintain import counters
from tallystick.store.connection import transaction
from tallystick.store.counters import get as get_installed

Name = Annotated[str, typer.Argument(metavar="NAME", help="The counter.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="Its key; '' is the total of a counter without keys.")]
Keys = Annotated[list[str] | None, typer.Argument(metavar="[KEY]…", help="Its keys. Default: all.")]

counter = typer.Typer(help="Read and mend free-standing counters by hand.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(counter, name="counter")


@counter.callback(invoke_without_command=True)
def _start(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@counter.command()
def get(
    name: Name, keys: Keys = None, dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False
) -> None:
    """Show counts: of the keys given, else of all that do not count 0."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        found = _counter(target, name)
        statement = found.counts(keys) if keys else found.table.select().order_by(found.table.c.key)
        with target.engine.connect() as connection:
            rows = [{"key": key, "count": count} for key, count in connection.execute(statement)]
    output.json({"counter": name, "counts": rows})
    if not as_json:
        output.table(name, ["key", "count"], [[row["key"], row["count"]] for row in rows], right=["count"])


@counter.command("set", context_settings={"ignore_unknown_options": True})
def set_(
    name: Name,
    key: Key,
    number: Annotated[str, typer.Argument(metavar="N", help="What it shall count.")],
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Make a count N exactly, beside adds: those that commit later are added to it."""
    try:
        n = Decimal(number)
    except InvalidOperation:
        raise UsageError(f'counter "{name}": "{number}" is not a number.', hint="Write it like 42.") from None
    _write(name, key, n, "set", dsn, app, schema, as_json=as_json)


@counter.command()
def reset(name: Name, key: Key, dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False) -> None:
    """Remove a key: it counts 0 from here on."""
    _write(name, key, None, "reset", dsn, app, schema, as_json=as_json)


@counter.command()
def rebalance(
    name: Name, key: Key, dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False
) -> None:
    """Spread the value of a key evenly over its shards; it counts what it counted."""
    _write(name, key, None, "rebalance", dsn, app, schema, as_json=as_json)


@counter.command()
def verify(
    name: Name, keys: Keys = None, dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False
) -> int:
    """Compare a counter with its direct query in one snapshot. Exit code 1 on drift."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        found = counters.checks(target.engine, target.schema, name, keys or None)
    drifts = any(check.status == "drift" for check in found)
    output.json({"counter": name, "exact": not drifts, "keys": found})
    if not as_json:
        if found:
            rows = [[each.key, each.actual, each.direct, each.diff, each.status] for each in found]
            columns = ["key", "actual", "direct", "diff", "status"]
            output.table(name, columns, rows, right=["actual", "direct", "diff"])
        else:
            output.say(f"{name}: exact")
        if drifts:
            output.note(target.pasteable(f"Set it again from the source: tally backfill {name}"))
    return 1 if drifts else 0


def _counter(target: Target, name: str) -> Counter:
    """The counter as it is installed; declared here only to build statements."""
    with transaction(target.engine, read_only=True) as cursor:
        found = get_installed(cursor, target.schema, name)
    return Counter(name, schema=target.schema, shards=found.shards, numeric=found.is_numeric)


def _write(
    name: str, key: str, n: Decimal | None, what: str, dsn: str | None, app: str | None, schema: str | None, *,
    as_json: bool,
) -> None:  # fmt: skip
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        found = _counter(target, name)
        if n is not None:
            number: Any = int(n) if n.is_finite() and n == n.to_integral_value() else n
            statement = found.set(key, number)
        else:
            statement = found.reset(key) if what == "reset" else found.rebalance(key)
        with target.engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
            connection.execute(statement)
            connection.commit()
            (count,) = connection.execute(select(found.count(key))).one()
    output.json({"counter": name, "key": key, "count": count})
    if not as_json:
        output.say(f"{name}, {key!r}: {count:,}")
