"""The index that an ordered aggregate walks along: found, or built beside writers, before anything is installed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import count

import psycopg
from psycopg.sql import SQL, Composed, Identifier
from sqlalchemy import Engine

from tallystick.compiler.source_index import create_index, index_definition
from tallystick.compiler.text import Statement, canonical, fill, literal
from tallystick.declare.names import internal_name
from tallystick.declare.ordered import Ordered
from tallystick.declare.sqltext import Shape
from tallystick.declare.tokens import split_name, tokenize
from tallystick.errors import InstallError, SourceLocked
from tallystick.maintain.patience import patiently
from tallystick.store import aggregates, catalog, locks
from tallystick.store.catalog import Relation
from tallystick.store.connection import Cursor, autocommit, keeps_its_session, lift_timeouts, transaction

WATCH_S = 2.0
"""Time between two looks at whom a build waits for."""
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NeededIndex:
    """An index of a source.

    Attributes:
        name: of the index that we build where there is none, in the schema of the source.
        found: qualified name of one that is there.
        source: the table.
        schema: of the installation.
        columns: what follows the name of the table in CREATE INDEX, as PostgreSQL prints it.
    """

    name: str
    found: str | None
    source: Relation
    schema: str
    columns: str

    @property
    def qualified(self) -> str:
        """The name of the index that we build, with its schema."""
        return f"{split_name(self.source.name)[0]}.{Identifier(self.name).as_string(None)}"

    @property
    def used(self) -> str:
        """Name of the index that is used, found or to be built."""
        return self.name if self.found is None else split_name(self.found)[1]

    def statement(self) -> Statement:
        """How it is built."""
        concurrently = self.source.kind == "r"
        built = create_index(self.name, self.on(self.source.name), concurrently=concurrently)
        beside = "beside writers" if concurrently else "beside writers, partition by partition"
        purpose = f"the order of the items, built first and {beside}; no row's key may pass 2,704 bytes from then on"
        return Statement(purpose, built)

    def on(self, table: str) -> Composed:
        return fill("ON {table} {columns}", table=canonical(table), columns=canonical(self.columns))


def needed_index(cursor: Cursor, aggregate: Ordered, shape: Shape, source: Relation) -> NeededIndex:
    """Look for an index that serves an aggregate. The caller's transaction keeps nothing of it.

    Raises:
        InstallError: PostgreSQL refuses such an index.
    """
    name = _free_name(cursor, aggregate, source)
    probe = Identifier("pg_temp", shape.alias)
    with cursor.connection.transaction(force_rollback=True):
        cursor.execute(fill("CREATE TEMP TABLE {t} (LIKE {source})", t=probe, source=canonical(source.name)))
        try:
            cursor.execute(create_index(name, index_definition(shape, aggregate.ordering, probe), concurrently=False))
        except psycopg.ProgrammingError as error:
            raise InstallError(
                f'aggregate "{aggregate.name}": PostgreSQL has no such index on {source.name}:'
                f" {error.diag.message_primary}.",
                hint="Order by columns of types that can be sorted.",
            ) from error
        built = f"pg_temp.{Identifier(name).as_string(None)}"
        found = catalog.equal_index(cursor, source.oid, built)
        # Before version 16 the declaration, as PostgreSQL prints it, names the table in each of its columns, and so
        # would an index of a partition, whose name is another.
        columns = _columns(catalog.index_definition(cursor, built))
    return NeededIndex(name, found, source, aggregate.schema, columns)


def _columns(definition: str) -> str:
    using = next(token for token in tokenize(definition) if (token.kind, token.text) == ("word", "using"))
    return definition[using.start :]


def index_name(schema: str, aggregate: str, number: int = 1) -> str:
    return internal_name(f"{schema}_{aggregate}", "order" if number == 1 else f"order{number}")


def _free_name(cursor: Cursor, aggregate: Ordered, source: Relation) -> str:
    """The first name that no aggregate's index has: those of a predecessor, or of one that was renamed, stay theirs.

    It is the same one when a build that was killed is begun anew.
    """
    taken = {split_name(found.index) for found in aggregates.every(cursor, aggregate.schema) if found.index is not None}
    names = (index_name(aggregate.schema, aggregate.name, number) for number in count(1))
    return next(name for name in names if (split_name(source.name)[0], name) not in taken)


def build(engine: Engine, needed: NeededIndex, told: Told) -> str:
    """Build an index beside writers. A build that fails leaves nothing behind, one that was killed is begun anew.

    PostgreSQL waits for all transactions that were there before, whatever they are about.

    Args:
        told: is told whom is waited for, whenever that changes.
    Returns:
        The index by name.
    Raises:
        InstallError: PostgreSQL refused it, somebody has another index of that name, or others held a partitioned table
            all the time.
    """
    with transaction(engine, read_only=True) as cursor:
        is_left = catalog.comment_on(cursor, needed.qualified) == _mark(needed.schema)
        if catalog.is_valid_index(cursor, needed.qualified) and not is_left:
            raise InstallError(
                f"{needed.source.name} has an index {needed.qualified} already, of other columns than are needed.",
                hint="Rename that index, or the aggregate.",
            )
    built = (_build_parts if needed.source.kind == "p" else _build_one)(
        engine, needed, needed.source, needed.name, told
    )  # fmt: skip
    with transaction(engine) as cursor:
        cursor.execute(fill("COMMENT ON INDEX {i} IS {mark}", i=canonical(built), mark=literal(_mark(needed.schema))))
    return built


def drop(engine: Engine, schema: str, index: str | None) -> None:
    """Drop the index of an aggregate that is gone, if we built it and no other aggregate of the schema uses it."""
    if index is None:
        return
    with transaction(engine, read_only=True) as cursor:
        is_used = any(found.index == index for found in aggregates.every(cursor, schema))
        if is_used or catalog.comment_on(cursor, index) != _mark(schema):
            return
        has_parts = catalog.relation_kind(cursor, index) == "I"
    if has_parts:
        patiently(engine, _drop_now, engine, index)
    else:
        with autocommit(engine) as cursor:
            cursor.execute(_dropped(index, concurrently=True))


def _mark(schema: str) -> str:
    return f'tallystick: built for schema "{schema}", goes with the last ordered aggregate that walks along it'


def _build_one(engine: Engine, needed: NeededIndex, table: Relation, name: str, told: Told) -> str:
    schema, _ = split_name(table.name)
    index = f"{schema}.{Identifier(name).as_string(None)}"
    with autocommit(engine) as cursor:
        lasts = keeps_its_session(cursor)
        if lasts:
            cursor.execute("SELECT set_config('statement_timeout', '0', false)")
        try:
            # What is left of a build that was killed.
            _watched(engine, cursor, table, _dropped(index, concurrently=True), told)
            _watched(engine, cursor, table, create_index(name, needed.on(table.name), concurrently=True), told)
        except psycopg.errors.InsufficientPrivilege:
            raise
        except psycopg.Error as error:
            cursor.execute(_dropped(index, concurrently=True))
            raise InstallError(
                f"the index on {table.name} could not be built: {error.diag.message_primary}.",
                hint="Nothing was changed. Build one yourself, and install again: "
                + create_index(name, needed.on(table.name), concurrently=True).as_string(None),
            ) from error
        finally:
            if lasts:
                cursor.execute("RESET statement_timeout")
    return index


def _watched(engine: Engine, cursor: Cursor, table: Relation, statement: Composed, told: Told) -> None:
    """Run a statement, and tell whom it waits for."""
    pid, known = cursor.connection.info.backend_pid, set[int]()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(cursor.execute, statement)
        while not wait([running], WATCH_S).done:
            with transaction(engine, read_only=True) as other:
                waited_for = catalog.blocking(other, pid, table.oid)
            if not known >= {session.pid for session in waited_for}:
                told(f"the index waits for the transaction of {'; '.join(map(str, waited_for))}")
            known = {session.pid for session in waited_for}
        running.result()


def _build_parts(engine: Engine, needed: NeededIndex, table: Relation, name: str, told: Told) -> str:
    """An index of a partitioned table is made of those of its partitions; it is valid when all are attached."""
    schema, _ = split_name(table.name)
    index = f"{schema}.{Identifier(name).as_string(None)}"
    patiently(engine, _declare_parts, engine, needed, table, name, index)
    with transaction(engine, read_only=True) as cursor:
        children = catalog.children(cursor, table.oid)
    for child in children:
        own = internal_name(name, str(child.oid))
        part = (_build_parts if child.kind == "p" else _build_one)(engine, needed, child, own, told)
        with transaction(engine) as cursor:
            cursor.execute(
                fill("ALTER INDEX {i} ATTACH PARTITION {p}", i=canonical(index), p=canonical(part))
            )  # fmt: skip
    return index


def _declare_parts(engine: Engine, needed: NeededIndex, table: Relation, name: str, index: str) -> None:
    with transaction(engine) as cursor:
        lift_timeouts(cursor)
        locks.take_against_writers(cursor, table.name, only=True)
        cursor.execute(_dropped(index, concurrently=False))
        cursor.execute(create_index(name, needed.on(f"ONLY {table.name}"), concurrently=False))


def _drop_now(engine: Engine, index: str) -> None:
    with transaction(engine) as cursor:
        cursor.execute("SET LOCAL lock_timeout = '20ms'")
        try:
            cursor.execute(_dropped(index, concurrently=False))
        except psycopg.errors.LockNotAvailable as error:
            raise SourceLocked(index, by_readers=True) from error


def _dropped(index: str, *, concurrently: bool) -> Composed:
    how = SQL("CONCURRENTLY ") if concurrently else SQL("")
    return fill("DROP INDEX {how}IF EXISTS {i}", how=how, i=canonical(index))
