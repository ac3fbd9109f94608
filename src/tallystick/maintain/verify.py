"""Verify: lay both halves side by side in one snapshot."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier
from sqlalchemy import Engine

from tallystick.compiler.text import column, comma, fill, filtered, literal, text_array
from tallystick.declare.names import internal_name
from tallystick.declare.sqltext import Shape, shape_of
from tallystick.maintain.parts import WHOLE, Part, Places
from tallystick.store import aggregates, locks, partitions
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor, lift_timeouts, one_row, spell_plainly, transaction

SHOWN = 10


@dataclass(frozen=True, slots=True)
class Drift:
    """A group whose halves differ. A half is None where it has no such group."""

    group: dict[str, Any]
    kept: dict[str, Any] | None
    direct: dict[str, Any] | None

    @property
    def diff(self) -> dict[str, Any]:
        """Of each measure that differs, kept less direct; None where that is no number."""
        kept, direct = self.kept or {}, self.direct or {}
        names = [name for name in kept or direct if kept.get(name, self) != direct.get(name, self)]
        return {name: _less(kept.get(name), direct.get(name)) for name in names}


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


def verify(engine: Engine, schema: str, name: str, *, sample: int | None = None) -> VerifyReport:
    """Compare kept and direct, every row both ways, by the types' own equality, in one snapshot.

    Usable beside writers: both halves see the same transactions.

    Args:
        sample: so many groups, or buckets, taken at random, each with what lies between it and the one before it.
    Raises:
        NotInstalled: there is no such aggregate.
    """
    with comparable(engine, schema, name, read_only=True) as (cursor, found):
        if sample is None:
            return compare(cursor, schema, found)
        spell_plainly(cursor)
        places = Places(cursor, schema, found)
        parts = [compare(cursor, schema, found, part) for part in places.sample(cursor, sample)]
        return total(parts)


@contextmanager
def comparable(
    engine: Engine, schema: str, name: str, *, read_only: bool = False, at_once: bool = False
) -> Iterator[tuple[Cursor, Installed]]:
    """A transaction of one snapshot that holds the source, and the aggregate as it is in it.

    Args:
        at_once: do not wait for a TRUNCATE or an ALTER TABLE of the source.
    Raises:
        NotInstalled: there is no such aggregate.
        SourceLocked: there is one, and it is not waited for.
    """
    is_held = False
    while not is_held:
        with transaction(engine, read_only=True) as cursor:
            source = aggregates.get(cursor, schema, name).source
        try:
            with transaction(engine, snapshot=True, read_only=read_only) as cursor:
                lift_timeouts(cursor)
                if source is not None:
                    locks.hold_source(cursor, source, at_once=at_once)
                found = aggregates.get(cursor, schema, name)
                is_held = found.source == source
                if is_held:
                    yield cursor, found
        except psycopg.errors.UndefinedTable:
            if is_held:
                raise
            # Renamed while we waited for it.


def compare(
    cursor: Cursor, schema: str, found: Installed, part: Part = WHOLE, *, shown: int | None = SHOWN
) -> VerifyReport:
    """The same within a transaction that has one snapshot.

    Args:
        part: what is compared; of one that is not the whole, the transaction spells values plainly.
        shown: how many that drift are reported, all of them if None.
    """
    name, started = found.name, time.perf_counter()
    if found.phase == "building" or partitions.differences(cursor, schema, found):
        status = "building" if found.phase == "building" else "uncounted"
        return VerifyReport(name, 0, 0, (), status, time.perf_counter() - started, found.unit)
    shape = shape_of(name, found.definition)
    if found.ordering is not None:
        compared = _buckets(schema, name, shape, part, shown)
    else:
        names = [Identifier(key.name) for key in shape.keys]
        within = Places(cursor, schema, found).within(names, part) if part != WHOLE else SQL("true")
        compared = _comparison(schema, name, shape, within, shown)
    groups, drifted, first = one_row(cursor.execute(compared))
    status = "drift" if drifted else "exact"
    return VerifyReport(name, groups, drifted, drifts(first), status, time.perf_counter() - started, found.unit)


def total(reports: Sequence[VerifyReport]) -> VerifyReport:
    """What reports of parts of one aggregate come to; there is at least one."""
    drifts = tuple(drift for report in reports for drift in report.first)[:SHOWN]
    status = next((report.status for report in reports if not report.is_exact), "exact")
    return replace(
        reports[0], groups=sum(report.groups for report in reports),
        drifted=sum(report.drifted for report in reports), first=drifts, status=status,
        elapsed_s=sum(report.elapsed_s for report in reports),
    )  # fmt: skip


def _comparison(schema: str, name: str, shape: Shape, within: Composable, shown: int | None) -> Composed:
    """Each half is read once: rows that both have cancel out, and what is left drifts. Columns go by position."""
    keys = [(column("k", i), key.name) for i, key in enumerate(shape.keys, start=1)]
    measures = [(column("m", i), measure.name) for i, measure in enumerate(shape.measures, start=1)]
    named = comma(fill("{own} AS {position}", own=Identifier(own), position=p) for p, own in [*keys, *measures])
    positions = comma(position for position, _ in [*keys, *measures])
    group = comma(position for position, _ in keys)
    measured = fill("json_agg({row})", row=_as_json(measures))
    return fill(
        "WITH side AS MATERIALIZED (SELECT {positions}, sum(half) AS half FROM"
        " (SELECT 1 AS half, {named} FROM {kept} WHERE {within} UNION ALL"
        " SELECT -1, {named} FROM {direct} WHERE {within}) AS b"
        " GROUP BY {positions}),\n"
        "odd AS (SELECT {key}::text AS k, ({kept_side} -> 0)::text AS kept, ({direct_side} -> 0)::text AS direct"
        " FROM side WHERE half <> 0 {group_by} HAVING count(*) > 0 {order_by})\n"
        "SELECT (SELECT coalesce(sum(greatest(1, -half)) FILTER (WHERE half <= 0), 0) FROM side)::bigint,"
        " (SELECT count(*) FROM odd),"
        " (SELECT array_agg(ARRAY[k, kept, direct]) FROM (SELECT * FROM odd LIMIT {n}) AS f)",
        positions=positions, named=named, within=within, key=_as_json(keys),
        kept_side=filtered(measured, SQL("half > 0")), direct_side=filtered(measured, SQL("half < 0")),
        kept=Identifier(schema, internal_name(name, "kept")), direct=Identifier(schema, internal_name(name, "direct")),
        group_by=fill("GROUP BY {group}", group=group) if keys else SQL(""),
        order_by=fill("ORDER BY {group}", group=group) if keys else SQL(""), n=_limit(shown),
    )  # fmt: skip


def _buckets(schema: str, name: str, shape: Shape, part: Part, shown: int | None) -> Composed:
    """Every bucket beside the items that it stands for; what is not kept in buckets is read from the source anyway."""
    return fill(
        "WITH side AS MATERIALIZED (SELECT * FROM {check}({behind}, {upto})),"
        " odd AS (SELECT {columns} FROM side WHERE kept <> direct)\n"
        "SELECT (SELECT count(*) FROM side), (SELECT count(*) FROM odd),"
        " (SELECT array_agg(ARRAY[k, kept, direct]) FROM (SELECT * FROM odd LIMIT {n}) AS f)",
        check=Identifier(schema, internal_name(name, "check")), columns=bucket_as_drift(shape),
        behind=text_array(part.behind), upto=text_array(part.upto), n=_limit(shown),
    )  # fmt: skip


def bucket_as_drift(shape: Shape) -> Composed:
    """Of a row of `x__check()`, what `drifts` takes: `k`, `kept`, `direct`."""
    keys = comma(
        fill("place[{i}] AS {own}", i=literal(index), own=Identifier(key.name))
        for index, key in enumerate(shape.keys, start=1)
    )
    return fill(
        "(SELECT row_to_json(o.*) FROM (SELECT height AS level, {keys}) AS o)::text AS k,"
        " json_build_object('totals', kept)::text AS kept, json_build_object('totals', direct)::text AS direct",
        keys=keys,
    )  # fmt: skip


def drifts(found: Sequence[Sequence[str | None]] | None) -> tuple[Drift, ...]:
    """Drifts as SQL tells them: group, kept and direct as JSON each; None for none of them."""
    return tuple(Drift(*(_loaded(part) for part in drift)) for drift in found or [])


def _as_json(columns: list[tuple[SQL, str]]) -> Composed:
    named = comma(fill("{position} AS {own}", position=position, own=Identifier(own)) for position, own in columns)
    return fill("(SELECT row_to_json(o.*) FROM (SELECT {named}) AS o)", named=named)


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text, parse_float=Decimal)


def _limit(shown: int | None) -> Composable:
    return SQL("ALL") if shown is None else literal(shown)


def _less(kept: Any, direct: Any) -> Any:
    """The difference of two numbers, or of each two; None where there are no two."""
    if isinstance(kept, list) and isinstance(direct, list):
        return [_less(*pair) for pair in zip(kept, direct, strict=True)]
    are_numbers = all(isinstance(value, int | Decimal) and not isinstance(value, bool) for value in (kept, direct))
    return kept - direct if are_numbers else None
