"""verify, repair."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tallystick.cli.output import Output, Steps, counted, seconds, shown
from tallystick.cli.target import App, Dsn, Json, Names, Schema, Target, opened
from tallystick.errors import UsageError
from tallystick.maintain import counters
from tallystick.maintain import repair as repairing
from tallystick.maintain import verify as verifying
from tallystick.maintain.audit import AuditStep, verify_rolling
from tallystick.maintain.repair import RepairResult
from tallystick.maintain.verify import VerifyReport

NO_GROUP = "no such group"


def add_to(app: typer.Typer) -> None:
    for command in (verify, repair):
        app.command()(command)


def verify(
    names: Names = None,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Compare so many groups or buckets, taken at random.")
    ] = None,
    rolling: Annotated[
        bool, typer.Option("--rolling", help="Part by part, each in a snapshot of its own; Ctrl-C, and it goes on.")
    ] = False,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    as_json: Json = False,
) -> int:
    """Compare kept and direct answers, each aggregate in one snapshot, beside writers. Exit code 1 on drift."""
    output = Output(as_json=as_json)
    if sample is not None and rolling:
        raise UsageError("--sample and --rolling exclude each other.", hint="A rolling pass compares everything.")
    found: list[VerifyReport] = []
    with opened(dsn, app, schema, output) as target:
        chosen = target.comparable_names(names)
        known = target.installed_counters()
        with output.steps(len(chosen)) as steps:
            for name in chosen:
                steps.begin(f"verifying {name}")
                if name in known:
                    report = counters.verify(target.engine, target.schema, name)
                elif rolling:
                    report = _rolling(target, name, steps)
                else:
                    report = verifying.verify(target.engine, target.schema, name, sample=sample)
                found.append(report)
                steps.done(target.pasteable(_verdict(report)))
    output.json({"exact": all(each.is_exact for each in found), "aggregates": [_report(each) for each in found]})
    for each in found:
        if each.first and not as_json:
            _drifts(output, each)
    drifting = [each.aggregate for each in found if each.status == "drift"]
    if drifting:
        by_command = {
            "repair": [name for name in drifting if name not in known],
            "backfill": [name for name in drifting if name in known],  # counters
        }
        mend = " && ".join(f"tally {command} {' '.join(those)}" for command, those in by_command.items() if those)
        output.note(target.pasteable(f"{len(drifting)} of {len(found)} aggregates drift. Run: {mend}"))
    return 1 if drifting else 0


def repair(
    names: Names = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be changed, and change nothing.")] = False,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Correct what differs from the source, in one snapshot, beside writers; nothing else is written."""
    output = Output(as_json=as_json)
    found: list[RepairResult] = []
    with opened(dsn, app, schema, output) as target:
        known = target.installed_counters()
        repairing.refuse_counters(name for name in names or () if name in known)
        chosen = [name for name in target.installed_names(names) if name not in known]
        with output.steps(len(chosen)) as steps:
            for name in chosen:
                steps.begin(f"repairing {name}")
                found.append(repairing.repair(target.engine, target.schema, name, dry_run=dry_run))
                steps.done(_repaired(found[-1], dry_run=dry_run))
    output.json({"dry_run": dry_run, "aggregates": [_as_dict(each) for each in found]})
    for each in found:
        if each.changes and not as_json:
            _changes(output, each)


def _rolling(target: Target, name: str, steps: Steps) -> VerifyReport:
    def told(step: AuditStep) -> None:
        steps.begin(f"verifying {name}: {counted(step.groups, step.report.unit)}")

    return verify_rolling(target.engine, target.schema, name, progress=told)


def _verdict(report: VerifyReport) -> str:
    name, took = report.aggregate, seconds(report.elapsed_s)
    if report.status == "building":
        return f"{name}: not backfilled yet, answers from its source"
    if report.status == "uncounted":
        return f"{name}: its partitions are not those that are counted, answers from its source: see tally status"
    if report.is_exact:
        return f"{name}: exact, {counted(report.groups, report.unit)} in {took}"
    return f"{name}: DRIFT in {report.drifted:,} of {counted(report.groups, report.unit)}, found in {took}"


def _report(report: VerifyReport) -> dict[str, Any]:
    return {
        "name": report.aggregate,
        "status": report.status,
        "groups": report.groups,
        "drifted": report.drifted,
        "first": [
            {"group": each.group, "kept": each.kept, "direct": each.direct, "diff": each.diff} for each in report.first
        ],
        "elapsed_s": report.elapsed_s,
    }


def _drifts(output: Output, report: VerifyReport) -> None:
    """One line for each measure that differs."""
    rows = []
    for drift in report.first:
        group = _group(drift.group)
        for measure, diff in drift.diff.items():
            halves = (shown(half[measure]) if half is not None else NO_GROUP for half in (drift.kept, drift.direct))
            rows.append([group, measure, *halves, "" if diff is None else shown(diff)])
    shown_groups = f"first {len(report.first)} of {report.drifted:,}" if report.drifted > len(report.first) else "all"
    title = f"{report.aggregate}: drifting {report.unit} ({shown_groups})"
    output.table(title, ["group", "measure", "kept", "direct", "diff"], rows, right=["kept", "direct", "diff"])


def _repaired(result: RepairResult, *, dry_run: bool) -> str:
    took = seconds(result.elapsed_s)
    if not result.groups:
        return f"{result.aggregate}: nothing to repair, found in {took}"
    done = "would be written anew" if dry_run else "written anew"
    return f"{result.aggregate}: {counted(result.groups, result.unit)} {done} in {took}"


def _as_dict(result: RepairResult) -> dict[str, Any]:
    return {
        "name": result.aggregate,
        "groups": result.groups,
        "changes": [
            {"group": each.group, "measure": each.measure, "was": each.was, "is": each.is_} for each in result.changes
        ],
        "elapsed_s": result.elapsed_s,
    }


def _changes(output: Output, result: RepairResult) -> None:
    rows = [[_group(each.group), each.measure, shown(each.was), shown(each.is_)] for each in result.changes]
    output.table(f"{result.aggregate}: changes", ["group", "measure", "was", "is"], rows, right=["was", "is"])


def _group(group: dict[str, Any]) -> str:
    return ", ".join(f"{key} {shown(value)}" for key, value in group.items()) or "all"
