"""Installations of earlier layouts: what they hold, and their tables made anew."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from psycopg.sql import Composed, Identifier

from tallystick.compiler.text import comma, fill, literal
from tallystick.declare.names import internal_name
from tallystick.store import catalog
from tallystick.store.connection import Cursor
from tallystick.store.queries import counter_functions, counter_tables, own_functions, own_tables

OF_AGGREGATES = ("layout", "aggregate", "reset", "watermark", "partition")
"""Tables that say where aggregates stand; what is to be known of these is told by their rows in `aggregate`."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An aggregate as an installation of any layout knows it; `row` is its row in `aggregate` as JSON has it."""

    name: str
    kind: str
    definition: str
    fingerprint: str
    source_oid: int
    has_source: bool
    row: dict[str, Any]

    @property
    def has_mirror(self) -> bool:
        return self.row.get("mirror") is not None


def recorded(cursor: Cursor, schema: str) -> list[Recorded]:
    """All aggregates by name."""
    rows = cursor.execute(
        fill(
            "SELECT name, kind, definition, fingerprint, source::oid::bigint,"
            " EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = source), to_jsonb(a) FROM {t} AS a ORDER BY name",
            t=Identifier(schema, "aggregate"),
        )
    ).fetchall()
    return [Recorded(*row) for row in rows]


def act_as_owner(cursor: Cursor, schema: str, relation: str) -> None:
    """For the rest of the transaction, be the owner of a relation, with whose rights what belongs to it works."""
    query = "SELECT pg_catalog.pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = to_regclass(%s)"
    for (owner,) in cursor.execute(query, (catalog.qualified(schema, relation),)).fetchall():
        cursor.execute(fill("SET LOCAL ROLE {r}", r=Identifier(owner)))


def is_at_rest(cursor: Cursor, schema: str, name: str) -> bool:
    """Whether nothing of an aggregate is there but what readers name: it answers from its source."""
    return not catalog.relation_exists(cursor, catalog.qualified(schema, internal_name(name, "delta")))


def replace_functions(cursor: Cursor, schema: str) -> None:
    """Give the installation the functions of this layout; views that use them stay."""
    cursor.execute(catalog.FIXED_PATH.sql)
    cursor.execute(own_functions(schema))


def remake_tables(cursor: Cursor, schema: str) -> None:
    """Give the installation the tables of this layout, once all aggregates are at rest.

    They are new ones: to whoever has an older snapshot they are empty, so that nothing is called kept there.
    Counters have values of their own, and keep their tables.
    """
    cursor.execute(catalog.FIXED_PATH.sql)
    found = recorded(cursor, schema)
    for table in OF_AGGREGATES:
        cursor.execute(fill("DROP TABLE IF EXISTS {t}", t=Identifier(schema, table)))
    cursor.execute(fill("DROP SEQUENCE IF EXISTS {s}", s=Identifier(schema, "epoch")))
    cursor.execute(own_tables(schema))
    columns = catalog.columns_of(cursor, catalog.qualified(schema, "aggregate"))
    for each in found:
        row = each.row | {"phase": "building", "serving": "direct"}
        cursor.execute(_insert(schema, [column for column in columns if column in row], row))
    if catalog.relation_exists(cursor, catalog.qualified(schema, "counter")):
        shard = Identifier(schema, "counter_shard")
        cursor.execute(fill("ALTER TABLE {t} DROP CONSTRAINT IF EXISTS counter_shard_key_check", t=shard))
    else:
        cursor.execute(counter_tables(schema))
    cursor.execute(counter_functions(schema))


def _insert(schema: str, columns: list[str], row: dict[str, Any]) -> Composed:
    return fill(
        "INSERT INTO {t} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{t}, {row})",
        t=Identifier(schema, "aggregate"), columns=comma(map(Identifier, columns)), row=literal(json.dumps(row)),
    )  # fmt: skip
