"""Fold and backfill: one statement each, run by the functions that install made."""

from __future__ import annotations

import time
from dataclasses import dataclass

from psycopg.sql import Identifier
from sqlalchemy import Engine

from tallystick.compiler.text import fill
from tallystick.declare.names import internal_name
from tallystick.errors import FoldLocked
from tallystick.store import aggregates, catalog, locks
from tallystick.store.connection import RETRYABLE, lift_timeouts, one_row, transaction

ATTEMPTS = 100
PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class FoldResult:
    """Deltas consumed (0 when idle), groups written, and how long it took in seconds."""

    aggregate: str
    deltas: int
    groups: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """Groups written, and how long it took in seconds."""

    aggregate: str
    groups: int
    elapsed_s: float


def fold(engine: Engine, schema: str, name: str) -> FoldResult:
    """Fold all visible deltas of one aggregate into its state, in a transaction of its own.

    Writers and readers wait for nothing meanwhile; with min or max, TRUNCATE and ALTER TABLE of the source wait, as for
    any query over it. Deltas of transactions that have not committed yet stay for the
    next fold.

    Raises:
        NotInstalled: there is no such aggregate.
        FoldLocked: another session folds or rebuilds it; nothing was done.
    """
    started = time.perf_counter()
    with transaction(engine) as cursor:
        aggregates.get(cursor, schema, name)
        # A statement of its own: the fold's snapshot must be younger than the lock.
        locks.lock_fold(cursor, schema, name)
        lift_timeouts(cursor)
        function = Identifier(schema, internal_name(name, "fold"))
        deltas, groups = one_row(cursor.execute(fill("SELECT deltas, groups FROM {f}()", f=function)))
    return FoldResult(name, deltas, groups, time.perf_counter() - started)


def backfill(engine: Engine, schema: str, name: str) -> BackfillResult:
    """Compute the state of one aggregate from its source in one snapshot, and let readers use it.

    Writers and readers wait for nothing meanwhile (TRUNCATE and ALTER TABLE do, as for any query): changes that commit
    during the backfill are deltas that its snapshot does not see. The snapshot is held as long as the direct query
    takes, which holds VACUUM back.

    Raises:
        NotInstalled: there is no such aggregate.
        FoldLocked: another session folded or rebuilt it all the time; nothing was done.
    """
    started = time.perf_counter()
    groups = _rebuild_patiently(engine, schema, name)
    with transaction(engine) as cursor:
        cursor.execute(fill("ANALYZE {state}", state=Identifier(schema, internal_name(name, "state"))))
    return BackfillResult(name, groups, time.perf_counter() - started)


def _rebuild_patiently(engine: Engine, schema: str, name: str) -> int:
    remaining = ATTEMPTS
    while True:
        try:
            return _rebuild(engine, schema, name)
        except (FoldLocked, *RETRYABLE):
            # A fold is at work, or has taken deltas between our snapshot and our lock.
            remaining -= 1
            if remaining == 0:
                raise
            with transaction(engine) as cursor:
                locks.pause(cursor, PAUSE_S)


def _rebuild(engine: Engine, schema: str, name: str) -> int:
    with transaction(engine) as cursor:
        source = aggregates.get(cursor, schema, name).source
    state = catalog.qualified(schema, internal_name(name, "state"))
    with transaction(engine, snapshot=True) as cursor:
        # LOCK takes no snapshot, so the one of this transaction is younger than whatever these wait for: a fold, or an
        # ALTER TABLE that writes the source anew and leaves it empty for older snapshots.
        for lock in locks.for_rebuild(state, source):
            cursor.execute(lock.sql)
        locks.lock_fold(cursor, schema, name)
        lift_timeouts(cursor)
        function = Identifier(schema, internal_name(name, "rebuild"))
        (groups,) = one_row(cursor.execute(fill("SELECT {f}()", f=function)))
        aggregates.serve_kept(cursor, schema, name)
    return int(groups)
