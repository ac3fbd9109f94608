"""Backfill: compute what is kept from the source, beside writers, so that it can be stopped and goes on later.

The rows are counted in chunks, each in a short REPEATABLE READ transaction of its own; `tallystick.compiler.chunks`
tells why the sum of them is exact. Whatever there is of a backfill is in the database: any number of processes may
work on one, and one that ends in the middle leaves at most the chunk that it was counting.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock

from psycopg.sql import Identifier
from sqlalchemy import Engine

from tallystick.compiler.text import fill
from tallystick.declare.names import internal_name
from tallystick.errors import FoldLocked, NotWhole
from tallystick.maintain import mirror, partitions, places
from tallystick.maintain.folding import fold, hold, rebuild
from tallystick.maintain.mirror import BATCH
from tallystick.maintain.pace import Pace
from tallystick.maintain.patience import patiently
from tallystick.store import aggregates, catalog, chunks, events, locks
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor, lift_timeouts, plan_anew, transaction
from tallystick.store.partitions import differences

_log = logging.getLogger(__name__)

CHUNK_ROWS = 1_000_000
"""Rows of a chunk, about: a second or two of work. A crash loses as much, and VACUUM is held back as long."""


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """Groups that are kept, how long it took in seconds, and parents of a mirror: copied to, and left because locked.

    Of an ordered aggregate, `groups` are buckets, as `unit` says. `rows` are those that were counted here, about; None
    if nothing was to be done.
    """

    aggregate: str
    groups: int
    elapsed_s: float
    copied: int = 0
    passed_over: int = 0
    unit: str = "groups"
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a backfill: how many rows are counted, or then how many parents of a mirror are copied to.

    Attributes:
        what: "rows" or "parents".
        total: about how many there are; None of a table that was never analysed.
        rate: of these a second, by this call.
    """

    what: str
    done: int
    total: int | None
    rate: float

    @property
    def left_s(self) -> float | None:
        """Seconds left at this rate; None if nobody knows."""
        return None if self.total is None or not self.rate else (self.total - self.done) / self.rate


Told = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a backfill is made.

    Attributes:
        chunk_rows: rows that are counted in one transaction, about.
        workers: transactions at a time. Partitions are counted by one.
        max_rows_per_second: of all workers together; else as many as can be. Beside others who write, all of them
            work for a tenth of the time at most.
        batch_size: parents of a mirror in one transaction.
        skip_existing: leave parents alone that have a value, the first time; later all are brought up to date.
    """

    chunk_rows: int = CHUNK_ROWS
    workers: int = 1
    max_rows_per_second: int | None = None
    batch_size: int = BATCH
    skip_existing: bool = True


AT_EASE = Manner()


def backfill(
    engine: Engine, schema: str, name: str, manner: Manner = AT_EASE, *, force: bool = False, told: Told | None = None
) -> BackfillResult:
    """Compute what is kept of one aggregate from its source, and let readers use it.

    Goes on with what an earlier call has left, and begins anew if that is of no use any more: after a TRUNCATE, in a
    restored database, after a change of partitions. An aggregate that is complete is left as it is. Writers and readers
    wait for nothing meanwhile; TRUNCATE and ALTER TABLE wait for one chunk. Without a primary key, all is counted in
    one snapshot, which holds VACUUM back as long.

    Args:
        force: begin anew in any case. Readers are served by the source until it has ended.
        told: is told how far it has come, from one thread at a time.
    Raises:
        NotInstalled: there is no such aggregate.
        FoldLocked, InstallError: others kept us out all the time. What is counted so far stays.
        NotWhole: a partition of the source cannot be counted.
    """
    started = time.perf_counter()
    with transaction(engine) as cursor:
        found = aggregates.get(cursor, schema, name)
        if found.source is None:
            raise NotWhole(
                f'aggregate "{name}": its source table has been dropped.', hint=f"Run: tally uninstall {name}"
            )
        aggregates.refuse_uncaptured(cursor, schema, name)
        in_chunks = _goes_in_chunks(cursor, schema, found)
    if in_chunks:
        rows = _by_chunks(engine, schema, found, manner, force, told)
    else:
        _log.warning(
            "%s: %s has no primary key, or another than when it was installed: it is counted in one snapshot.",
            name, found.source,
        )  # fmt: skip
        rows = patiently(engine, _in_one_snapshot, engine, schema, found, force=force)
    copied = mirror.Copied(0, 0)
    if found.mirror is not None:
        copied = _to_parents(engine, schema, name, manner, told)
    with transaction(engine, read_only=True) as cursor:
        table = catalog.qualified(schema, internal_name(name, found.kept_in))
        groups = catalog.counted_rows(cursor, table) if found.ordering is None else catalog.buckets(cursor, table)[0]
    took = time.perf_counter() - started
    return BackfillResult(name, groups, took, copied.done, copied.locked, found.unit, rows)


def _goes_in_chunks(cursor: Cursor, schema: str, found: Installed) -> bool:
    if not chunks.has_chunks(cursor, schema, found.name):
        return False
    if found.ordering is not None:
        return bool(catalog.primary_key(cursor, found.source_oid))
    return places.have_same_types(cursor, schema, found)


def _by_chunks(
    engine: Engine, schema: str, found: Installed, manner: Manner, force: bool, told: Told | None
) -> int | None:
    """Rows that were counted here, about; None if nothing was to be done."""
    name, must_begin, rows = found.name, force, None
    while True:
        if found.is_partitioned:
            partitions.prepare(engine, schema, found)
        if not patiently(engine, _begin, engine, schema, name, force=must_begin):
            break
        must_begin = False
        rows = (rows or 0) + _count_all(engine, schema, found, manner, told)
        if patiently(engine, _finish, engine, schema, name):
            break
    if rows is not None:
        with suppress(FoldLocked):  # whoever has it does what is to be done
            patiently(engine, fold, engine, schema, name)
    return rows


def _in_one_snapshot(engine: Engine, schema: str, found: Installed, *, force: bool) -> int | None:
    with transaction(engine, read_only=True) as cursor:
        is_due = force or _why_anew(cursor, schema, found) is not None
        rows = catalog.estimated_rows(cursor, str(found.source))
    if not is_due:
        return None
    if found.is_partitioned:
        partitions.prepare(engine, schema, found)
    rebuild(engine, schema, found)
    return rows


def _begin(engine: Engine, schema: str, name: str, *, force: bool) -> bool:
    """Begin, if there is reason to, and tell whether there is something to count."""
    with transaction(engine) as cursor:
        found = aggregates.get(cursor, schema, name)
        if not force and found.is_complete and _why_anew(cursor, schema, found) is None:
            return False
        chunks.lock(cursor, schema, name)
        hold(cursor, schema, found)
        locks.lock_fold(cursor, schema, name)
        lift_timeouts(cursor)
        found = aggregates.get(cursor, schema, name)
        why = "it was asked for" if force else _why_anew(cursor, schema, found)
        if why is None:
            return not found.is_complete
        places.learn(cursor, schema, found)
        chunks.begin(cursor, schema, name)
        aggregates.build(cursor, schema, name, aggregates.used_as(cursor, schema, found))
        events.record(cursor, schema, "backfill begins", name, why=why)
    return True


def _why_anew(cursor: Cursor, schema: str, found: Installed) -> str | None:
    """Why what there is cannot be used, or gone on with; None if it can."""
    if not found.is_complete:
        if not chunks.has_chunks(cursor, schema, found.name):
            return "nothing is kept yet"
        there = chunks.chunks(cursor, schema, found.name)
        if not there.planned:
            return "nothing is kept yet"
        if not there.is_own:
            return "the database was restored"
        if chunks.is_truncated(cursor, schema, found.name):
            return f"{found.source} was truncated"
        if not places.are_known(cursor, schema, found):
            return f"changes were captured without the primary key that {found.source} has now"
    lacking = differences(cursor, schema, found)
    if lacking:
        return "; ".join(map(str, lacking))
    if aggregates.used_as(cursor, schema, found) != found.generated:
        return f"generated columns of {found.source} are computed otherwise now"
    return None


def _count_all(engine: Engine, schema: str, found: Installed, manner: Manner, told: Told | None) -> int:
    """Count chunks until there is none left that nobody counts; rows that were counted here, about."""
    with transaction(engine, read_only=True) as cursor:
        before = chunks.chunks(cursor, schema, found.name).rows
        total = catalog.estimated_rows(cursor, str(found.source))
    counted, started, stop, telling = 0, time.perf_counter(), Event(), Lock()
    workers = 1 if found.is_partitioned else manner.workers
    pace = Pace(engine, schema, workers, manner.max_rows_per_second, stop)

    def advance(number: int, size: int | None) -> int:
        nonlocal counted, total
        with telling:
            rows = size or 0
            if size is None and number:
                # The last chunk was not counted when it was planned: it is less than a whole one, and all there is.
                rows = min(manner.chunk_rows, max(0, total - before - counted))
                total = before + counted + rows
            counted += rows
            if told is not None and size != 0:
                done, rate = before + counted, counted / (time.perf_counter() - started)
                told(Progress("rows", done, max(total, done) if total else None, rate))
        return rows

    def work() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            number, size = patiently(engine, _count_one, engine, schema, found.name)
            if number is not None:
                pace.rest(advance(number, size), time.perf_counter() - began)
            elif not _extend(engine, schema, found.name, manner.chunk_rows):
                return

    with ThreadPoolExecutor(workers, thread_name_prefix=f"backfill {found.name}") as pool:
        try:
            for working in as_completed([pool.submit(work) for _ in range(workers)]):
                working.result()
        finally:
            stop.set()  # each ends with the chunk that it counts
    return counted


def _count_one(engine: Engine, schema: str, name: str) -> tuple[int | None, int | None]:
    with transaction(engine, read_only=True) as cursor:
        found = aggregates.get(cursor, schema, name)
    with transaction(engine, snapshot=True) as cursor:
        # LOCK takes no snapshot: an ALTER TABLE that leaves the table empty for older ones has ended.
        if found.is_partitioned:
            locks.hold_partitions(cursor, str(found.source), str(found.source))
        else:
            locks.hold_source(cursor, str(found.source))
        lift_timeouts(cursor)
        if differences(cursor, schema, found):
            return None, None
        return chunks.count(cursor, schema, name)


def _extend(engine: Engine, schema: str, name: str, rows: int) -> bool:
    with transaction(engine) as cursor:
        lift_timeouts(cursor)
        return chunks.extend(cursor, schema, name, rows)


def _finish(engine: Engine, schema: str, name: str) -> bool:
    """Make what is kept of what was counted, if that can be used, and let readers use it; whether it is complete."""
    with transaction(engine, read_only=True) as cursor:
        found = aggregates.get(cursor, schema, name)
    with transaction(engine, snapshot=True) as cursor:
        chunks.lock(cursor, schema, name)
        hold(cursor, schema, found)
        locks.lock_fold(cursor, schema, name)
        lift_timeouts(cursor)
        now = aggregates.get(cursor, schema, name)
        if now.is_complete:
            return True  # another process has ended it
        counted = chunks.chunks(cursor, schema, name)
        if not counted.is_done or _why_anew(cursor, schema, now) is not None:
            return False
        plan_anew(cursor)
        groups = chunks.settle(cursor, schema, name)
        aggregates.serve_kept(cursor, schema, name, now.generated)
        events.record(cursor, schema, "backfill", name, **{now.unit: groups, "chunks": counted.counted})
    with transaction(engine) as cursor:
        cursor.execute(fill("ANALYZE {t}", t=Identifier(schema, internal_name(name, found.kept_in))))
    return True


def _to_parents(engine: Engine, schema: str, name: str, manner: Manner, told: Told | None) -> mirror.Copied:
    total = mirror.note_parents(engine, schema, name, skip_existing=manner.skip_existing)
    started = time.perf_counter()

    def tell(done: int) -> None:
        if told is not None:
            told(Progress("parents", done, total, done / (time.perf_counter() - started)))

    return mirror.copy(engine, schema, name, batch_size=manner.batch_size, progress=tell)
