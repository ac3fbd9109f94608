"""worker: the process that folds what is due."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from sqlalchemy import Engine

from tallystick.cli.logs import LogFormat, logging_to_stderr
from tallystick.cli.output import Output
from tallystick.cli.target import App, Dsn, Schema, opened
from tallystick.errors import UsageError
from tallystick.maintain.stopping import Stop
from tallystick.maintain.worker import Settings, Worker, engine_for

_DEFAULT = Settings()


def add_to(app: typer.Typer) -> None:
    app.command("worker")(work)


def work(
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = None,
    interval: Annotated[
        float, typer.Option(min=0.05, max=3600, help="Seconds between two looks at what waits.")
    ] = _DEFAULT.interval_s,
    backlog: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Rows that make a fold due at once.")
    ] = _DEFAULT.backlog,
    max_age: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds after which even a single row is folded.")
    ] = _DEFAULT.max_age_s,
    keep_events: Annotated[
        int, typer.Option(min=1, max=36_500, help="Days after which events are deleted.")
    ] = _DEFAULT.keep_events.days,
    audit: Annotated[
        str, typer.Option(metavar="SHARE", help="Share of the time to spend on verifying, such as 0.5%. 0: none.")
    ] = f"{_DEFAULT.audit:.0%}",
    metrics_port: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where to serve metrics for Prometheus. Default: nowhere.")
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Lines of text, or a JSON object in each.")] = LogFormat.TEXT,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every fold, too.")] = False,
) -> None:
    """Fold what is due, again and again, until SIGTERM or Ctrl-C. Any number may run, on any machines."""
    settings = Settings(interval, backlog, max_age, timedelta(days=keep_events), _share(audit))
    with opened(dsn, app, schema, Output(as_json=False)) as target:
        engine = engine_for(target.engine.url)
        stop = Stop(engine)
        worker = Worker(engine, target.schema, settings, stop)
        try:
            with logging_to_stderr(log_format, verbose=verbose), _signals(stop):
                if metrics_port is not None:
                    _serve_metrics(engine, target.schema, worker, metrics_port)
                worker.run()
        finally:
            engine.dispose()


def _share(written: str) -> float:
    """1% as 0.01."""
    number = written.strip().removesuffix("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1 or (number == written.strip() and share):
        raise UsageError(f'"{written}" is no share of the time.', hint="Write it like --audit 1%, or 0 for none.")
    return share


def _serve_metrics(engine: Engine, schema: str, worker: Worker, address: str) -> None:
    try:
        from tallystick.cli import metrics
    except ModuleNotFoundError as error:
        raise UsageError(
            f"metrics need the package {error.name}.", hint="Run: pip install 'tallystick[metrics]'"
        ) from None
    metrics.serve(engine, schema, worker.done, address)


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """Both signals ask for the end, and do nothing else."""
    before = {number: signal.signal(number, lambda *_: stop.request()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
