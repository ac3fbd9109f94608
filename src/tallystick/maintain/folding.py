"""Fold: one statement, run by the function that install made."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass

from psycopg.sql import Identifier
from sqlalchemy import Engine

from tallystick.compiler.text import fill
from tallystick.declare.names import internal_name
from tallystick.errors import FoldLocked, MissingPrivilege, SourceLocked
from tallystick.maintain import mirror, partitions, places
from tallystick.maintain.patience import patiently
from tallystick.store import aggregates, catalog, chunks, events, locks
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor, lift_timeouts, one_row, plan_anew, transaction

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoldResult:
    """Deltas consumed (0 when idle), groups written, and how long it took in seconds.

    Of an ordered aggregate, `groups` are buckets, as `unit` says.

    `copied` and `passed_over` count parents of a mirror: brought up to date, and left because somebody had them locked.
    `adopted` names partitions that are counted from now on.
    """

    aggregate: str
    deltas: int
    groups: int
    elapsed_s: float
    copied: int = 0
    passed_over: int = 0
    adopted: tuple[str, ...] = ()
    unit: str = "groups"


def fold(engine: Engine, schema: str, name: str) -> FoldResult:
    """Fold all visible deltas of one aggregate into its state, in a transaction of its own.

    Writers and readers wait for nothing meanwhile; with min or max, and of an ordered aggregate, TRUNCATE and ALTER
    TABLE of the source wait, as for any query over it. Deltas of transactions that have not committed yet stay for the
    next fold.

    New partitions of the source are counted in first. Copies in a parent table are made afterwards, in transactions of
    their own.

    Raises:
        NotInstalled: there is no such aggregate.
        FoldLocked: another session folds or rebuilds it; nothing was done.
        NotWhole: a partition went, came or was emptied in a way that only a backfill can make up for.
    """
    started = time.perf_counter()
    adopted = partitions.adopt_new(engine, schema, name)
    with transaction(engine, read_only=True) as cursor:
        found = aggregates.get(cursor, schema, name)
        # The lock that `hold` begins with waits for another fold; asked before, that one is told at once.
        locks.lock_fold(cursor, schema, name)
        can_be_other = found.is_complete and found.ordering is not None
        is_other = can_be_other and aggregates.used_as(cursor, schema, found) != found.generated
        has_places = found.is_complete and found.ordering is None and chunks.knows_places(cursor, schema, found)
    if is_other:
        # The buckets are of other values than the items have now, and readers have been served by the source.
        groups = patiently(engine, rebuild, engine, schema, found)
        return FoldResult(name, 0, groups, time.perf_counter() - started, adopted=tuple(adopted), unit=found.unit)
    # What counts items of the source does so in the one snapshot of a transaction.
    with transaction(engine, snapshot=found.ordering is not None) as cursor:
        if found.ordering is not None:
            hold(cursor, schema, found)
        # A statement of its own: the fold's snapshot must be younger than the lock.
        locks.lock_fold(cursor, schema, name)
        lift_timeouts(cursor)
        plan_anew(cursor)
        function = Identifier(schema, internal_name(name, "fold"))
        deltas, groups = one_row(cursor.execute(fill("SELECT deltas, groups FROM {f}()", f=function)))
    if has_places:
        _forget_places(engine, schema, name)
    copied = mirror.copy(engine, schema, name) if found.mirror is not None else mirror.Copied(0, 0)
    took = time.perf_counter() - started
    return FoldResult(name, deltas, groups, took, copied.done, copied.locked, tuple(adopted), found.unit)


def _forget_places(engine: Engine, schema: str, name: str) -> None:
    """Else the next fold tries again: changes with a place are right as well, and cost more."""
    try:
        with suppress(SourceLocked, FoldLocked), transaction(engine) as cursor:
            places.forget(cursor, schema, name)
    except MissingPrivilege as lacking:
        _log.warning("%s: changes go on to be captured one by one, as for a backfill. %s", name, lacking)


def rebuild(engine: Engine, schema: str, found: Installed) -> int:
    """Compute what is kept from the source in one snapshot, beside writers, and let readers use it."""
    name = found.name
    with transaction(engine, snapshot=True) as cursor:
        hold(cursor, schema, found)
        locks.lock_fold(cursor, schema, name)
        lift_timeouts(cursor)
        function = Identifier(schema, internal_name(name, "rebuild"))
        (groups,) = one_row(cursor.execute(fill("SELECT {f}()", f=function)))
        aggregates.serve_kept(cursor, schema, name, aggregates.used_as(cursor, schema, found))
        events.record(cursor, schema, "backfill", name, **{found.unit: groups})
    return int(groups)


def hold(cursor: Cursor, schema: str, found: Installed) -> None:
    """Keep other folds away, and the source as it is.

    LOCK takes no snapshot, so the one of this transaction is younger than whatever these wait for: a fold, or an ALTER
    TABLE that writes the source anew and leaves it empty for older snapshots.
    """
    if found.is_partitioned and found.source is not None:
        locks.hold_partitions(cursor, found.source, found.source)
    table = catalog.qualified(schema, internal_name(found.name, found.kept_in))
    locks.hold_state(cursor, table)
    if found.source is not None:
        locks.hold_source(cursor, found.source)
