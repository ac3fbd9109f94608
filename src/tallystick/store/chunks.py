"""The chunks of a backfill, as the database has them."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.snapshot import ColumnType
from tallystick.compiler.text import NO_SQL, column, fill, literal
from tallystick.declare.names import internal_name
from tallystick.store import catalog
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor, one_row


@dataclass(frozen=True, slots=True)
class Chunks:
    """How far a backfill has come.

    Attributes:
        planned, counted: numbers of chunks.
        rows: of the chunks that are counted, about.
        is_planned: the chunks make up the whole table.
        is_own: all were planned and counted in this cluster.
    """

    planned: int
    counted: int
    rows: int
    is_planned: bool
    is_own: bool

    @property
    def is_done(self) -> bool:
        return self.is_planned and self.counted == self.planned


def chunks(cursor: Cursor, schema: str, name: str) -> Chunks:
    """The chunks of the backfill that is under way; none if there is none."""
    query = fill(
        "SELECT count(*), count(snapshot), coalesce(sum(size) FILTER (WHERE snapshot IS NOT NULL), 0)::bigint,"
        " coalesce(bool_or(size IS NULL), false), coalesce(bool_and(xmin = counter::xid"
        " AND counter < pg_snapshot_xmax(pg_current_snapshot())), true) FROM {chunk}",
        chunk=_object(schema, name, "chunk"),
    )  # fmt: skip
    return Chunks(*one_row(cursor.execute(query)))


def has_chunks(cursor: Cursor, schema: str, name: str) -> bool:
    """It was installed over a table with a primary key."""
    return catalog.relation_exists(cursor, catalog.qualified(schema, internal_name(name, "chunk")))


def place_types(cursor: Cursor, schema: str, name: str) -> tuple[ColumnType, ...]:
    """Types of the columns that the place of a row has."""
    columns = catalog.view_columns(cursor, catalog.qualified(schema, internal_name(name, "chunk")))
    return tuple(column.type for column in columns if column.name.startswith(("p", "k")))


def extend(cursor: Cursor, schema: str, name: str, rows: int) -> bool:
    """Plan one more chunk; False if the chunks make up the whole table."""
    (more,) = one_row(cursor.execute(_call(schema, name, "extend", literal(rows))))
    return bool(more)


def count(cursor: Cursor, schema: str, name: str) -> tuple[int | None, int | None]:
    """Count a chunk that nobody counts: its number, None if there is none, and its rows, None if nobody knows."""
    query = fill("SELECT id, size FROM {f}()", f=_object(schema, name, "count"))
    number, size = one_row(cursor.execute(query))
    return number, size


def begin(cursor: Cursor, schema: str, name: str) -> None:
    """Clear what is kept."""
    cursor.execute(_call(schema, name, "begin"))


def give_up(cursor: Cursor, schema: str, name: str) -> None:
    """Forget a backfill that is under way: the next one begins anew."""
    if has_chunks(cursor, schema, name):
        lock(cursor, schema, name)
        cursor.execute(fill("DELETE FROM {chunk}", chunk=_object(schema, name, "chunk")))


def settle(cursor: Cursor, schema: str, name: str) -> int:
    """Make what is kept of what was counted; number of groups or buckets."""
    return int(one_row(cursor.execute(_call(schema, name, "settle")))[0])


def lock(cursor: Cursor, schema: str, name: str) -> None:
    """Wait for those who count, and let nobody begin to, for the rest of the transaction."""
    cursor.execute(fill("LOCK TABLE {chunk} IN EXCLUSIVE MODE", chunk=_object(schema, name, "chunk")))


def knows_places(cursor: Cursor, schema: str, found: Installed) -> bool:
    """Changes are captured with the place of their row."""
    return found.ordering is not None or catalog.relation_exists(
        cursor, catalog.qualified(schema, internal_name(found.name, "places"))
    )


def has_misplaced(cursor: Cursor, schema: str, found: Installed) -> bool:
    """A change was captured without the place of its row."""
    if found.ordering is not None:
        return False
    count = len(place_types(cursor, schema, found.name))
    lacking = SQL(" OR ").join(fill("{p} IS NULL", p=column("p", index)) for index in range(1, count + 1))
    query = fill("SELECT EXISTS (SELECT FROM {d} WHERE {l})", d=_object(schema, found.name, "delta"), l=lacking)
    return bool(one_row(cursor.execute(query))[0])


def is_truncated(cursor: Cursor, schema: str, name: str) -> bool:
    """A TRUNCATE has left a marker."""
    query = fill(
        "SELECT EXISTS (SELECT FROM {reset} WHERE aggregate = {name} AND partition IS NULL)",
        reset=Identifier(schema, "reset"), name=literal(name),
    )  # fmt: skip
    return bool(one_row(cursor.execute(query))[0])


def _object(schema: str, name: str, suffix: str) -> Identifier:
    return Identifier(schema, internal_name(name, suffix))


def _call(schema: str, name: str, suffix: str, argument: Composable = NO_SQL) -> Composed:
    return fill("SELECT {f}({a})", f=_object(schema, name, suffix), a=argument)
