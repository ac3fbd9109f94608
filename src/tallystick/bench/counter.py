"""`tally bench counter`: what an add to a counter costs its writers, and how long its count takes.

All writers count under one key. Beside the add stand the same transactions with a single-row counter, once updated and
once upserted, and without any. Each round starts folded, vacuumed and checkpointed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Engine, Identity, Integer, MetaData, Table, Text, select

from tallystick.bench import pgbench
from tallystick.bench.calls import prepared
from tallystick.bench.figures import Figure, Progress, interleaved, ratio, report, silent
from tallystick.bench.machine import describe
from tallystick.bench.place import create, own_database, qualified, session, settle
from tallystick.compiler.text import fill
from tallystick.maintain.tally import Tally
from tallystick.store.connection import transaction

SCHEMA = "app"
KEY = "k"
WARM_UP = 20  # calls; PostgreSQL chooses between its plans after five
SHARDS = (100, 30, 20)
WRITE = "INSERT INTO entry (n) VALUES (1);"
ADD = "SELECT tally.counter_add('{counter}', 'k', 1);"
BESIDE = {
    "nothing": "",
    "add": ADD.replace("{counter}", "standard"),
    "update": "UPDATE single SET value = value + 1 WHERE key = 'k';",
    "upsert": "INSERT INTO single VALUES ('k', 1) ON CONFLICT (key) DO UPDATE SET value = single.value + 1;",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. A round is one run of each kind of transaction."""

    rounds: int
    seconds: int
    clients: int
    calls: int


FULL = Sizes(rounds=9, seconds=3, clients=16, calls=1_000)
QUICK = Sizes(rounds=3, seconds=1, clients=16, calls=100)


def run(url: str, *, quick: bool = False, progress: Progress = silent) -> dict[str, object]:
    """Measure on the server of `url`; about 5 minutes, or 30 seconds if `quick`.

    Raises:
        TallyError: there is no pgbench, no connection, or no right to create a database.
    """
    return measure(url, QUICK if quick else FULL, quick=quick, progress=progress)


def measure(url: str, sizes: Sizes, *, quick: bool, progress: Progress) -> dict[str, object]:
    """`run` with sizes of one's own."""
    program = pgbench.find()
    with own_database(url) as engine:
        machine = describe(engine)
        bench = _Counters(engine, sizes, pgbench.Load(program, engine, sizes.clients, sizes.seconds))
        found: list[Figure] = []
        for measured in (bench.beside_an_insert, bench.alone, bench.count):
            for figure in measured():
                progress(figure.line())
                found.append(figure)
    return report("counter", quick=quick, machine=machine, found=found)


class _Counters:
    """Counters of several numbers of shards, a counter of a single row, and a table that is written beside them."""

    def __init__(self, engine: Engine, sizes: Sizes, load: pgbench.Load) -> None:
        self.engine, self.sizes, self.load = engine, sizes, load
        self.tally = Tally()
        self.tally.counter("standard")
        self.by_shards = {shards: self.tally.counter(f"of_{shards}", shards=shards) for shards in SHARDS}
        kinds = MetaData(schema=SCHEMA)
        self.entry = Table(
            "entry", kinds, Column("id", BigInteger, Identity(), primary_key=True), Column("n", Integer)
        )  # fmt: skip
        self.single = Table(
            "single", kinds, Column("key", Text, primary_key=True), Column("value", BigInteger)
        )  # fmt: skip
        create(engine, self.entry)
        with engine.begin() as connection:
            connection.execute(self.single.insert(), {"key": KEY, "value": 0})
        self.tally.install(engine)

    def beside_an_insert(self) -> Iterator[Figure]:
        scripts = {name: f"BEGIN;\n{WRITE}\n{beside}\nEND;\n" for name, beside in BESIDE.items()}
        measured = self._rates(scripts)
        what = f"an INSERT and an add, {self.sizes.clients} clients on one key, rate"
        yield ratio(
            f"{what} over that with an UPSERT of one row", measured, "upsert", "add", target=3, bound="at least", aim=5
        )  # fmt: skip
        yield ratio(
            f"{what} over that with an UPDATE of one row", measured, "update", "add", target=3, bound="at least", aim=5
        )  # fmt: skip
        yield ratio(
            f"{what} over that without a counter", measured, "nothing", "add", target=0.5, bound="at least", aim=0.8
        )  # fmt: skip

    def alone(self) -> Iterator[Figure]:
        scripts = {str(shards): ADD.replace("{counter}", f"of_{shards}") + "\n" for shards in SHARDS}
        for shards, rates in self._rates(scripts).items():
            what = f"adds alone, {self.sizes.clients} clients on one key of {shards} shards, rate"
            yield Figure(what, "adds per second", rates)

    def count(self) -> Iterator[Figure]:
        most = max(SHARDS)
        counter = self.by_shards[most]
        with self.engine.begin() as connection:
            connection.execute(counter.set(KEY, 1_000 * most))
        settle(self.engine)
        with session(self.engine) as connection:
            call = prepared(connection, self.engine, select(counter.count(KEY)))
            samples = [call({}) for _ in range(WARM_UP + self.sizes.calls)][WARM_UP:]
        yield Figure(f"count of a key of {most} shards, time", "ms", samples, 1, "under")

    def _rates(self, scripts: dict[str, str]) -> dict[str, list[float]]:
        def rated(script: str) -> Callable[[], float]:
            def once() -> float:
                self._reset()
                return self.load.rate(SCHEMA, script)

            return once

        return interleaved({name: rated(script) for name, script in scripts.items()}, self.sizes.rounds)

    def _reset(self) -> None:
        """Leave no work of the last round behind."""
        with transaction(self.engine) as cursor:
            cursor.execute(fill("TRUNCATE {t} RESTART IDENTITY", t=qualified(self.entry)))
        self.tally.fold(self.engine)
        settle(self.engine)
