"""What an ordered aggregate costs the writers of its source, whose keys grow with time.

Equal tables with the same index in the schemas `plain` and `kept`; only the second has an aggregate, and something that
folds it beside the writers. Each round starts with both empty, folded, vacuumed and checkpointed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Engine

from tallystick.bench import pgbench
from tallystick.bench.figures import Figure, interleaved, ratio
from tallystick.bench.ordered_source import append, declare, event_table
from tallystick.bench.place import create, qualified, settle
from tallystick.bench.write import folding
from tallystick.compiler.text import fill
from tallystick.maintain.tally import Tally
from tallystick.store.connection import transaction

AGGREGATE = "kept"
NOW = """
\\set amount random(1, 5000)
INSERT INTO event (ns, amount) VALUES (1, :amount);
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. Rounds are pairs of one run on each table."""

    rounds: int
    seconds: int
    clients: int
    bulk_rounds: int
    bulk_rows: int


class Writers:
    """Two equal tables, and the load on them."""

    def __init__(self, engine: Engine, sizes: Sizes, load: pgbench.Load) -> None:
        self.engine, self.sizes, self.load = engine, sizes, load
        self.tally = Tally()
        self.tables = {name: event_table(name, is_indexed=True) for name in ("plain", "kept")}
        for table in self.tables.values():
            create(engine, table)
        declare(self.tally, AGGREGATE, self.tables["kept"])
        self.tally.install(engine)
        self.tally.backfill(engine)

    def singles(self) -> Iterator[Figure]:
        def rated(name: str) -> Callable[[], float]:
            def once() -> float:
                self._reset()
                if name == "plain":
                    return self.load.rate(name, NOW)
                with folding(self.engine, self.tally, AGGREGATE):
                    return self.load.rate(name, NOW)

            return once

        measured = interleaved({name: rated(name) for name in self.tables}, self.sizes.rounds)
        what = f"single-row inserts with keys of now, {self.sizes.clients} clients, rate"
        yield ratio(what, measured, "plain", "kept", target=0.6, bound="at least", aim=0.75)

    def bulk(self) -> Iterator[Figure]:
        rows = self.sizes.bulk_rows

        def timed(name: str) -> Callable[[], float]:
            def once() -> float:
                self._reset()
                started = time.perf_counter()
                append(self.engine, self.tables[name], 1, rows)
                return time.perf_counter() - started

            return once

        measured = interleaved({name: timed(name) for name in self.tables}, self.sizes.bulk_rounds)
        yield ratio(f"one INSERT of {rows:,} rows, time", measured, "plain", "kept", target=1.8)

    def _reset(self) -> None:
        """Make both tables empty, and leave no work of the last round behind."""
        for table in self.tables.values():
            with transaction(self.engine) as cursor:
                cursor.execute(fill("TRUNCATE {t} RESTART IDENTITY", t=qualified(table)))
        self.tally.fold(self.engine)
        settle(self.engine)
