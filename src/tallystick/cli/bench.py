"""bench: what keeping costs the writers, and what it gives to the readers."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from tallystick.cli.output import Output
from tallystick.cli.target import App, Dsn, Json, url_of

Quick = Annotated[bool, typer.Option("--quick", help="Small sizes: shows that it runs; the figures are noise.")]

bench = typer.Typer(help="Measure on this machine, in a database of its own that is dropped afterwards.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(bench, name="bench")


@bench.callback(invoke_without_command=True)
def _start(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@bench.command()
def write(quick: Quick = False, dsn: Dsn = None, app: App = None, as_json: Json = False) -> None:  # noqa: ARG001
    """What an aggregate costs the writers of its source."""
    _run("write", dsn, quick=quick, as_json=as_json)


@bench.command()
def read(quick: Quick = False, dsn: Dsn = None, app: App = None, as_json: Json = False) -> None:  # noqa: ARG001
    """How long kept reads take, beside direct ones."""
    _run("read", dsn, quick=quick, as_json=as_json)


@bench.command()
def fold(quick: Quick = False, dsn: Dsn = None, app: App = None, as_json: Json = False) -> None:  # noqa: ARG001
    """How many deltas a second are folded."""
    _run("fold", dsn, quick=quick, as_json=as_json)


@bench.command()
def counter(quick: Quick = False, dsn: Dsn = None, app: App = None, as_json: Json = False) -> None:  # noqa: ARG001
    """What an add costs beside a single-row counter and beside none, and how long a count takes."""
    _run("counter", dsn, quick=quick, as_json=as_json)


@bench.command()
def ordered(quick: Quick = False, dsn: Dsn = None, app: App = None, as_json: Json = False) -> None:  # noqa: ARG001
    """What an order costs its writers, and how long counts, ranks and offsets take, beside direct ones."""
    _run("ordered", dsn, quick=quick, as_json=as_json)


@bench.command()
def backfill(quick: Quick = False, dsn: Dsn = None, app: App = None, as_json: Json = False) -> None:  # noqa: ARG001
    """How long a backfill takes beside the plain query, and what writers keep of their rate meanwhile."""
    _run("backfill", dsn, quick=quick, as_json=as_json)


@bench.command()
def verify(quick: Quick = False, dsn: Dsn = None, app: App = None, as_json: Json = False) -> None:  # noqa: ARG001
    """How long a comparison of both halves takes, beside the direct query."""
    _run("verify", dsn, quick=quick, as_json=as_json)


def _run(name: str, dsn: str | None, *, quick: bool, as_json: bool) -> None:
    output = Output(as_json=as_json)
    url = url_of(dsn, output)
    benchmark: Any = import_module(f"tallystick.bench.{name}")  # only when asked for: no other command needs it
    with output.steps() as steps:
        steps.begin("measuring")
        report = benchmark.run(url.render_as_string(hide_password=False), quick=quick, progress=steps.done)
    output.json(report)
