"""The list of partitions that an aggregate counts, against those that its source has."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.sql import Identifier

from tallystick.compiler.text import fill, literal
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor


@dataclass(frozen=True, slots=True)
class Difference:
    """A partition that is not counted as it is: "new", "gone" (also detached and attached again) or "truncated"."""

    partition: str
    what: str

    def __str__(self) -> str:
        said = {
            "new": "is not counted yet",
            "gone": "is no longer the one that was counted: detached, dropped, attached again or restored",
            "truncated": "was truncated by itself",
        }
        return f"partition {self.partition} {said[self.what]}"


def differences(cursor: Cursor, schema: str, found: Installed) -> list[Difference]:
    """Why readers of an aggregate over a partitioned table are served by the source though it is kept; else none."""
    if not found.is_partitioned:
        return []
    rows = cursor.execute(
        fill(
            "WITH tree AS (SELECT relation, attached FROM {below}({source}::oid::regclass)),"
            " listed AS (SELECT relation, attached FROM {partition} WHERE aggregate = {name}),"
            " marked AS (SELECT partition, epoch FROM {reset} WHERE aggregate = {name})"
            " SELECT relation::text, 'new' FROM tree WHERE relation NOT IN (SELECT relation FROM listed)"
            " UNION ALL SELECT relation::text, 'gone' FROM listed AS l"
            " WHERE NOT EXISTS (SELECT FROM tree AS t WHERE t.relation = l.relation AND t.attached = l.attached)"
            " UNION ALL SELECT DISTINCT partition::text, 'truncated' FROM marked"
            " WHERE partition IN (SELECT relation FROM listed)"
            " AND epoch >= coalesce((SELECT max(epoch) FROM marked WHERE partition IS NULL), 0)"
            " ORDER BY 2, 1",
            below=Identifier(schema, "below"), source=literal(found.source_oid),
            partition=Identifier(schema, "partition"), reset=Identifier(schema, "reset"), name=literal(found.name),
        )
    ).fetchall()  # fmt: skip
    return [Difference(partition, what) for partition, what in rows]


def forget(cursor: Cursor, schema: str, name: str, partition: str) -> None:
    """Take a partition off the list, with all that is below it."""
    cursor.execute(
        fill(
            "DELETE FROM {t} WHERE aggregate = {n}"
            " AND relation IN (SELECT relid FROM pg_catalog.pg_partition_tree({p}::regclass))",
            t=Identifier(schema, "partition"), n=literal(name), p=literal(partition),
        )
    )  # fmt: skip


def listed(cursor: Cursor, schema: str, name: str) -> set[int]:
    """Oids of what is counted, and of what leads down to it."""
    statement = fill(
        "SELECT relation::oid::bigint FROM {t} WHERE aggregate = {n}",
        t=Identifier(schema, "partition"),
        n=literal(name),
    )
    return {oid for (oid,) in cursor.execute(statement).fetchall()}
