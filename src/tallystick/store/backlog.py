"""What waits to be folded: how much, since when, and which aggregates need a fold before they serve what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg.sql import SQL, Composed, Identifier

from tallystick.compiler.text import conjunction, fill, literal
from tallystick.declare.names import internal_name
from tallystick.store import aggregates, counters, partitions
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor


@dataclass(frozen=True, slots=True)
class Waiting:
    """What one aggregate or counter has to be folded.

    `rows` are counted up to the limit that was asked for. `age_s` is how long a worker has seen rows wait, in seconds,
    and 0 where it sees the first ones now. `is_stale`: readers are served by the source, or go around what a TRUNCATE
    has voided, until the next fold. `is_noted`: a worker has seen rows wait before.
    """

    name: str
    is_counter: bool
    rows: int
    age_s: float
    is_stale: bool
    is_noted: bool


def names(cursor: Cursor, schema: str) -> list[str]:
    """Of the aggregates that are kept, and of the counters."""
    return [*(found.name for found in _kept(cursor, schema)), *(each.name for each in counters.every(cursor, schema))]


def look(cursor: Cursor, schema: str, limit: int, *, only: str | None = None) -> list[Waiting]:
    """What waits in the aggregates that are kept and in the counters.

    Args:
        limit: rows to count in each at most.
        only: the one to look at.
    Raises:
        psycopg.ProgrammingError: what belongs to one of them is not there.
    """
    kept = [found for found in _kept(cursor, schema) if only in (None, found.name)]
    counted = [each.name for each in counters.every(cursor, schema) if only in (None, each.name)]
    queries = [
        *(_of_aggregate(schema, found, limit) for found in kept),
        *(_of_counter(schema, name, limit) for name in counted),
    ]
    if not queries:
        return []
    rows = cursor.execute(
        fill(
            "SELECT w.name, w.rows, coalesce(extract(epoch FROM clock_timestamp() - b.since)::float8, 0), w.stale,"
            " b.since IS NOT NULL FROM ({queries}) AS w (name, rows, stale)"
            " LEFT JOIN {backlog} AS b ON b.aggregate = w.name",
            queries=SQL(" UNION ALL ").join(queries), backlog=Identifier(schema, "backlog"),
        )
    ).fetchall()  # fmt: skip
    changed = {found.name for found in kept if partitions.differences(cursor, schema, found)}
    return [
        Waiting(name, name in counted, n, age, stale or name in changed, noted) for name, n, age, stale, noted in rows
    ]


def note(cursor: Cursor, schema: str, found: list[Waiting]) -> None:
    """Take note of what has begun or ceased to wait. Nothing is written while nothing changes."""
    table = Identifier(schema, "backlog")
    waiting = [each.name for each in found if each.rows]
    begun = [each.name for each in found if each.rows and not each.is_noted]
    if begun:
        cursor.execute(
            fill(
                "INSERT INTO {t} (aggregate) SELECT unnest({names}) ON CONFLICT DO NOTHING",
                t=table, names=counters.literal_list(begun),
            )
        )  # fmt: skip
    if any(each.is_noted and not each.rows for each in found):
        cursor.execute(
            fill("DELETE FROM {t} WHERE aggregate <> ALL ({names})", t=table, names=counters.literal_list(waiting))
        )


def ages(cursor: Cursor, schema: str) -> dict[str, float]:
    """For how many seconds a worker has seen rows of each aggregate wait; only of those where one sees some."""
    if not aggregates.is_schema_installed(cursor, schema):
        return {}
    rows = cursor.execute(
        fill(
            "SELECT aggregate, extract(epoch FROM clock_timestamp() - since)::float8 FROM {t}",
            t=Identifier(schema, "backlog"),
        )
    ).fetchall()
    return dict(rows)


def forget(cursor: Cursor, schema: str, name: str) -> None:
    """Note that an aggregate was folded: whatever waits in it now has begun to wait since."""
    cursor.execute(
        fill("DELETE FROM {t} WHERE aggregate = {name}", t=Identifier(schema, "backlog"), name=literal(name))
    )


def _kept(cursor: Cursor, schema: str) -> list[Installed]:
    return [found for found in aggregates.every(cursor, schema) if found.is_complete and found.source is not None]


def _of_aggregate(schema: str, found: Installed, limit: int) -> Composed:
    suffixes = ["delta", *(["mirror"] if found.mirror is not None else [])]
    counts = [_up_to(schema, internal_name(found.name, suffix), SQL("true"), limit) for suffix in suffixes]
    return fill(
        "SELECT {name}, {rows}, {stale}",
        name=literal(found.name), rows=SQL(" + ").join(counts),
        stale=SQL(" OR ").join(_stale(schema, found)),
    )  # fmt: skip


def _stale(schema: str, found: Installed) -> Iterator[Composed]:
    name = literal(found.name)
    yield fill(
        "EXISTS (SELECT FROM {t} WHERE aggregate = {name} AND partition IS NULL)",
        t=Identifier(schema, "reset"), name=name,
    )  # fmt: skip
    yield fill(
        "EXISTS (SELECT FROM {t} WHERE aggregate = {name}"
        " AND major <> current_setting('server_version_num')::integer / 10000)",
        t=Identifier(schema, "watermark"), name=name,
    )  # fmt: skip
    if found.ordering is not None:
        yield fill("NOT {f}()", f=Identifier(schema, internal_name(found.name, "same_files")))


def _of_counter(schema: str, name: str, limit: int) -> Composed:
    of_counter = fill(
        "counter = (SELECT id FROM {counter} WHERE name = {name})",
        counter=Identifier(schema, "counter"), name=literal(name),
    )  # fmt: skip
    fresh = conjunction([of_counter, SQL("is_fresh")])
    return fill("SELECT {name}, {rows}, false", name=literal(name), rows=_up_to(schema, "counter_shard", fresh, limit))


def _up_to(schema: str, table: str, condition: SQL | Composed, limit: int) -> Composed:
    return fill(
        "(SELECT count(*) FROM (SELECT FROM {t} WHERE {condition} LIMIT {n}) AS few)",
        t=Identifier(schema, table), condition=condition, n=literal(limit),
    )  # fmt: skip
