"""status, doctor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated

import typer
from rich.text import Text

from tallystick.cli.output import Output, counted
from tallystick.cli.target import App, Dsn, Json, Schema, Target, opened, shown_url
from tallystick.declare.counter import Counter
from tallystick.declare.ordered import Kept
from tallystick.maintain import health
from tallystick.maintain.doctor import Finding, examine
from tallystick.maintain.status import AggregateStatus
from tallystick.maintain.status import status as status_of

_LEVELS = {"error": "bold red", "advice": "yellow"}


def add_to(app: typer.Typer) -> None:
    for command in (status, doctor):
        app.command()(command)


def status(
    check: Annotated[bool, typer.Option("--check", help="End with exit code 1 if anything is wrong now.")] = False,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    as_json: Json = False,
) -> int:
    """Show every aggregate: where it stands, what readers are served, what waits to be folded; workers; problems."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        found = status_of(target.engine, target.schema, _declared(target), _declared_counters(target))
        wrong = _pasteable(health.problems(target.engine, target.schema, found), target)
        workers = health.seen_workers(target.engine, target.schema)
        where = shown_url(target.engine.url)
    code = 1 if check and wrong else 0
    output.json(
        {"schema": target.schema, "aggregates": found, "workers": workers, "healthy": not wrong, "problems": wrong}
    )
    if as_json:
        return code
    if not found:
        output.say(f'Nothing is installed in schema "{target.schema}" of {where}.')
        output.note(target.pasteable("Declare aggregates (tally init), then run: tally install"))
        return code
    output.table(
        f"schema {target.schema} of {where}",
        ["aggregate", "source", "phase", "serving", "groups", "levels", "deltas", "waiting", "note"],
        [
            [
                each.name,
                each.source or ("counter" if each.kind == "counter" else "dropped"),
                each.phase,
                each.serving or "",
                _groups(each),
                "" if each.depth is None else each.depth,
                each.backlog,
                f"{each.age_s:.0f} s" if each.age_s is not None else "",
                note,
            ]
            for each in found
            for note in [target.pasteable(_note(each, has_app=target.tally is not None))]
        ],
        right=["groups", "levels", "deltas", "waiting"],
    )
    if workers:
        rows = [
            [str(w.pid), w.host, w.version, f"{w.started_at:%Y-%m-%d %H:%M:%S}", f"{w.seen_s:.0f} s ago", w.doing or ""]
            for w in workers
        ]
        output.table("", ["worker", "host", "version", "started", "seen", "doing"], rows)
    if wrong:
        _findings(output, wrong)
    return code


def doctor(dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False) -> int:
    """Look for what is wrong or will be, and how to mend it. Exit code 1 if answers are or may become wrong."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        found = _pasteable(examine(target.engine, target.schema, _declared(target), _declared_counters(target)), target)
    output.json({"findings": found})
    if not as_json:
        _findings(output, found)
    return 1 if any(each.level == "error" for each in found) else 0


def _pasteable(found: list[Finding], target: Target) -> list[Finding]:
    return [replace(each, what=target.pasteable(each.what), remedy=target.pasteable(each.remedy)) for each in found]


def _declared(target: Target) -> Iterable[Kept]:
    return target.tally.kept() if target.tally is not None else ()


def _declared_counters(target: Target) -> Iterable[Counter]:
    return target.tally.counters.values() if target.tally is not None else ()


def _groups(each: AggregateStatus) -> str:
    """PostgreSQL's estimate, which is 0 before it has looked; buckets are counted."""
    if each.depth is not None:
        return counted(each.groups, "buckets")
    return f"~{each.groups:,}" if each.groups else ""


def _note(each: AggregateStatus, *, has_app: bool) -> str:
    if each.phase == "declared":
        return f"tally install {each.name}"
    if each.replaces is not None:
        return f"next version of {each.replaces}: tally redefine {each.replaces}"
    if has_app and not each.is_declared:
        return "not declared any more"
    if not each.is_current:
        return f"declared otherwise: see tally plan {each.name}"
    if each.uncounted:
        return each.uncounted[0] + (f" (and {len(each.uncounted) - 1} more)" if len(each.uncounted) > 1 else "")
    if not each.is_captured:
        return "its triggers are off: see tally doctor"
    if each.phase == "building":
        return f"tally backfill {each.name}"
    return f"rolled back; tally resume {each.name}" if each.rolled_back else ""


def _findings(output: Output, found: list[Finding]) -> None:
    if not found:
        output.say("All is well.")
        return
    for each in found:
        line = Text(each.level, style=_LEVELS.get(each.level, ""))
        output.out.print(line, Text(f"{each.subject}: {each.what}"), soft_wrap=True)
        output.say(f"    {each.remedy}")
