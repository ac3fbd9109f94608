"""`tally bench write`: what keeping an aggregate costs the writers.

Equal tables in the schemas `plain` and `kept`; only the second has an aggregate, and something that folds it beside the
writers. Each round starts with both empty (updates: with the same rows), folded, vacuumed and checkpointed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from sqlalchemy import Engine, Table, func

from tallystick.bench import pgbench
from tallystick.bench.figures import Figure, Progress, interleaved, ratio, report, silent
from tallystick.bench.machine import describe
from tallystick.bench.place import by_chat, create, message_table, own_database, qualified, settle
from tallystick.compiler.text import fill
from tallystick.maintain.tally import Tally
from tallystick.store.connection import transaction

FOLD_PERIOD_S = 0.75

HOT = """
\\set size random(1, 5000)
INSERT INTO message (chat_id, size) VALUES (1, :size);
"""
SPREAD = """
\\set chat1 random(1, 20)
\\set chat2 random(1, 20)
\\set chat3 random(1, 20)
\\set size random(1, 5000)
BEGIN;
INSERT INTO message (chat_id, size) VALUES (:chat1, :size);
INSERT INTO message (chat_id, size) VALUES (:chat2, :size);
INSERT INTO message (chat_id, size) VALUES (:chat3, :size);
END;
"""
UNUSED = """
\\set id random(1, {rows})
UPDATE message SET edits = edits + 1 WHERE id = :id;
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. Rounds are pairs of one run on each table."""

    rounds: int
    seconds: int
    clients: int
    updated_rows: int
    bulk_rounds: int
    bulk_rows: int


FULL = Sizes(rounds=13, seconds=2, clients=8, updated_rows=50_000, bulk_rounds=7, bulk_rows=300_000)
QUICK = Sizes(rounds=3, seconds=1, clients=8, updated_rows=5_000, bulk_rounds=3, bulk_rows=30_000)


def run(url: str, *, quick: bool = False, progress: Progress = silent) -> dict[str, object]:
    """Measure on the server of `url`; about 4 minutes, or 25 seconds if `quick`.

    Raises:
        TallyError: there is no pgbench, no connection, or no right to create a database.
    """
    return measure(url, QUICK if quick else FULL, quick=quick, progress=progress)


def measure(url: str, sizes: Sizes, *, quick: bool, progress: Progress) -> dict[str, object]:
    """`run` with sizes of one's own."""
    program = pgbench.find()
    with own_database(url) as engine:
        machine = describe(engine)
        bench = _Writers(engine, sizes, pgbench.Load(program, engine, sizes.clients, sizes.seconds))
        found: list[Figure] = []
        for measured in (bench.hot, bench.spread, bench.unused, bench.bulk):
            for figure in measured():
                progress(figure.line())
                found.append(figure)
    return report("write", quick=quick, machine=machine, found=found)


class _Writers:
    """Two equal tables, and the load on them."""

    def __init__(self, engine: Engine, sizes: Sizes, load: pgbench.Load) -> None:
        self.engine, self.sizes, self.load = engine, sizes, load
        self.tally = Tally()
        self.tables = {name: message_table(name, "chat_id") for name in ("plain", "kept", "kept_max", "kept_distinct")}
        for name, table in self.tables.items():
            create(engine, table)
            declared = by_chat(table)
            if name == "kept_max":
                declared = declared.add_columns(func.max(table.c.size).label("largest"))
            if name == "kept_distinct":
                declared = declared.add_columns(func.count(table.c.size.distinct()).label("sizes"))
            if name != "plain":
                self.tally.grouped(name, declared)
        self.tally.install(engine)
        self.tally.backfill(engine)

    def hot(self) -> Iterator[Figure]:
        what = "single-row inserts into one group, rate"
        yield ratio(what, self._rates(HOT), "plain", "kept", target=0.65, bound="at least", aim=0.8)

    def spread(self) -> Iterator[Figure]:
        before = self._deadlocks()
        what = "three inserts per transaction over 20 groups"
        yield ratio(f"{what}, rate", self._rates(SPREAD), "plain", "kept", target=0.6, bound="at least")
        yield Figure(f"{what}, deadlocks", "deadlocks", [self._deadlocks() - before], target=0)

    def unused(self) -> Iterator[Figure]:
        rows = self.sizes.updated_rows
        measured = self._rates(UNUSED.replace("{rows}", str(rows)), filled=rows)
        yield ratio("updates of an unused column, rate", measured, "plain", "kept", target=0.95, bound="at least")

    def bulk(self) -> Iterator[Figure]:
        def timed(name: str) -> Callable[[], float]:
            def once() -> float:
                self._reset(0)
                started = time.perf_counter()
                self._fill(self.tables[name], self.sizes.bulk_rows)
                return time.perf_counter() - started

            return once

        measured = interleaved({name: timed(name) for name in self.tables}, self.sizes.bulk_rounds)
        what = f"one INSERT of {self.sizes.bulk_rows:,} rows, time"
        yield ratio(what, measured, "plain", "kept", target=1.4)
        yield ratio(f"{what} with max()", measured, "plain", "kept_max")
        yield ratio(f"{what} with count(distinct)", measured, "plain", "kept_distinct")

    def _rates(self, script: str, *, filled: int = 0) -> dict[str, list[float]]:
        def rated(name: str) -> Callable[[], float]:
            def once() -> float:
                self._reset(filled)
                if name == "plain":
                    return self.load.rate(name, script)
                with folding(self.engine, self.tally, "kept"):
                    return self.load.rate(name, script)

            return once

        return interleaved({name: rated(name) for name in ("plain", "kept")}, self.sizes.rounds)

    def _reset(self, rows: int) -> None:
        """Make all tables equal, and leave no work of the last round behind."""
        for table in self.tables.values():
            with transaction(self.engine) as cursor:
                cursor.execute(fill("TRUNCATE {t} RESTART IDENTITY", t=qualified(table)))
            if rows:
                self._fill(table, rows)
        self.tally.fold(self.engine)
        settle(self.engine)

    def _fill(self, table: Table, rows: int) -> None:
        with transaction(self.engine) as cursor:
            cursor.execute(
                fill(
                    "INSERT INTO {t} (chat_id, size) SELECT 1 + i %% 1000, 1 + i %% 5000"
                    " FROM generate_series(1, %s::integer) AS i",
                    t=qualified(table),
                ),
                (rows,),
            )

    def _deadlocks(self) -> int:
        with transaction(self.engine, read_only=True) as cursor:
            found = cursor.execute(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            ).fetchall()
        return int(found[0][0])


@contextmanager
def folding(engine: Engine, tally: Tally, aggregate: str) -> Iterator[None]:
    """Fold beside the writers, as a worker would."""
    ended = Event()

    def fold() -> None:
        while not ended.wait(FOLD_PERIOD_S):
            tally.fold(engine, only=[aggregate])

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(fold)
        try:
            yield
        finally:
            ended.set()
        running.result()
