"""All commands together, and the only place where an exception becomes a message and an exit code.

Exit codes: 0 done, 1 drift or a failed check, 2 wrong use, 3 database not reachable.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import psycopg
import typer
from sqlalchemy.exc import DBAPIError
from typer.exceptions import TyperException

from tallystick.cli import (
    bench,
    checking,
    counter,
    demo,
    events,
    inspection,
    lifecycle,
    redefinition,
    schedule,
    starter,
    switching,
    worker,
)
from tallystick.cli.output import Output
from tallystick.errors import ServerUnavailable, TallyError, UsageError
from tallystick.store.connection import is_lost

INTERRUPTED = 130
TRACEBACK = "TALLY_TRACEBACK"

app = typer.Typer(
    name="tally",
    help="Exact, always-fresh GROUP BY aggregates over your PostgreSQL tables. Start with: tally demo, tally init.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if show_version:
        typer.echo(f"tallystick {version('tallystick')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


demo.add_to(app)
starter.add_to(app)
lifecycle.add_to(app)
redefinition.add_to(app)
inspection.add_to(app)
checking.add_to(app)
switching.add_to(app)
events.add_to(app)
counter.add_to(app)
worker.add_to(app)
schedule.add_to(app)
bench.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `tally` with arguments (default: those of the process) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=given, prog_name="tally", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:  # no traceback for users; the variable brings it back
        if os.environ.get(TRACEBACK):
            raise
        told = _told(error)
        Output(as_json="--json" in given).fail(told)
        return told.exit_code
    if code == INTERRUPTED:
        Output(as_json=False).note("Interrupted.")
    return code if isinstance(code, int) else 0


def _told(error: Exception) -> TallyError:
    """Any exception as one of ours, whose message is a sentence and whose hint is the next step."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error):
        error = error.orig
    if isinstance(error, TallyError):
        return error
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "tally"
        return UsageError(error.format_message().replace("\n", " "), hint=f"Run: {command} --help")
    if isinstance(error, psycopg.Error):
        return _told_by_postgres(error)
    return TallyError(
        f"unexpected {type(error).__name__}: {error}",
        hint=f"This is a defect of tallystick; please report it with what {TRACEBACK}=1 shows.",
    )


def _told_by_postgres(error: psycopg.Error) -> TallyError:
    message = error.diag.message_primary or (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_lost(error):
        return ServerUnavailable(
            f"no connection to the database: {message}.", hint="Check that the server runs, then try again."
        )
    return TallyError(
        f"PostgreSQL says: {message}.", hint=error.diag.message_hint or "Nothing was changed by this step."
    )
