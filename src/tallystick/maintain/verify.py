"""Verify: lay both halves side by side in one snapshot."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg.sql import SQL, Composed, Identifier
from sqlalchemy import Engine

from tallystick.compiler.text import comma, fill, literal
from tallystick.declare.names import internal_name
from tallystick.declare.sqltext import Shape, shape_of
from tallystick.store import aggregates
from tallystick.store.connection import transaction

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

    `status` is "exact", "drift", or "building" for an aggregate that has no state to compare yet.
    """

    aggregate: str
    groups: int
    drifted: int
    first: tuple[Drift, ...]
    status: str
    elapsed_s: float

    @property
    def is_exact(self) -> bool:
        return self.status != "drift"


def verify(engine: Engine, schema: str, name: str) -> VerifyReport:
    """Compare kept and direct, every row both ways, by the types' own equality, in one snapshot.

    Usable beside writers: both halves see the same transactions.

    Raises:
        NotInstalled: there is no such aggregate.
    """
    started = time.perf_counter()
    with transaction(engine, snapshot=True, read_only=True) as cursor:
        found = aggregates.get(cursor, schema, name)
        if found.phase == "building":
            return VerifyReport(name, 0, 0, (), "building", time.perf_counter() - started)
        shape = shape_of(name, found.definition)
        groups, drifted, first = cursor.execute(_comparison(schema, name, shape)).fetchall()[0]
    drifts = tuple(Drift(*(_loaded(part) for part in drift)) for drift in first or [])
    status = "drift" if drifted else "exact"
    return VerifyReport(name, groups, drifted, drifts, status, time.perf_counter() - started)


def _comparison(schema: str, name: str, shape: Shape) -> Composed:
    """Each half is read once: rows that both have cancel out, and what is left drifts."""
    keys = [Identifier(key.name) for key in shape.keys]
    measures = [Identifier(measure.name) for measure in shape.measures]
    return fill(
        "WITH side AS MATERIALIZED (SELECT {columns}, sum(half) AS half FROM"
        " (SELECT 1 AS half, {columns} FROM {kept} UNION ALL SELECT -1, {columns} FROM {direct}) AS b"
        " GROUP BY {columns}),\n"
        "odd AS (SELECT (SELECT to_jsonb(g) FROM (SELECT {keys}) AS g)::text AS k,"
        " (jsonb_agg((SELECT to_jsonb(m) FROM (SELECT {measures}) AS m)) FILTER (WHERE half > 0) -> 0)::text AS kept,"
        " (jsonb_agg((SELECT to_jsonb(m) FROM (SELECT {measures}) AS m)) FILTER (WHERE half < 0) -> 0)::text AS direct"
        " FROM side WHERE half <> 0 {group_by} HAVING count(*) > 0 {order_by})\n"
        "SELECT (SELECT coalesce(sum(greatest(1, -half)) FILTER (WHERE half <= 0), 0) FROM side)::bigint,"
        " (SELECT count(*) FROM odd),"
        " (SELECT array_agg(ARRAY[k, kept, direct]) FROM (SELECT * FROM odd LIMIT {n}) AS f)",
        columns=comma([*keys, *measures]), keys=comma(keys), measures=comma(measures),
        kept=Identifier(schema, internal_name(name, "kept")), direct=Identifier(schema, internal_name(name, "direct")),
        group_by=fill("GROUP BY {keys}", keys=comma(keys)) if keys else SQL(""),
        order_by=fill("ORDER BY {keys}", keys=comma(keys)) if keys else SQL(""), n=literal(SHOWN),
    )  # fmt: skip


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text, parse_float=Decimal)
