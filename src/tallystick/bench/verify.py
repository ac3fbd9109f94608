"""`tally bench verify`: what it takes to compare both halves, beside the direct query alone.

The direct query runs in full and sends no rows, as verify does. Deltas that nothing has folded are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from psycopg.sql import Composed, Identifier
from sqlalchemy import Engine

from tallystick.bench.figures import Figure, Progress, interleaved, ratio, report, silent
from tallystick.bench.machine import describe
from tallystick.bench.place import by_chat, create, message_table, own_database, qualified, settle
from tallystick.compiler.text import fill, literal
from tallystick.declare.names import internal_name
from tallystick.maintain.audit import audit_step
from tallystick.maintain.tally import Tally
from tallystick.store.connection import transaction

NOTES = (
    "The direct query of the ordered aggregate is count and sum over all items; verify compares each of its buckets.",
    "A sample is of 100 groups; a chunk is what a worker verifies at a time, for about 0.1 s.",
)
CHUNK_S = 0.1
SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rows: int
    groups: int
    deltas: int
    rounds: int


FULL = Sizes(5_000_000, 100_000, deltas=10_000, rounds=7)
QUICK = Sizes(100_000, 2_000, deltas=500, rounds=3)


def run(url: str, *, quick: bool = False, progress: Progress = silent) -> dict[str, object]:
    """Measure on the server of `url`; about 3 minutes, or 5 seconds if `quick`.

    Raises:
        TallyError: there is no connection, or no right to create a database.
    """
    return measure(url, QUICK if quick else FULL, quick=quick, progress=progress)


def measure(url: str, sizes: Sizes, *, quick: bool, progress: Progress) -> dict[str, object]:
    """`run` with sizes of one's own."""
    found: list[Figure] = []
    with own_database(url) as engine:
        machine = describe(engine)
        bench = _Halves(engine, sizes, progress)
        for figures in (bench.grouped, bench.ordered, bench.parts):
            for figure in figures():
                progress(figure.line())
                found.append(figure)
    return report("verify", quick=quick, machine=machine, found=found, notes=NOTES)


class _Halves:
    """A source with a grouped and an ordered aggregate, kept."""

    def __init__(self, engine: Engine, sizes: Sizes, progress: Progress) -> None:
        self.engine, self.sizes = engine, sizes
        self.source = message_table("app", "chat_id", "size")
        self.tally = Tally()
        self.tally.grouped("by_chat", by_chat(self.source))
        self.tally.ordered("by_size", self.source, key=[self.source.c.size], sums={"edits": self.source.c.edits})
        progress(f"filling {sizes.rows:,} rows in {sizes.groups:,} groups")
        create(engine, self.source)
        self._fill(sizes.rows)
        self.tally.install(engine)
        progress("backfilling")
        self.tally.backfill(engine)
        self._fill(sizes.deltas)
        settle(engine)

    def grouped(self) -> Iterator[Figure]:
        """Every group, both ways."""
        everything = fill("EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM {d}", d=self._direct("by_chat"))
        yield self._ratio("by_chat", f"verify of {self.sizes.groups:,} groups", everything, target=1.5)

    def ordered(self) -> Iterator[Figure]:
        """Every bucket beside its items."""
        total = fill("EXPLAIN (ANALYZE, TIMING OFF) SELECT count(*), sum(s1) FROM {d}", d=self._direct("by_size"))
        yield self._ratio("by_size", "verify of an ordered aggregate", total, target=1.5)

    def parts(self) -> Iterator[Figure]:
        """What does not take in everything."""
        taken = [self._timed(lambda: self.tally.verify(self.engine, only=["by_chat"], sample=SAMPLE))]
        yield Figure(f"verify of {SAMPLE} groups", "ms", [1000 * seconds for seconds in taken])
        groups = []
        for _ in range(self.sizes.rounds):
            step = audit_step(self.engine, self.tally.schema, "by_chat", budget_s=CHUNK_S)
            groups.append(step.report.groups / step.report.elapsed_s)
        yield Figure("groups that a worker verifies", "groups per second", groups)

    def _ratio(self, name: str, what: str, direct: Composed, *, target: float) -> Figure:
        runs: dict[str, Callable[[], float]] = {
            "direct": lambda: self._timed(lambda: self._run(direct)),
            "verify": lambda: self._timed(lambda: self.tally.verify(self.engine, only=[name])),
        }
        interleaved(runs, 1)  # not counted: it warms the caches
        measured = interleaved(runs, self.sizes.rounds)
        return ratio(f"{what}, time beside the direct query", measured, "direct", "verify", target=target)

    def _timed(self, call: Callable[[], object]) -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    def _run(self, statement: Composed) -> None:
        with transaction(self.engine, snapshot=True, read_only=True) as cursor:
            cursor.execute(statement)

    def _direct(self, name: str) -> Identifier:
        return Identifier(self.tally.schema, internal_name(name, "direct"))

    def _fill(self, rows: int) -> None:
        with transaction(self.engine) as cursor:
            cursor.execute(
                fill(
                    "INSERT INTO {t} (chat_id, size) SELECT 1 + (i * 7919) % {groups}, i % 5000"
                    " FROM generate_series(1, {rows}::bigint) AS i",
                    t=qualified(self.source), groups=literal(self.sizes.groups), rows=literal(rows),
                )
            )  # fmt: skip
