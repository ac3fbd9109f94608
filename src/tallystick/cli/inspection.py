"""status, verify, doctor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer
from rich.text import Text

from tallystick.cli.output import Output, seconds, shown
from tallystick.cli.target import App, Dsn, Json, Names, Schema, Target, opened, shown_url
from tallystick.declare.counter import Counter
from tallystick.declare.ordered import Kept
from tallystick.maintain import counters
from tallystick.maintain import verify as verifying
from tallystick.maintain.doctor import Finding, examine
from tallystick.maintain.status import AggregateStatus
from tallystick.maintain.status import status as status_of
from tallystick.maintain.verify import VerifyReport

_LEVELS = {"error": "bold red", "advice": "yellow"}


def add_to(app: typer.Typer) -> None:
    for command in (verify, status, doctor):
        app.command()(command)


def status(dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False) -> None:
    """Show every aggregate: where it stands, what readers are served, what waits to be folded."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        found = status_of(target.engine, target.schema, _declared(target), _declared_counters(target))
        where = shown_url(target.engine.url)
    output.json({"schema": target.schema, "aggregates": found})
    if as_json:
        return
    if not found:
        output.say(f'Nothing is installed in schema "{target.schema}" of {where}.')
        output.note("Declare aggregates (tally init), then run: tally install")
        return
    output.table(
        f"schema {target.schema} of {where}",
        ["aggregate", "source", "phase", "serving", "groups", "levels", "deltas", "note"],
        [
            [
                each.name,
                each.source or ("counter" if each.kind == "counter" else "dropped"),
                each.phase,
                each.serving or "",
                _groups(each),
                "" if each.depth is None else each.depth,
                each.backlog,
                note,
            ]
            for each in found
            for note in [_note(each, has_app=target.tally is not None)]
        ],
        right=["groups", "levels", "deltas"],
    )


def verify(names: Names = None, dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False) -> int:
    """Compare kept and direct answers, each aggregate in one snapshot, beside writers. Exit code 1 on drift."""
    output = Output(as_json=as_json)
    found: list[VerifyReport] = []
    with opened(dsn, app, schema, output) as target:
        chosen = target.comparable_names(names)
        known = target.installed_counters()
        with output.steps(len(chosen)) as steps:
            for name in chosen:
                steps.begin(f"verifying {name}")
                compare = counters.verify if name in known else verifying.verify
                found.append(compare(target.engine, target.schema, name))
                steps.done(_verdict(found[-1]))
    output.json({"exact": all(each.is_exact for each in found), "aggregates": [_report(each) for each in found]})
    for each in found:
        if each.first and not as_json:
            _drifts(output, each)
    drifting = [each.aggregate for each in found if each.status == "drift"]
    if drifting:
        again = f"tally backfill {' '.join(drifting)}{target.options}"
        output.note(f"{len(drifting)} of {len(found)} aggregates drift. Recompute: {again}")
    return 1 if drifting else 0


def doctor(dsn: Dsn = None, app: App = None, schema: Schema = None, as_json: Json = False) -> int:
    """Look for what is wrong or will be, and how to mend it. Exit code 1 if answers are or may become wrong."""
    output = Output(as_json=as_json)
    with opened(dsn, app, schema, output) as target:
        found = examine(target.engine, target.schema, _declared(target), _declared_counters(target))
    output.json({"findings": found})
    if not as_json:
        _findings(output, found)
    return 1 if any(each.level == "error" for each in found) else 0


def _declared(target: Target) -> Iterable[Kept]:
    return target.tally.kept() if target.tally is not None else ()


def _declared_counters(target: Target) -> Iterable[Counter]:
    return target.tally.counters.values() if target.tally is not None else ()


def _groups(each: AggregateStatus) -> str:
    """PostgreSQL's estimate, which is 0 before it has looked; buckets are counted."""
    if each.depth is not None:
        return f"{each.groups:,} buckets"
    return f"~{each.groups:,}" if each.groups else ""


def _note(each: AggregateStatus, *, has_app: bool) -> str:
    if each.phase == "declared":
        return f"tally install {each.name}"
    if has_app and not each.is_declared:
        return "not declared any more"
    if not each.is_current:
        return "declared otherwise: see tally doctor"
    if each.uncounted:
        return each.uncounted[0] + (f" (and {len(each.uncounted) - 1} more)" if len(each.uncounted) > 1 else "")
    if each.phase == "building":
        return f"tally backfill {each.name}"
    return f"rolled back; tally resume {each.name}" if each.rolled_back else ""


def _verdict(report: VerifyReport) -> str:
    name, took = report.aggregate, seconds(report.elapsed_s)
    if report.status == "building":
        return f"{name}: not backfilled yet, answers from its source"
    if report.status == "uncounted":
        return f"{name}: its partitions are not those that are counted, answers from its source: see tally status"
    if report.is_exact:
        return f"{name}: exact, {report.groups:,} {report.unit} in {took}"
    return f"{name}: DRIFT in {report.drifted:,} of {report.groups:,} {report.unit}, found in {took}"


def _report(report: VerifyReport) -> dict[str, Any]:
    return {
        "name": report.aggregate,
        "status": report.status,
        "groups": report.groups,
        "drifted": report.drifted,
        "first": report.first,
        "elapsed_s": report.elapsed_s,
    }


def _drifts(output: Output, report: VerifyReport) -> None:
    """One line for each measure that differs."""
    rows = []
    for drift in report.first:
        group = ", ".join(f"{key} {shown(value)}" for key, value in drift.group.items()) or "all"
        for measure in drift.kept or drift.direct or {}:
            kept, direct = (
                shown(half[measure]) if half is not None else "no such group" for half in (drift.kept, drift.direct)
            )
            if kept != direct:
                rows.append([group, measure, kept, direct])
    shown_groups = f"first {len(report.first)} of {report.drifted:,}" if report.drifted > len(report.first) else "all"
    title = f"{report.aggregate}: drifting {report.unit} ({shown_groups})"
    output.table(title, ["group", "measure", "kept", "direct"], rows, right=["kept", "direct"])


def _findings(output: Output, found: list[Finding]) -> None:
    if not found:
        output.say("All is well.")
        return
    for each in found:
        line = Text(each.level, style=_LEVELS.get(each.level, ""))
        output.out.print(line, Text(f"{each.subject}: {each.what}"), soft_wrap=True)
        output.say(f"    {each.remedy}")
