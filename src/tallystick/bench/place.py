"""A database of the benchmark's own, and the tables in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg.sql import Identifier, Literal
from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Identity,
    Index,
    Integer,
    MetaData,
    Select,
    Table,
    create_engine,
    func,
    make_url,
    select,
)

from tallystick.compiler.text import comma, fill
from tallystick.errors import MissingPrivilege, UsageError
from tallystick.store.connection import transaction

DATABASE = "tally_bench"
MARK = "made and dropped by tally bench"


@contextmanager
def own_database(url: str) -> Iterator[Engine]:
    """An engine over a new database on the server of `url`, dropped at the end.

    Raises:
        ServerUnavailable: no connection.
        MissingPrivilege: the role may not create databases.
        UsageError: a database of that name exists and is not a benchmark's.
    """
    server = create_engine(url)
    try:
        _drop(server)
        _run(server, fill("CREATE DATABASE {d}", d=Identifier(DATABASE)))
        try:
            _run(server, fill("COMMENT ON DATABASE {d} IS {mark}", d=Identifier(DATABASE), mark=Literal(MARK)))
            engine = create_engine(make_url(url).set(database=DATABASE))
            try:
                yield engine
            finally:
                engine.dispose()
        finally:
            _drop(server)
    finally:
        server.dispose()


def message_table(schema: str, *indexed: str) -> Table:
    """The source of every benchmark: messages of chats; `edits` is used by no aggregate."""
    table = Table(
        "message", MetaData(schema=schema),
        Column("id", BigInteger, Identity(), primary_key=True),
        Column("chat_id", BigInteger, nullable=False),
        Column("size", Integer, nullable=False),
        Column("edits", Integer, nullable=False, server_default="0"),
    )  # fmt: skip
    if indexed:
        Index(None, *(table.c[name] for name in indexed))
    return table


def chat_table(schema: str) -> Table:
    """What a page of an application lists: the parents of the groups."""
    return Table("chat", MetaData(schema=schema), Column("id", BigInteger, primary_key=True, autoincrement=False))


def by_chat(table: Table) -> Select[Any]:
    """The aggregate of every benchmark."""
    return select(
        table.c.chat_id, func.count().label("messages"), func.sum(table.c.size).label("bytes")
    ).group_by(table.c.chat_id)  # fmt: skip


def create(engine: Engine, table: Table) -> None:
    """Make a table with its schema."""
    with transaction(engine) as cursor:
        cursor.execute(fill("CREATE SCHEMA IF NOT EXISTS {s}", s=Identifier(table.schema or "public")))
    table.metadata.create_all(engine)


def qualified(table: Table) -> Identifier:
    """The table in statements built by psycopg."""
    return Identifier(table.schema or "public", table.name)


def settle(engine: Engine, *tables: Identifier) -> None:
    """VACUUM and ANALYZE tables (none: all), then CHECKPOINT if the role may: no round pays for the one before."""
    with session(engine) as connection:
        connection.execute(fill("VACUUM (ANALYZE) {t}", t=comma(tables)))
        try:
            connection.execute("CHECKPOINT")
        except psycopg.errors.InsufficientPrivilege:
            return


@contextmanager
def session(engine: Engine) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection that commits each statement by itself, as VACUUM and CREATE DATABASE ask."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield cast("psycopg.Connection[tuple[Any, ...]]", connection.connection.driver_connection)


def _run(server: Engine, statement: Any) -> None:
    with session(server) as connection:
        try:
            connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege as error:
            raise MissingPrivilege(
                f"tally bench: role {connection.info.user} may not create the database {DATABASE}.",
                hint="Give it CREATEDB, or run the benchmark on the embedded server.",
            ) from error


def _drop(server: Engine) -> None:
    with transaction(server, read_only=True) as cursor:
        found = cursor.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (DATABASE,)
        ).fetchone()
    if found is None:
        return
    if found[0] != MARK:
        raise UsageError(
            f'tally bench: the database "{DATABASE}" exists and was not made by it.',
            hint="Rename or drop that database.",
        )
    _run(server, fill("DROP DATABASE {d} WITH (FORCE)", d=Identifier(DATABASE)))
