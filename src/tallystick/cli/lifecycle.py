"""plan, install, backfill, fold, detach, upgrade, uninstall."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import psycopg
import typer

from tallystick.cli.backfilling import WORKERS, ChunkRows, MaxRowsPerSecond, Workers, telling
from tallystick.cli.output import Output, counted, named, seconds
from tallystick.cli.target import App, Dsn, Json, Names, Schema, opened
from tallystick.compiler.text import Statement
from tallystick.errors import FoldLocked, ServerUnavailable, TallyError, UsageError
from tallystick.maintain import counters, folding, partitions
from tallystick.maintain import upgrade as upgrades
from tallystick.maintain.backfill import CHUNK_ROWS, BackfillResult, Manner
from tallystick.maintain.backfill import backfill as backfill_one
from tallystick.maintain.install import Planned, refuse_changed
from tallystick.maintain.install import uninstall as uninstall_one
from tallystick.maintain.mirror import BATCH
from tallystick.store import aggregates
from tallystick.store.catalog import FIXED_PATH
from tallystick.store.connection import transaction
from tallystick.store.queries import schema_script


def add_to(app: typer.Typer) -> None:
    for command in (plan, install, backfill, fold, detach, upgrade, uninstall):
        app.command()(command)


def plan(names: Names = None, dsn: Dsn = None, app: App = None, as_json: Json = False) -> None:
    """Print the SQL that install would run, and what redefine would change; the database is left as it is."""
    output = Output(as_json=as_json)
    with opened(dsn, app, None, output) as target:
        planned = target.registry().plan(target.engine, only=target.declared_names(names))
        with transaction(target.engine, read_only=True) as cursor:
            is_present = aggregates.is_schema_installed(cursor, target.schema)
    first = [] if is_present else [FIXED_PATH, Statement(f"the schema {target.schema}", schema_script(target.schema))]
    if as_json:
        schema = {"name": target.schema, "installed": is_present, "statements": _as_dicts(first)}
        output.json({"schema": schema, "aggregates": [_planned(each) for each in planned]})
        return
    _print_transaction(first)
    for each in planned:
        _print_transaction(each.statements)
        if each.changes:
            output.say(f"-- {each.aggregate} is declared otherwise than it is installed:")
            for change in each.changes:
                output.say(f"--   {change}")
            output.note(target.pasteable(f"Run: tally redefine {each.aggregate}"))
        elif each.is_installed:
            output.note(f"{each.aggregate}: installed already")


def install(names: Names = None, dsn: Dsn = None, app: App = None, as_json: Json = False) -> None:
    """Install declared aggregates. Until they are backfilled, they answer from their sources."""
    output = Output(as_json=as_json)
    found = []
    with opened(dsn, app, None, output) as target:
        tally = target.registry()
        # What is refused is refused before anything is installed.
        planned = tally.plan(target.engine, only=target.declared_names(names))
        for each in planned:
            refuse_changed(each)
        with output.steps(len(planned)) as steps:
            for each in planned:
                steps.begin(f"installing {each.aggregate}")
                is_new = bool(tally.install(target.engine, only=[each.aggregate], told=steps.passing))
                where = f" over {each.source}" if each.source else ""
                steps.done(f"{each.aggregate}: {'installed' if is_new else 'installed already'}{where}")
                found.append({"name": each.aggregate, "source": each.source or None, "new": is_new})
    output.json({"aggregates": found})
    if any(each["new"] and each["source"] for each in found):
        output.note(target.pasteable("They answer from their sources until you run: tally backfill"))


def backfill(
    names: Names = None,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    force: Annotated[bool, typer.Option("--force", help="Begin anew, also what is complete or begun.")] = False,
    workers: Workers = WORKERS,
    max_rows_per_second: MaxRowsPerSecond = None,
    chunk_rows: ChunkRows = CHUNK_ROWS,
    batch_size: Annotated[
        int, typer.Option(min=1, max=100_000, help="Parents of a mirror in one transaction.")
    ] = BATCH,
    skip_existing: Annotated[bool, typer.Option(help="Leave parents of a mirror alone that have a value.")] = True,
    as_json: Json = False,
) -> None:
    """Compute the kept answers beside writers, and let readers use them. Then fill the copies of a mirror.

    Stopped in between, it goes on where it was when it is run again; several may run at once.
    """
    output = Output(as_json=as_json)
    found = []
    manner = Manner(chunk_rows, workers, max_rows_per_second, batch_size, skip_existing)
    with opened(dsn, app, schema, output) as target:
        chosen = target.comparable_names(names)
        known = target.installed_counters()
        with output.steps(len(chosen)) as steps:
            for name in chosen:
                steps.begin(f"backfilling {name}")
                if name in known:
                    found.append(counters.backfill(target.engine, target.schema, name))
                    keys = counted(found[-1].groups, "keys")
                    steps.done(f"{name}: {keys} set in {seconds(found[-1].elapsed_s)}")
                    continue
                told = telling(steps, name)
                try:
                    result = backfill_one(target.engine, target.schema, name, manner, force=force, told=told)
                except KeyboardInterrupt:
                    stays = f"{name}: what is counted so far stays. To go on, run: tally backfill {name}"
                    output.note(target.pasteable(stays))
                    if left := chosen[chosen.index(name) + 1 :]:
                        output.note(f"Not begun: {', '.join(left)}.")
                    raise
                took = f"in {seconds(result.elapsed_s)}" if result.rows is not None else "complete already"
                steps.done(f"{name}: {counted(result.groups, result.unit)} {took}{_mirrored(result)}")
                found.append(result)
    output.json({"aggregates": [named(each) for each in found]})


def fold(
    names: Names = None,
    of_all: Annotated[
        bool, typer.Option("--all", help="Whatever is kept, declared or not; what others fold just now is passed over.")
    ] = False,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    as_json: Json = False,
) -> int:
    """Fold deltas into the state, which keeps reads quick; answers stay what they are. By cron: tally fold --all."""
    if of_all and names:
        raise UsageError(f"--all folds everything, {', '.join(names)} is not all.", hint="Leave one of them out.")
    output = Output(as_json=as_json)
    found: list[dict[str, Any]] = []
    with opened(dsn, app, schema, output) as target:
        chosen = target.kept_names() if of_all else target.installed_names(names)
        known = target.installed_counters()
        with output.steps(len(chosen)) as steps:
            for name in chosen:
                steps.begin(f"folding {name}")
                try:
                    run = counters.fold if name in known else folding.fold
                    result = run(target.engine, target.schema, name)
                except ServerUnavailable:
                    raise
                except (TallyError, psycopg.DatabaseError) as error:  # no reason to leave the others unfolded
                    said = f"{name}: {error}" if isinstance(error, psycopg.Error) else target.pasteable(str(error))
                    steps.done(said)
                    found.append({"name": name, "locked": isinstance(error, FoldLocked), "error": said})
                    continue
                took = seconds(result.elapsed_s)
                if result.adopted:
                    steps.done(f"{name}: counts from now on {', '.join(result.adopted)}")
                if name in known:
                    rows, keys = counted(result.deltas, "rows"), counted(result.groups, "keys")
                    steps.done(f"{name}: {rows} fewer in {keys} in {took}")
                else:
                    deltas, into = counted(result.deltas, "deltas"), counted(result.groups, result.unit)
                    steps.done(f"{name}: {deltas} into {into} in {took}{_mirrored(result)}")
                found.append({**named(result), "locked": False, "error": None})
    output.json({"aggregates": found})
    return 1 if any(each["error"] and not (of_all and each["locked"]) for each in found) else 0


def detach(
    partition: Annotated[str, typer.Argument(help="The partition, as schema.table.")],
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Detach a partition and count it out of every aggregate, beside writers; it stays as a table of its own."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target, output.steps(1) as steps:
        steps.begin(f"detaching {partition}")
        names = partitions.detach(target.engine, target.schema, partition)
        steps.done(f"{partition}: detached, and counted out of {', '.join(names)}")
    output.json({"partition": partition, "aggregates": names})


def upgrade(dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False) -> None:
    """Bring what an earlier version installed to this one, beside readers and writers. Counters keep their values."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        declared = target.tally.kept() if target.tally is not None else ()
        with output.steps() as steps:
            result = upgrades.upgrade(target.engine, target.schema, declared, told=steps.passing)
    output.json(result)
    if result.before == result.after and not result.aggregates:
        output.say(f"schema {target.schema} has layout {result.after} already.")
        return
    output.say(f"schema {target.schema}: from layout {result.before} to {result.after}")
    if result.aggregates:
        names = " ".join(result.aggregates)
        output.note(target.pasteable(f"They answer from their sources until you run: tally backfill {names}"))


def uninstall(
    names: Names = None,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> int:
    """Remove aggregates with all that belongs to them; their sources are left alone."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        chosen = target.installed_names(names, rest_is_gone=True)
        if not yes:
            if as_json or not sys.stdin.isatty():
                raise UsageError(f"uninstall would remove {', '.join(chosen)}.", hint="Confirm with --yes.")
            if not typer.confirm(f"Remove {', '.join(chosen)}? Readers of these views will fail.", err=True):
                output.note("Nothing was removed.")
                return 1
        known = target.installed_counters()
        with output.steps(len(chosen)) as steps:
            for name in chosen:
                steps.begin(f"removing {name}")
                (counters.uninstall if name in known else uninstall_one)(target.engine, target.schema, name)
                steps.done(f"{name}: removed")
    output.json({"removed": chosen})
    return 0


def _print_transaction(statements: Sequence[Statement]) -> None:
    if statements:
        text = "\n\n".join(f"-- {each.purpose}\n{each.text().rstrip().rstrip(';')};" for each in statements)
        sys.stdout.write(f"BEGIN;\n\n{text}\n\nCOMMIT;\n\n")


def _as_dicts(statements: Sequence[Statement]) -> list[dict[str, str]]:
    return [{"purpose": statement.purpose, "sql": statement.text()} for statement in statements]


def _planned(planned: Planned) -> dict[str, Any]:
    return {
        "name": planned.aggregate,
        "source": planned.source or None,
        "installed": planned.is_installed,
        "statements": _as_dicts(planned.statements),
        "changes": planned.changes,
    }


def _mirrored(result: folding.FoldResult | BackfillResult) -> str:
    if not result.copied and not result.passed_over:
        return ""
    copied = counted(result.copied, "parents")
    later = f", {result.passed_over:,} that others hold left for the next fold" if result.passed_over else ""
    return f"; {copied} brought up to date{later}"
