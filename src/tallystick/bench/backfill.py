"""`tally bench backfill`: how long it takes beside the plain query, and what writers keep of their rate meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine

from tallystick.bench import pgbench
from tallystick.bench.figures import Figure, Progress, interleaved, ratio, report, silent
from tallystick.bench.machine import describe
from tallystick.bench.place import by_chat, create, message_table, own_database, qualified, session, settle
from tallystick.compiler.text import canonical, fill, literal
from tallystick.maintain import backfill
from tallystick.maintain.tally import Tally
from tallystick.store.connection import transaction

WRITE = "\\set chat random(1, {groups})\nINSERT INTO message (chat_id, size) VALUES (:chat, 100);\n"
NOTES = (
    "The plain query is CREATE TABLE AS SELECT … GROUP BY. Each backfill is the first of a new installation.",
    "Beside writers, backfills follow one another; each rests while others write. The baseline has the triggers too.",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rows: int
    groups: int
    rounds: int
    clients: int
    seconds: int
    chunk_rows: int


FULL = Sizes(5_000_000, 100_000, rounds=5, clients=8, seconds=20, chunk_rows=backfill.CHUNK_ROWS)
QUICK = Sizes(100_000, 2_000, rounds=3, clients=8, seconds=1, chunk_rows=10_000)


def run(url: str, *, quick: bool = False, progress: Progress = silent) -> dict[str, object]:
    """Measure on the server of `url`; about 8 minutes, or 20 seconds if `quick`.

    Raises:
        TallyError: there is no pgbench, no connection, or no right to create a database.
    """
    return measure(url, QUICK if quick else FULL, quick=quick, progress=progress)


def measure(url: str, sizes: Sizes, *, quick: bool, progress: Progress) -> dict[str, object]:
    """`run` with sizes of one's own."""
    program = pgbench.find()
    found: list[Figure] = []
    with own_database(url) as engine:
        machine = describe(engine)
        load = pgbench.Load(program, engine, sizes.clients, sizes.seconds)
        bench = _Backfills(engine, sizes, load, progress)
        for measured in (bench.idle, bench.beside_writers):
            for figure in measured():
                progress(figure.line())
                found.append(figure)
    return report("backfill", quick=quick, machine=machine, found=found, notes=NOTES)


class _Backfills:
    """A filled source, and an aggregate over it."""

    def __init__(self, engine: Engine, sizes: Sizes, load: pgbench.Load, progress: Progress) -> None:
        self.engine, self.sizes, self.load = engine, sizes, load
        self.source = message_table("app")
        self.tally = Tally()
        self.tally.grouped("by_chat", by_chat(self.source))
        progress(f"filling {sizes.rows:,} rows in {sizes.groups:,} groups")
        create(engine, self.source)
        with transaction(engine) as cursor:
            cursor.execute(
                fill(
                    "INSERT INTO {t} (chat_id, size) SELECT 1 + (i * 7919) % {groups}, i % 5000"
                    " FROM generate_series(1, {rows}::bigint) AS i",
                    t=qualified(self.source), groups=literal(sizes.groups), rows=literal(sizes.rows),
                )
            )  # fmt: skip
        settle(engine)

    def idle(self) -> Iterator[Figure]:
        runs: dict[str, Callable[[], float]] = {
            "plain": self._plain,
            "one": lambda: self._backfill(workers=1),
            "two": lambda: self._backfill(workers=2),
        }
        measured = interleaved(runs, self.sizes.rounds)
        what = f"backfill of {self.sizes.rows:,} rows into {self.sizes.groups:,} groups, time beside the plain query"
        yield ratio(f"{what}, two workers (the default)", measured, "plain", "two", target=5, aim=3)
        yield ratio(f"{what}, one worker", measured, "plain", "one")

    def beside_writers(self) -> Iterator[Figure]:
        self.tally.install(self.engine)
        self.tally.backfill(self.engine)
        measured = interleaved({"alone": self._rate, "beside": self._rate_beside}, self.sizes.rounds)
        what = f"rate of {self.sizes.clients} writers beside a backfill"
        yield ratio(what, measured, "alone", "beside", target=0.85, bound="at least")

    def _plain(self) -> float:
        query = str(by_chat(self.source).compile(self.engine))
        copy = Identifier("app", "copy")
        with session(self.engine) as connection:
            started = time.perf_counter()
            connection.execute(fill("CREATE TABLE {t} AS {q}", t=copy, q=canonical(query)))
            took = time.perf_counter() - started
            connection.execute(fill("DROP TABLE {t}", t=copy))
        return took

    def _backfill(self, *, workers: int) -> float:
        self.tally.install(self.engine)
        started = time.perf_counter()
        self.tally.backfill(self.engine, workers=workers, chunk_rows=self.sizes.chunk_rows)
        took = time.perf_counter() - started
        self.tally.uninstall(self.engine)
        with session(self.engine) as connection:
            connection.execute(SQL("CHECKPOINT"))
        return took

    def _rate(self) -> float:
        return self.load.rate("app", WRITE.replace("{groups}", str(self.sizes.groups)))

    def _rate_beside(self) -> float:
        stop = Event()

        def told(_progress: backfill.Progress) -> None:
            if stop.is_set():
                raise _Enough

        def work() -> None:
            try:
                while not stop.is_set():
                    self.tally.backfill(self.engine, force=True, chunk_rows=self.sizes.chunk_rows, told=told)
            except _Enough:
                return

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            try:
                rate = self._rate()
            finally:
                stop.set()
            working.result()
        self.tally.backfill(self.engine)
        return rate


class _Enough(Exception):
    """The writers have ended."""
