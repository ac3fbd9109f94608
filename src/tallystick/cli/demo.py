"""demo: the whole way on real data, in one command."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from tallystick.cli.output import Output
from tallystick.cli.target import App, Dsn, Json, shown_url, url_of

if TYPE_CHECKING:
    from tallystick.demo import DemoReport

Rows = Annotated[int | None, typer.Option("--rows", min=1, help="Load only the first so many flights.")]


def add_to(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    rows: Rows = None,
    dsn: Dsn = None,
    app: App = None,  # noqa: ARG001  # every command takes it; the demo brings its own registry
    as_json: Json = False,
) -> int:
    """Keep six aggregates over 336,776 real flights beside four writers, and compare both halves.

    Exit code 1 if any answer differs.
    """
    from tallystick.demo import run  # its tables and aggregates are of no use to the other commands

    output = Output(as_json=as_json)
    url = url_of(dsn, output)
    with output.steps() as steps:
        report = run(url.render_as_string(hide_password=False), rows=rows, progress=steps.passing)
    output.json({field.name: getattr(report, field.name) for field in fields(report)} | {"exact": report.is_exact})
    if not as_json:
        _show(output, report, shown_url(url), is_embedded=not dsn)
    return 0 if report.is_exact else 1


def _show(output: Output, report: DemoReport, where: str, *, is_embedded: bool) -> None:
    written = report.written
    output.say(
        f"\nLoaded {report.flights:,} flights in {report.load_s:.1f} s. While {report.writers} writers committed"
        f" {written.committed:,} transactions ({written.inserted:,} rows inserted, {written.updated:,} updated,"
        f" {written.deleted:,} deleted) and rolled back {written.rolled_back:,}, {len(report.verified)} aggregates were"
        f" installed ({report.install_s:.1f} s), backfilled ({report.backfill_s:.1f} s), folded {written.folds:,} times"
        f" and verified, and {report.compared:,} answers of both halves compared: {_verdict(report.differed)}."
    )
    drifting = [each.aggregate for each in report.verified if each.status != "exact"]
    output.say(
        f"Then the writers stopped, and every group was verified again: {_verdict(len(drifting))}."
        " Medians, direct and kept in turns on one connection:\n"
    )
    rows: list[list[Any]] = [
        [each.name, f"{each.direct_ms:,.2f}", f"{each.kept_ms:,.2f}", f"{each.ratio:,.1f}", _yes(each.equal)]
        for each in report.queries
    ]
    output.table("", ["query", "direct ms", "kept ms", "ratio", "equal"], rows, right=["direct ms", "kept ms", "ratio"])
    output.say(f"\nThe flights are in the schema {report.source} of {where}, what is kept of them in {report.schema}.")
    if is_embedded:
        output.say("The embedded server stops when no command uses it; its data stay.")
    output.say(
        f"Next: tally status --schema {report.schema}; tally verify --schema {report.schema};"
        " tally init, for tables of your own."
    )


def _verdict(differing: int) -> str:
    return "all equal" if differing == 0 else f"{differing:,} DIFFER"


def _yes(equal: bool) -> Text:
    return Text("yes", style="green") if equal else Text("NO", style="bold red")
