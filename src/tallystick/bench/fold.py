"""`tally bench fold`: how fast deltas become state, and how much memory that takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from sqlalchemy import Engine, create_engine

from tallystick.bench.figures import Figure, Progress, report, silent
from tallystick.bench.machine import describe
from tallystick.bench.place import by_chat, create, message_table, own_database, qualified, settle
from tallystick.compiler.text import fill
from tallystick.maintain.tally import Tally
from tallystick.store.connection import transaction

SAMPLE_S = 0.005
NOTE = (
    "Deltas come from the capture trigger: each INSERT brings one row, and so one delta, to each of its groups;"
    " they have the shape that single-row statements leave."
)
FLAT_MB = 8  # work_mem's default, twice


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rounds: int
    groups: int
    deltas: int
    distinct: int  # deltas of as many groups
    backlogs: tuple[int, ...]  # multiples of `groups`


FULL = Sizes(rounds=5, groups=1_000, deltas=500_000, distinct=200_000, backlogs=(250_000, 500_000, 1_000_000))
QUICK = Sizes(rounds=3, groups=1_000, deltas=50_000, distinct=20_000, backlogs=(25_000, 50_000, 100_000))


def run(url: str, *, quick: bool = False, progress: Progress = silent) -> dict[str, object]:
    """Measure on the server of `url`; about 2 minutes, or 15 seconds if `quick`.

    Raises:
        TallyError: there is no connection, or no right to create a database.
    """
    return measure(url, QUICK if quick else FULL, quick=quick, progress=progress)


def measure(url: str, sizes: Sizes, *, quick: bool, progress: Progress) -> dict[str, object]:
    """`run` with sizes of one's own."""
    notes = [NOTE]
    found: list[Figure] = []
    with own_database(url) as engine:
        machine = describe(engine)
        bench = _Folds(engine, sizes)
        steps = [bench.few_groups, bench.distinct_groups]
        if _is_local(engine):
            steps.append(bench.memory)
        else:
            notes.append("Memory was not measured: that takes a server on this machine, with its /proc.")
        for step in steps:
            for figure in step():
                progress(figure.line())
                found.append(figure)
    return report("fold", quick=quick, machine=machine, found=found, notes=notes)


class _Folds:
    """A source with deltas, and the folding of them."""

    def __init__(self, engine: Engine, sizes: Sizes) -> None:
        self.engine, self.sizes = engine, sizes
        self.source = message_table("app")
        self.tally = Tally()
        self.tally.grouped("by_chat", by_chat(self.source))
        create(engine, self.source)
        self.tally.install(engine)
        self.tally.backfill(engine)

    def few_groups(self) -> Iterator[Figure]:
        """Many deltas per group. The first fold makes the groups and is not counted."""
        sizes = self.sizes
        rates = [self._rate(sizes.deltas // sizes.groups, sizes.groups) for _ in range(sizes.rounds + 1)][1:]
        yield _rate(f"fold of {sizes.deltas:,} deltas over {sizes.groups:,} groups", rates, 100_000)

    def distinct_groups(self) -> Iterator[Figure]:
        """One delta per group: in each round new groups, then the same again."""
        distinct = self.sizes.distinct
        new, known = [], []
        for number in range(self.sizes.rounds):
            first = (number + 1) * 10 * distinct
            new.append(self._rate(1, distinct, first))
            known.append(self._rate(1, distinct, first))
        yield _rate(f"fold of {distinct:,} deltas, each of a group of its own, new", new, 50_000)
        yield _rate(f"fold of {distinct:,} deltas, each of a group of its own, known", known, 50_000)

    def memory(self) -> Iterator[Figure]:
        """Peak memory of a new backend for each size of the backlog, all over the same groups."""
        peaks: list[float] = []
        for backlog in self.sizes.backlogs:
            self._insert(backlog // self.sizes.groups, self.sizes.groups, 0)
            settle(self.engine)
            # A backend of its own, so that what it held before does not hide what this fold takes.
            alone = create_engine(self.engine.url, pool_size=1, max_overflow=0)
            with transaction(alone) as cursor:
                process = Path("/proc") / str(cursor.connection.info.backend_pid)
            with _peak_of(process) as peak:
                self.tally.fold(alone)
            peaks.append(peak())
            alone.dispose()
            yield Figure(f"peak memory of the backend that folds {backlog:,} deltas", "MB", [peaks[-1]])
        least, most = self.sizes.backlogs[0], self.sizes.backlogs[-1]
        what = f"growth of peak memory from {least:,} to {most:,} deltas"
        yield Figure(what, "MB", [peaks[-1] - peaks[0]], FLAT_MB, baseline=peaks[0], candidate=peaks[-1])

    def _rate(self, statements: int, groups: int, first: int = 0) -> float:
        self._insert(statements, groups, first)
        settle(self.engine)
        folded = self.tally.fold(self.engine)[0]
        return folded.deltas / folded.elapsed_s

    def _insert(self, statements: int, groups: int, first: int) -> None:
        with transaction(self.engine) as cursor:
            cursor.executemany(
                fill(
                    "INSERT INTO {t} (chat_id, size) SELECT i, i %% 5000"
                    " FROM generate_series(%s::integer, %s::integer) AS i",
                    t=qualified(self.source),
                ),
                [(first + 1, first + groups)] * statements,
            )


def _rate(what: str, rates: list[float], target: float) -> Figure:
    return Figure(what, "deltas per second", rates, target, "at least")


def _is_local(engine: Engine) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    with transaction(engine) as cursor:
        status = Path("/proc") / str(cursor.connection.info.backend_pid) / "comm"
        return status.exists() and status.read_text().strip() == "postgres"


@contextmanager
def _peak_of(process: Path) -> Iterator[Callable[[], float]]:
    """The greatest RssAnon of a process within the block, in MB: its own memory, without the shared buffers."""
    ended = Event()
    seen = [_anonymous_mb(process)]

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            seen.append(_anonymous_mb(process))

    with ThreadPoolExecutor(1) as pool:
        sampling = pool.submit(sample)
        try:
            yield lambda: max(seen)
        finally:
            ended.set()
        sampling.result()


def _anonymous_mb(process: Path) -> float:
    for line in (process / "status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0
