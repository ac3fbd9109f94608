"""Writers and a folder that run beside the demo: short random transactions, some of them rolled back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Executable, delete, func, insert, select, update

from tallystick.demo.flights import Flight
from tallystick.errors import FoldLocked
from tallystick.maintain.tally import Tally
from tallystick.store import aggregates
from tallystick.store.connection import transaction

WRITERS = 4
THINKING = 2
"""How much longer than its transactions a writer's pauses are on average: applications do other things, too."""
FOLD_EVERY_S = 0.25
ROLLED_BACK = 0.1


@dataclass
class Work:
    """What was written: committed and rolled-back transactions, and rows of the committed ones."""

    committed: int = 0
    rolled_back: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    folds: int = 0
    folded_deltas: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    @property
    def rows(self) -> int:
        return self.inserted + self.updated + self.deleted


@dataclass
class Beside:
    """Threads that write and fold until `stop`, which tells what they did, or raises what one of them met."""

    engine: Engine
    tally: Tally
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WRITERS + 1, "demo"))
    _works: list[Future[Work]] = field(default_factory=list)

    def start(self) -> None:
        with self.engine.connect() as connection:
            known = _Known(
                carriers=_values(connection, Flight.carrier),
                tailnums=_values(connection, Flight.tailnum),
                routes=[tuple(row) for row in connection.execute(_ROUTES)],
                ids=connection.scalar(select(func.max(Flight.id))) or 1,
            )
        for seed in range(WRITERS):
            self._works.append(self._threads.submit(self._write, random.Random(seed), known))  # noqa: S311
        self._works.append(self._threads.submit(self._fold))

    def stop(self) -> Work:
        self.end()
        return sum((work.result() for work in self._works), Work())

    def end(self) -> None:
        """Wait until every thread has ended its transaction."""
        self._ended.set()
        self._threads.shutdown()

    def _write(self, chance: random.Random, known: _Known) -> Work:
        done, pause_s = Work(), 0.0
        # Without the option, SQLAlchemy does not tell how many rows an INSERT made.
        with self.engine.connect().execution_options(preserve_rowcount=True) as connection:
            while not self._ended.wait(pause_s):
                statements = list(_statements(chance, known))
                started = time.perf_counter()
                work = Work(committed=1)
                for kind, statement in statements:
                    work += Work(**{kind: connection.execute(statement).rowcount})
                if chance.random() < ROLLED_BACK:
                    connection.rollback()
                    done.rolled_back += 1
                else:
                    connection.commit()
                    done += work
                pause_s = chance.expovariate(1 / (THINKING * (time.perf_counter() - started)))
        return done

    def _fold(self) -> Work:
        done = Work()
        while not self._ended.wait(FOLD_EVERY_S):
            with transaction(self.engine, read_only=True) as cursor:
                kept = [one.name for one in aggregates.every(cursor, self.tally.schema) if one.is_complete]
            for name in kept:
                with suppress(FoldLocked):  # a backfill folds at its end
                    (result,) = self.tally.fold(self.engine, only=[name])
                    done += Work(folds=1, folded_deltas=result.deltas)
        return done


@dataclass(frozen=True)
class _Known:
    carriers: Sequence[str]
    tailnums: Sequence[str | None]
    routes: Sequence[tuple[Any, ...]]
    ids: int

    def flight(self, chance: random.Random) -> dict[str, Any]:
        """A flight that might have been; one in twenty is cancelled."""
        origin, dest, distance = chance.choice(self.routes)
        day = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=chance.randrange(365))
        hour, minute = chance.randrange(5, 24), chance.randrange(60)
        cancelled = chance.random() < 0.05
        delay = int(chance.gauss(8, 30))
        flown = {} if cancelled else {
            "dep_time": hour * 100 + minute, "dep_delay": delay, "arr_time": hour * 100 + minute,
            "arr_delay": delay + int(chance.gauss(-5, 20)), "air_time": distance // 8 + chance.randrange(20, 40),
        }  # fmt: skip
        return {
            "year": day.year, "month": day.month, "day": day.day, "hour": hour, "minute": minute,
            "sched_dep_time": hour * 100 + minute, "sched_arr_time": hour * 100 + minute,
            "carrier": chance.choice(self.carriers), "flight": chance.randrange(1, 9000),
            "tailnum": chance.choice(self.tailnums), "origin": origin, "dest": dest, "distance": distance,
            "time_hour": day.replace(hour=hour), "dep_time": None, "dep_delay": None, "arr_time": None,
            "arr_delay": None, "air_time": None, **flown,
        }  # fmt: skip

    def change(self, chance: random.Random) -> dict[str, Any]:
        """A change of a flight: its delay, its aircraft, its route, or a column that nothing is kept of."""
        kind = chance.random()
        if kind < 0.5:
            delay = int(chance.gauss(20, 60))
            return {"dep_delay": delay, "arr_delay": delay - 5}
        if kind < 0.7:
            return {"tailnum": chance.choice(self.tailnums)}
        if kind < 0.9:
            return dict(zip(("origin", "dest", "distance"), chance.choice(self.routes), strict=True))
        return {"sched_arr_time": chance.randrange(2400)}


_ROUTES = (
    select(Flight.origin, Flight.dest, Flight.distance).distinct().order_by(Flight.origin, Flight.dest, Flight.distance)
)


def _values(connection: Connection, column: Any) -> list[Any]:
    return list(connection.scalars(select(column).distinct().order_by(column)))


def _statements(chance: random.Random, known: _Known) -> Iterator[tuple[str, Executable]]:
    """One to four statements with what they do. Rows are changed in the order of their ids: writers never deadlock."""
    for row_id in sorted(chance.randrange(1, known.ids + 1) for _ in range(chance.randint(1, 4))):
        kind = chance.random()
        if kind < 0.4:
            yield "inserted", insert(Flight).values(known.flight(chance))
        elif kind < 0.8:
            yield "updated", update(Flight).where(Flight.id == row_id).values(known.change(chance))
        else:
            yield "deleted", delete(Flight).where(Flight.id == row_id)


@contextmanager
def beside(engine: Engine, tally: Tally) -> Iterator[Beside]:
    """Writers and a folder during the block; they are stopped at its end at the latest, whatever happens in it."""
    threads = Beside(engine, tally)
    threads.start()
    try:
        yield threads
    finally:
        threads.end()
