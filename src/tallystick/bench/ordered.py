"""`tally bench ordered`: reads of an ordered aggregate, what it costs its writers, and what it takes to keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg.sql import Identifier
from sqlalchemy import Engine

from tallystick.bench import ordered_reads, ordered_upkeep, ordered_writes, pgbench
from tallystick.bench.figures import Figure, Progress, report, silent
from tallystick.bench.machine import describe
from tallystick.bench.ordered_source import Timeline
from tallystick.bench.place import own_database, qualified, settle
from tallystick.compiler.text import fill
from tallystick.declare.names import internal_name
from tallystick.maintain.tally import Tally
from tallystick.store.connection import transaction

NOTES = (
    "A range lies between two random moments: on average it has a third of the rows; before a rank is half of them.",
    "Deltas come from single-row statements: half are INSERTs at random places, half DELETEs of random rows.",
    "Nothing vacuums or analyses the delta tables while reads are measured.",
    "Direct queries are planned for the values of each call.",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    reads: ordered_reads.Sizes
    upkeep: ordered_upkeep.Sizes
    writes: ordered_writes.Sizes


FULL = Sizes(
    ordered_reads.Sizes(10_000_000, 1_000_000, few=500, many=5_000, batch=100, calls=1_000, rounds=25),
    ordered_upkeep.Sizes(rounds=5, deltas=100_000),
    ordered_writes.Sizes(rounds=13, seconds=2, clients=8, bulk_rounds=7, bulk_rows=300_000),
)
QUICK = Sizes(
    ordered_reads.Sizes(200_000, 20_000, few=500, many=5_000, batch=100, calls=100, rounds=5),
    ordered_upkeep.Sizes(rounds=3, deltas=10_000),
    ordered_writes.Sizes(rounds=3, seconds=1, clients=8, bulk_rounds=3, bulk_rows=30_000),
)


def run(url: str, *, quick: bool = False, progress: Progress = silent) -> dict[str, object]:
    """Measure on the server of `url`; about 4 minutes, or 15 seconds if `quick`.

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
        load = pgbench.Load(program, engine, sizes.writes.clients, sizes.writes.seconds)
        for figure in _figures(engine, sizes, load, progress):
            progress(figure.line())
            found.append(figure)
    return report("ordered", quick=quick, machine=machine, found=found, notes=NOTES)


def _figures(engine: Engine, sizes: Sizes, load: pgbench.Load, progress: Progress) -> Iterator[Figure]:
    writers = ordered_writes.Writers(engine, sizes.writes, load)
    yield from writers.singles()
    yield from writers.bulk()

    tally = Tally()
    small, big = (
        Timeline(engine, tally, schema, rows, progress)
        for schema, rows in (("small", sizes.reads.rows_of_small), ("big", sizes.reads.rows))
    )
    _keep_vacuum_away(engine, small, big)
    # Not the delta tables: autovacuum leaves alone what nothing has been written to.
    settle(engine, *(each for timeline in (small, big) for each in (qualified(timeline.table), _bucket(timeline))))
    readers = ordered_reads.Readers(engine, sizes.reads, big, small)
    yield from readers.few_deltas()
    yield from readers.many_deltas()
    upkeep = ordered_upkeep.Upkeep(engine, sizes.upkeep, big)
    yield from upkeep.storage()
    yield from upkeep.folds()


def _keep_vacuum_away(engine: Engine, *timelines: Timeline) -> None:
    """Autovacuum would come in the middle of some figure, and better it."""
    for timeline in timelines:
        delta = Identifier(timeline.kept.schema, internal_name(timeline.kept.name, "delta"))
        for table in (qualified(timeline.table), delta):
            with transaction(engine) as cursor:
                cursor.execute(fill("ALTER TABLE {t} SET (autovacuum_enabled = false)", t=table))


def _bucket(timeline: Timeline) -> Identifier:
    return Identifier(timeline.kept.schema, internal_name(timeline.kept.name, "bucket"))
