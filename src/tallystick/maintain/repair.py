"""Repair: make kept equal to direct again in one snapshot, beside writers, touching only what differs.

Folds are kept away, the source is kept from being truncated, and everything is read and written in one REPEATABLE READ
transaction. What a writer commits meanwhile is a delta that its snapshot does not see, and is as right afterwards as it
was before. In the end both halves are compared again: what is not exact then is not committed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from psycopg.sql import Composed, Identifier
from sqlalchemy import Engine

from tallystick.compiler.buckets import LEVELS
from tallystick.compiler.text import canonical, comma, fill, literal
from tallystick.declare.names import internal_name
from tallystick.declare.sqltext import Shape, shape_of
from tallystick.errors import NotKept, UsageError
from tallystick.maintain import mirror
from tallystick.maintain.complete import refuse_incomplete
from tallystick.maintain.folding import hold
from tallystick.maintain.patience import patiently
from tallystick.maintain.verify import Drift, bucket_as_drift, compare, drifts
from tallystick.store import aggregates, catalog, events, locks
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor, lift_timeouts, one_row, spell_plainly, transaction

SHOWN = 10_000
"""Changed groups that are told of one by one."""


@dataclass(frozen=True, slots=True)
class Change:
    """One measure of one group that reads otherwise now; None where there was, or is, no such group.

    Of an ordered aggregate, a group is a bucket, and its measures are its totals: the number of items first.
    """

    group: dict[str, Any]
    measure: str
    was: Any
    is_: Any


@dataclass(frozen=True, slots=True)
class RepairResult:
    """What was written anew: `groups`, or buckets as `unit` says, and how their answers changed.

    A group may be among them whose answers were right still, and components of which were not. `changes` are of the
    first 10,000 groups.
    """

    aggregate: str
    groups: int
    changes: tuple[Change, ...]
    elapsed_s: float
    unit: str


def refuse_counters(names: Iterable[str]) -> None:
    """Raise UsageError if there are any."""
    named = sorted(names)
    if named:
        raise UsageError(
            f'counter "{named[0]}" is written by hand, and cannot be repaired group by group.',
            hint=f"To set it from its direct query, if it has one, run: tally backfill {named[0]}",
        )


def repair(engine: Engine, schema: str, name: str, *, dry_run: bool = False) -> RepairResult:
    """Correct the groups, or buckets, of an aggregate that are not what its source says. Writers and readers go on.

    Args:
        dry_run: tell what would be changed, and change nothing.
    Raises:
        NotInstalled: there is no such aggregate.
        FoldLocked: another session folded or rebuilt it all the time; nothing was done.
        InstallError, NotKept, NotWhole: it cannot be repaired; the hint says what to run. Nothing was done.
    """
    started = time.perf_counter()
    with transaction(engine, read_only=True) as cursor:
        found = aggregates.get(cursor, schema, name)
    groups, changed = patiently(engine, _repair, engine, schema, found, dry_run=dry_run)
    if found.mirror is not None and groups and not dry_run:
        mirror.copy(engine, schema, name)
    return RepairResult(name, groups, _changes(changed), time.perf_counter() - started, found.unit)


def _repair(engine: Engine, schema: str, found: Installed, *, dry_run: bool) -> tuple[int, tuple[Drift, ...]]:
    with transaction(engine, snapshot=True, rollback=dry_run) as cursor:
        hold(cursor, schema, found)
        locks.lock_fold(cursor, schema, found.name)
        lift_timeouts(cursor)
        spell_plainly(cursor)
        found = aggregates.get(cursor, schema, found.name)
        refuse_incomplete(cursor, schema, found, "repair")
        if aggregates.is_reset(cursor, schema, found.name):
            raise NotKept(
                f'aggregate "{found.name}": a TRUNCATE of {found.source} has not been folded yet.',
                hint=f"Run: tally fold {found.name} && tally repair {found.name}",
            )
        if found.ordering is not None:
            groups, changed = _of_buckets(cursor, schema, found)
            drifted = groups  # a bucket above a wrong one only seems to be wrong
        else:
            before = compare(cursor, schema, found, shown=SHOWN)
            groups, changed, drifted = _of_groups(cursor, schema, found), before.first, before.drifted
        after = compare(cursor, schema, found)
        if not after.is_exact:
            raise NotKept(
                f'aggregate "{found.name}": {after.drifted:,} {found.unit} would still differ; nothing was done.',
                hint=f"Run: tally backfill {found.name} --force",
            )
        events.record(cursor, schema, "repair", found.name, **{found.unit: groups}, drifted=drifted)
    return groups, changed


def _of_groups(cursor: Cursor, schema: str, found: Installed) -> int:
    function = Identifier(schema, internal_name(found.name, "repair"))
    return int(one_row(cursor.execute(fill("SELECT {f}()", f=function)))[0])


def _of_buckets(cursor: Cursor, schema: str, found: Installed) -> tuple[int, tuple[Drift, ...]]:
    """From the lowest level that differs upwards: a bucket is compared with those of the level below it."""
    table = Identifier(schema, internal_name(found.name, "bucket"))
    columns = [column.name for column in catalog.view_columns(cursor, table.as_string(None))]
    shape = shape_of(found.name, found.definition)
    statement = _correction(table, Identifier(schema, internal_name(found.name, "check")), columns, shape)
    passes = (one_row(cursor.execute(statement)) for _ in range(LEVELS))
    rows = list(takewhile(lambda row: row[0] > 0, passes))
    return sum(count for count, _ in rows), sum((drifts(told) for _, told in rows), ())[:SHOWN]


def _correction(table: Identifier, check: Identifier, columns: list[str], shape: Shape) -> Composed:
    """Adds to the totals of the lowest level that differs what they lack; returns how many, and the first of them."""
    keys = [Identifier(name) for name in columns if name.startswith("k")]
    totals = [canonical(name) for name in columns if name != "level" and not name.startswith("k")]
    changes = [
        fill("{t} = b.{t} + (o.direct[{i}] - o.kept[{i}])", t=name, i=canonical(str(index)))
        for index, name in enumerate(totals, start=1)
    ]
    # A total is NULL where there is no place of the level below: no number makes that right.
    return fill(
        "WITH odd AS MATERIALIZED"
        " (SELECT * FROM {check}() WITH ORDINALITY AS c (height, place, kept, direct, number)"
        " WHERE kept <> direct AND array_position(direct, NULL) IS NULL),"
        " written AS (UPDATE {table} AS b SET {changes} FROM odd AS o"
        " WHERE o.height = (SELECT min(height) FROM odd) AND b.level = o.height AND ARRAY[{keys}]::text[] = o.place"
        " RETURNING o.*)\n"
        "SELECT (SELECT count(*) FROM written), (SELECT array_agg(ARRAY[k, kept, direct])"
        " FROM (SELECT {as_drift} FROM written ORDER BY number LIMIT {n}) AS f)",
        check=check, table=table, changes=comma(changes),
        keys=comma(fill("b.{k}::text", k=key) for key in keys), as_drift=bucket_as_drift(shape), n=literal(SHOWN),
    )  # fmt: skip


def _changes(changed: Iterable[Drift]) -> tuple[Change, ...]:
    changes = []
    for drift in changed:
        for measure in drift.diff:
            was, is_ = (half[measure] if half is not None else None for half in (drift.kept, drift.direct))
            changes.append(Change(drift.group, measure, was, is_))
    return tuple(changes)
