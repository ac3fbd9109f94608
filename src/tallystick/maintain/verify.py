"""Verify: lay both halves side by side in one snapshot."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg.sql import SQL, Composed, Identifier
from sqlalchemy import Engine

from tallystick.compiler.text import column, comma, fill, filtered, literal
from tallystick.declare.names import internal_name
from tallystick.declare.sqltext import Shape, shape_of
from tallystick.store import aggregates, partitions
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor, transaction

SHOWN = 10


@dataclass(frozen=True, slots=True)
class Drift:
    """A group whose halves differ. A half is None where it has no such group."""

    group: dict[str, Any]
    kept: dict[str, Any] | None
    direct: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Both halves compared: groups in the source, groups that drift, and the first ten of these.

    Of an ordered aggregate, `groups` are its buckets, as `unit` says, each known by the place that ends it.

    `status` is "exact", "drift", "building" for an aggregate that has no state to compare yet, or "uncounted" for one
    whose partitions are not those that are counted, so that readers are served by the source.
    """

    aggregate: str
    groups: int
    drifted: int
    first: tuple[Drift, ...]
    status: str
    elapsed_s: float
    unit: str = "groups"

    @property
    def is_exact(self) -> bool:
        return self.status == "exact"


def verify(engine: Engine, schema: str, name: str) -> VerifyReport:
    """Compare kept and direct, every row both ways, by the types' own equality, in one snapshot.

    Usable beside writers: both halves see the same transactions.

    Raises:
        NotInstalled: there is no such aggregate.
    """
    with transaction(engine, snapshot=True, read_only=True) as cursor:
        return compare(cursor, schema, aggregates.get(cursor, schema, name))


def compare(cursor: Cursor, schema: str, found: Installed) -> VerifyReport:
    """The same within a transaction that has one snapshot."""
    name, started = found.name, time.perf_counter()
    if found.phase == "building" or partitions.differences(cursor, schema, found):
        status = "building" if found.phase == "building" else "uncounted"
        return VerifyReport(name, 0, 0, (), status, time.perf_counter() - started)
    shape = shape_of(name, found.definition)
    compared = _buckets(schema, name, shape) if found.ordering is not None else _comparison(schema, name, shape)
    groups, drifted, first = cursor.execute(compared).fetchall()[0]
    drifts = tuple(Drift(*(_loaded(part) for part in drift)) for drift in first or [])
    status = "drift" if drifted else "exact"
    return VerifyReport(name, groups, drifted, drifts, status, time.perf_counter() - started, found.unit)


def _comparison(schema: str, name: str, shape: Shape) -> Composed:
    """Each half is read once: rows that both have cancel out, and what is left drifts. Columns go by position."""
    keys = [(column("k", i), key.name) for i, key in enumerate(shape.keys, start=1)]
    measures = [(column("m", i), measure.name) for i, measure in enumerate(shape.measures, start=1)]
    named = comma(fill("{own} AS {position}", own=Identifier(own), position=p) for p, own in [*keys, *measures])
    positions = comma(position for position, _ in [*keys, *measures])
    group = comma(position for position, _ in keys)
    measured = fill("json_agg({row})", row=_as_json(measures))
    return fill(
        "WITH side AS MATERIALIZED (SELECT {positions}, sum(half) AS half FROM"
        " (SELECT 1 AS half, {named} FROM {kept} UNION ALL SELECT -1, {named} FROM {direct}) AS b"
        " GROUP BY {positions}),\n"
        "odd AS (SELECT {key}::text AS k, ({kept_side} -> 0)::text AS kept, ({direct_side} -> 0)::text AS direct"
        " FROM side WHERE half <> 0 {group_by} HAVING count(*) > 0 {order_by})\n"
        "SELECT (SELECT coalesce(sum(greatest(1, -half)) FILTER (WHERE half <= 0), 0) FROM side)::bigint,"
        " (SELECT count(*) FROM odd),"
        " (SELECT array_agg(ARRAY[k, kept, direct]) FROM (SELECT * FROM odd LIMIT {n}) AS f)",
        positions=positions, named=named, key=_as_json(keys),
        kept_side=filtered(measured, SQL("half > 0")), direct_side=filtered(measured, SQL("half < 0")),
        kept=Identifier(schema, internal_name(name, "kept")), direct=Identifier(schema, internal_name(name, "direct")),
        group_by=fill("GROUP BY {group}", group=group) if keys else SQL(""),
        order_by=fill("ORDER BY {group}", group=group) if keys else SQL(""), n=literal(SHOWN),
    )  # fmt: skip


def _buckets(schema: str, name: str, shape: Shape) -> Composed:
    """Every bucket beside the items that it stands for; what is not kept in buckets is read from the source anyway."""
    keys = comma(
        fill("place[{i}] AS {own}", i=literal(index), own=Identifier(key.name))
        for index, key in enumerate(shape.keys, start=1)
    )
    group = fill("(SELECT row_to_json(o.*) FROM (SELECT height AS level, {keys}) AS o)", keys=keys)
    return fill(
        "WITH side AS MATERIALIZED (SELECT * FROM {check}()),"
        " odd AS (SELECT {group}::text AS k, json_build_object('totals', kept)::text AS kept,"
        " json_build_object('totals', direct)::text AS direct FROM side WHERE kept <> direct)\n"
        "SELECT (SELECT count(*) FROM side), (SELECT count(*) FROM odd),"
        " (SELECT array_agg(ARRAY[k, kept, direct]) FROM (SELECT * FROM odd LIMIT {n}) AS f)",
        check=Identifier(schema, internal_name(name, "check")), group=group, n=literal(SHOWN),
    )  # fmt: skip


def _as_json(columns: list[tuple[SQL, str]]) -> Composed:
    named = comma(fill("{position} AS {own}", position=position, own=Identifier(own)) for position, own in columns)
    return fill("(SELECT row_to_json(o.*) FROM (SELECT {named}) AS o)", named=named)


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text, parse_float=Decimal)
