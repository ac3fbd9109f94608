"""Where an example runs: a database, and schemas of its own in it that are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, cast

import psycopg
import typer
from psycopg.sql import SQL, Identifier, Literal
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from tallystick import ServerUnavailable, TallyError, UsageError, embedded

MARK = "Made by an example of tallystick. The next run drops it."

Scale = Annotated[float, typer.Option(min=0.001, max=100, help="Multiplies how much there is and how much is written.")]
Dsn = Annotated[
    str | None, typer.Option(metavar="URL", help="As postgresql://user@host/database. Default: the embedded server.")
]


@contextmanager
def place(dsn: str | None, *schemas: str, connections: int) -> Iterator[Engine]:
    """An engine over a database in which these schemas are new and empty, and are dropped at the end.

    Args:
        dsn: URL of a database where the role may create schemas; None for the embedded server.
        connections: open at once, at most; they are kept between transactions.
    Raises:
        ServerUnavailable: the database cannot be reached.
        TallyError: the same example runs there now.
        UsageError: there is a schema of such a name that no example has made, or the DSN is no URL.
    """
    try:
        url = make_url(dsn or embedded.start()).set(drivername="postgresql+psycopg")
    except ArgumentError as error:
        raise UsageError(f'--dsn "{dsn}" is no URL.', hint="Write it like postgresql://user@host/database.") from error
    engine = create_engine(url, pool_size=connections + 1)  # one more holds the lock, until it is closed
    try:
        with _alone(engine, schemas[0]), own_schemas(engine, *schemas):
            yield engine
    finally:
        engine.dispose()


@contextmanager
def own_schemas(engine: Engine, *schemas: str) -> Iterator[None]:
    """Schemas that are new and empty, and are dropped at the end; those that a killed run has left are dropped first.

    Raises:
        UsageError: there is a schema of such a name that no example has made.
    """
    with _cursor(engine) as cursor:
        for schema in schemas:
            found = cursor.execute(
                "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", (schema,)
            ).fetchone()
            if found is not None and found[0] != MARK:
                raise UsageError(
                    f'The database has a schema "{schema}" that no example has made.',
                    hint="Name another database with --dsn.",
                )
            name = Identifier(schema)
            cursor.execute(SQL("DROP SCHEMA IF EXISTS {schema} CASCADE").format(schema=name))
            cursor.execute(SQL("CREATE SCHEMA {schema}").format(schema=name))
            cursor.execute(SQL("COMMENT ON SCHEMA {schema} IS {mark}").format(schema=name, mark=Literal(MARK)))
    try:
        yield
    finally:
        with _cursor(engine) as cursor:
            names = SQL(", ").join(Identifier(schema) for schema in schemas)
            cursor.execute(SQL("DROP SCHEMA IF EXISTS {schemas} CASCADE").format(schemas=names))


@contextmanager
def told() -> Iterator[None]:
    """End the program with one sentence and the error's exit code, where it meets an error of tallystick's."""
    try:
        yield
    except TallyError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


@contextmanager
def _alone(engine: Engine, name: str) -> Iterator[None]:
    try:
        # No transaction: an open one may hold a snapshot, for which VACUUM and CREATE INDEX CONCURRENTLY would wait.
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except OperationalError as error:
        where = engine.url.render_as_string(hide_password=True)
        raise ServerUnavailable(f"cannot connect to {where}.", hint="Check --dsn, or leave it away.") from error
    with connection:
        if not connection.scalar(select(func.pg_try_advisory_lock(func.hashtextextended(f"tallystick {name}", 0)))):
            raise TallyError("This example is running in the database already.", hint="Try again when it has ended.")
        yield


@contextmanager
def _cursor(engine: Engine) -> Iterator[psycopg.Cursor[Any]]:
    with engine.begin() as connection:
        yield cast("psycopg.Cursor[Any]", connection.connection.cursor())
