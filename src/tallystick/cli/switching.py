"""rollback, resume."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer

from tallystick.cli.output import Output, counted, named, seconds
from tallystick.cli.target import App, Dsn, Json, Names, Schema, opened
from tallystick.errors import InstallError, NotKept, NotWhole, UsageError
from tallystick.maintain import switch
from tallystick.maintain.switch import Resumed, RolledBack

All = Annotated[bool, typer.Option("--all", help="All aggregates; counters are passed over.")]


def add_to(app: typer.Typer) -> None:
    for command in (rollback, resume):
        app.command()(command)


def rollback(
    names: Names = None,
    all_: All = False,
    stop_maintenance: Annotated[
        bool,
        typer.Option("--stop-maintenance", help="Take the triggers off the sources too; it takes a backfill back."),
    ] = False,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Put all readers on the source at once, waiting for nobody, until tally resume. Triggers and folds go on."""
    output = Output(as_json=as_json)
    found: list[RolledBack] = []
    with opened(dsn, app, schema, output) as target:
        chosen, passed_over = _chosen(target.installed_names(names), target.installed_counters(), names, all_=all_)
        with output.steps(len(chosen)) as steps:
            for name in chosen:
                steps.begin(f"rolling back {name}")
                found.append(switch.rollback(target.engine, target.schema, name, stop_maintenance=stop_maintenance))
                steps.done(f"{name}: {_where(found[-1])}")
        if passed_over:
            output.note(f"Passed over: {', '.join(passed_over)}. A counter has no switch.")
        commands = ("install", "backfill", "resume") if stop_maintenance else ("resume",)
        way_back = " && ".join(f"tally {command} {' '.join(chosen)}" for command in commands)
        output.note(target.pasteable(f"To go back: {way_back}"))
    output.json({"aggregates": [named(each) for each in found], "passed_over": passed_over})


def resume(
    names: Names = None,
    all_: All = False,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    as_json: Json = False,
) -> int:
    """Verify, and put readers on the kept answers again if they are exact. Exit code 1 on drift."""
    output = Output(as_json=as_json)
    found: list[Resumed] = []
    refused: list[dict[str, str | None]] = []
    with opened(dsn, app, schema, output) as target:
        chosen, passed_over = _chosen(target.installed_names(names), target.installed_counters(), names, all_=all_)
        with output.steps(len(chosen)) as steps:
            for name in chosen:
                steps.begin(f"verifying {name}")
                try:
                    found.append(switch.resume(target.engine, target.schema, name))
                except (InstallError, NotKept, NotWhole) as error:  # no reason to leave the others rolled back
                    steps.done(target.pasteable(str(error)))
                    hint = target.pasteable(error.hint) if error.hint is not None else None
                    refused.append({"name": name, "error": error.message, "hint": hint})
                    continue
                steps.done(f"{name}: {_outcome(found[-1])}")
        if passed_over:
            output.note(f"Passed over: {', '.join(passed_over)}. A counter has no switch.")
        drifting = [each.aggregate for each in found if each.report.status == "drift"]
        if drifting:
            hint = f"Not resumed: {', '.join(drifting)}. Run: tally repair {' '.join(drifting)}"
            output.note(target.pasteable(hint))
    resumed = [{**named(each), "report": named(each.report)} for each in found]
    output.json({"aggregates": resumed, "refused": refused, "passed_over": passed_over})
    return 0 if all(each.report.is_exact for each in found) and not refused else 1


def _chosen(
    installed: list[str], counters: Collection[str], names: list[str] | None, *, all_: bool
) -> tuple[list[str], list[str]]:
    """What is switched, and the counters that are passed over.

    Raises:
        UsageError: neither names nor --all, or both, or the name of a counter.
    """
    if bool(names) == all_:
        raise UsageError("which aggregates? Expected names, or --all.", hint="Run: tally status")
    switch.refuse_counters(name for name in names or () if name in counters)
    return [name for name in installed if name not in counters], [name for name in installed if name in counters]


def _where(each: RolledBack) -> str:
    before = "readers are on the source" if each.was == "kept" else "readers stay on the source"
    return before + ("" if each.is_maintained else "; its triggers are off, and what was kept is given up")


def _outcome(each: Resumed) -> str:
    report = each.report
    compared = counted(report.groups, report.unit)
    if report.is_exact:
        return f"exact, {compared} in {seconds(report.elapsed_s)}; readers are served what is kept"
    return f"DRIFT in {report.drifted:,} of {compared}; readers stay as they are"
