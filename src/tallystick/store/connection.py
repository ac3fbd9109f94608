"""Transactions of our own on a psycopg connection that a SQLAlchemy engine lends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg.sql import SQL
from sqlalchemy import Engine, PoolProxiedConnection

from tallystick.errors import MaintenanceRefused, MissingPrivilege, ServerUnavailable, UsageError

Cursor = psycopg.Cursor[tuple[Any, ...]]
Row = tuple[Any, ...]
RETRYABLE = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)


@contextmanager
def transaction(
    engine: Engine, *, snapshot: bool = False, read_only: bool = False, rollback: bool = False
) -> Iterator[Cursor]:
    """A transaction of our own, committed at the end and rolled back on an error.

    Args:
        engine: over `postgresql+psycopg`.
        snapshot: one snapshot for the whole transaction (REPEATABLE READ), else one per statement.
        read_only: refuse writes.
        rollback: roll back at the end in any case.
    Raises:
        ServerUnavailable: no connection.
        UsageError: the engine is not a synchronous one over psycopg.
        MissingPrivilege: the role lacks a right.
        MaintenanceRefused: PostgreSQL does not let our tables be changed.
    """
    with _lent(engine) as raw:
        try:
            with raw.transaction(force_rollback=rollback), raw.cursor() as cursor:
                # Whatever the session's defaults are: we rely on a snapshot per statement, or on one for all.
                cursor.execute(
                    SQL("SET TRANSACTION ISOLATION LEVEL {level} READ {access}").format(
                        level=SQL("REPEATABLE READ") if snapshot else SQL("READ COMMITTED"),
                        access=SQL("ONLY") if read_only else SQL("WRITE"),
                    )
                )
                yield cursor
        except psycopg.errors.InsufficientPrivilege as error:
            raise _missing_privilege(raw, error) from error
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            raise MaintenanceRefused(
                f"{error.diag.message_primary}.",
                hint="A publication takes in our tables: publish the schemas of the application instead"
                " (CREATE PUBLICATION … FOR TABLES IN SCHEMA …).",
            ) from error


@contextmanager
def autocommit(engine: Engine) -> Iterator[Cursor]:
    """Statements without a transaction around them, for those that PostgreSQL takes in none.

    Raises:
        ServerUnavailable, UsageError, MissingPrivilege: as of `transaction`.
    """
    with _lent(engine) as raw:
        try:
            raw.autocommit = True
            with raw.cursor() as cursor:
                yield cursor
        except psycopg.errors.InsufficientPrivilege as error:
            raise _missing_privilege(raw, error) from error
        finally:
            raw.autocommit = False


def keeps_its_session(cursor: Cursor) -> bool:
    """Whether the next transaction runs in the same session; not behind a pooler such as PgBouncer, which lends them.

    A pooler does not tell the number of the process that it lends.
    """
    (pid,) = one_row(cursor.execute("SELECT pg_backend_pid()"))
    return bool(pid == cursor.connection.info.backend_pid)


def _missing_privilege(raw: psycopg.Connection[Any], error: psycopg.Error) -> MissingPrivilege:
    return MissingPrivilege(
        f"role {raw.info.user}: {error.diag.message_primary}.",
        hint="Connect as the owner of the table and of the schema, or ask them for the right.",
    )


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the connection is gone, or that the server shuts down or ends the session."""
    if isinstance(error, ServerUnavailable):
        return True
    if not isinstance(error, psycopg.OperationalError | psycopg.InternalError):
        return False
    # Class 08: connection exceptions; 57P: shutdown. A lost connection has no state, and is an InternalError if it was
    # lost with the answer to COMMIT.
    return not error.sqlstate or error.sqlstate.startswith(("08", "57P"))


TRANSACTION_TIMEOUT_SINCE = 170_000


def lift_timeouts(cursor: Cursor) -> None:
    """Let this transaction take as long as it takes: no INSERT, UPDATE, DELETE or read waits for it.

    It takes no snapshot.
    """
    cursor.execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
    if cursor.connection.info.server_version >= TRANSACTION_TIMEOUT_SINCE:
        cursor.execute("SET LOCAL transaction_timeout = 0")


def spell_plainly(cursor: Cursor) -> None:
    """Values as text are spelled alike, and read back as what they were, whatever the session's settings."""
    cursor.execute(
        "SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1"
    )


def plan_anew(cursor: Cursor) -> None:
    """Forget this session's plans: PostgreSQL 18 keeps those of SQL functions.

    One that was made while a table was empty walks over the whole table for each row later.
    """
    cursor.execute("DISCARD PLANS")


def one_row(cursor: Cursor) -> Row:
    """The row of a query that always gives one."""
    row = cursor.fetchone()
    if row is None:
        raise LookupError("a query that always gives a row gave none")
    return row


@contextmanager
def _lent(engine: Engine) -> Iterator[psycopg.Connection[Row]]:
    """The driver's connection, which prepares nothing: behind a pooler the next transaction has another session."""
    connection = _connection(engine)
    raw = cast("psycopg.Connection[Row]", connection.driver_connection)
    threshold, raw.prepare_threshold = raw.prepare_threshold, None
    try:
        yield raw
    finally:
        raw.prepare_threshold = threshold
        connection.close()


def _connection(engine: object) -> PoolProxiedConnection:
    if not isinstance(engine, Engine) or (engine.dialect.name, engine.dialect.driver) != ("postgresql", "psycopg"):
        got = engine.url.drivername if isinstance(engine, Engine) else type(engine).__name__
        raise UsageError(
            f"expected a synchronous engine over postgresql+psycopg, got {got}.",
            hint='Pass create_engine("postgresql+psycopg://…").',
        )
    try:
        return engine.raw_connection()
    except psycopg.OperationalError as error:
        where = engine.url.render_as_string(hide_password=True)
        raise ServerUnavailable(
            f"cannot connect to {where}: {str(error).strip().splitlines()[0]}.",
            hint="Check that the server runs and that the URL names the right host, port, user and database.",
        ) from error
