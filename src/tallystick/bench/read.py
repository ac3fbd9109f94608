"""`tally bench read`: what a read costs beside millions of source rows, with deltas that nothing has folded yet.

The source has a covering index (chat_id, size) and is vacuumed and analysed, so the direct query is as fast as
PostgreSQL makes it. Times are the client's, round trip and decoding included, of statements that SQLAlchemy compiled
and psycopg executes as prepared statements; one figure tells what SQLAlchemy's own execution adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Any

from psycopg.sql import Identifier
from sqlalchemy import BigInteger, Engine, Select, bindparam, select, true

from tallystick.bench.calls import prepared
from tallystick.bench.figures import Figure, Progress, report, silent
from tallystick.bench.machine import describe
from tallystick.bench.place import by_chat, chat_table, create, message_table, own_database, qualified, session, settle
from tallystick.compiler.text import fill
from tallystick.declare.names import internal_name
from tallystick.declare.reads import direct_of
from tallystick.maintain.tally import Tally
from tallystick.store.connection import transaction

BIG = 1  # the group with many rows
WARM_UP = 20  # calls; PostgreSQL chooses between its plans after five
PAGE = 50
KEPT_CALLS_PER_DIRECT = 10
NOTES = (
    "Deltas come from single-row INSERT statements into the source.",
    "Nothing analyses the delta table between those INSERTs and the reads.",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rows: int
    groups: int
    rows_of_big: int
    deltas: int
    changed: int  # groups that the deltas belong to
    calls: int
    rounds: int  # of direct calls, which take long


FULL = Sizes(5_000_000, 200_000, 100_000, deltas=10_000, changed=1_000, calls=1_000, rounds=25)
QUICK = Sizes(200_000, 8_000, 20_000, deltas=1_000, changed=100, calls=100, rounds=5)


def run(url: str, *, quick: bool = False, progress: Progress = silent) -> dict[str, object]:
    """Measure on the server of `url`; about 2 minutes, or 10 seconds if `quick`.

    Raises:
        TallyError: there is no connection, or no right to create a database.
    """
    return measure(url, QUICK if quick else FULL, quick=quick, progress=progress)


def measure(url: str, sizes: Sizes, *, quick: bool, progress: Progress) -> dict[str, object]:
    """`run` with sizes of one's own."""
    found: list[Figure] = []
    with own_database(url) as engine:
        machine = describe(engine)
        bench = _Readers(engine, sizes, progress)
        for figures in (bench.folded, bench.spread_deltas, bench.few_deltas, bench.concentrated_deltas):
            for figure in figures():
                progress(figure.line())
                found.append(figure)
    return report("read", quick=quick, machine=machine, found=found, notes=NOTES)


class _Readers:
    """The source, its aggregate, and the reads of it."""

    def __init__(self, engine: Engine, sizes: Sizes, progress: Progress) -> None:
        self.engine, self.sizes, self.random = engine, sizes, Random(1)  # noqa: S311  # seeded data, not secrets
        self.source, self.chat = message_table("app", "chat_id", "size"), chat_table("app")
        self.tally = Tally()
        self.aggregate = self.tally.grouped("by_chat", by_chat(self.source))
        progress(f"filling {sizes.rows:,} rows in {sizes.groups:,} groups")
        for table in (self.source, self.chat):
            create(engine, table)
        self._fill()
        self.tally.install(engine)
        progress("backfilling")
        self.tally.backfill(engine)
        state = Identifier(self.tally.schema, internal_name(self.aggregate.name, "state"))
        # Not the delta table: autovacuum leaves alone what nothing has been written to.
        settle(engine, qualified(self.source), qualified(self.chat), state)

    def folded(self) -> Iterator[Figure]:
        """Everything is in the state."""
        groups = self.sizes.groups
        yield self._times(".top(10), everything folded", self._top(), dict, target=5)
        yield self._times(".get(), everything folded", self._get(), lambda: {"chat": self.random.randint(1, groups)})
        yield self._times_faster("folded")

    def spread_deltas(self) -> Iterator[Figure]:
        """Deltas over many groups, BIG among them."""
        deltas, changed = self.sizes.deltas, self.sizes.changed
        self._insert(deltas, lambda i: BIG + i % changed)
        with_deltas = f"{deltas:,} deltas over {changed:,} groups"

        def one() -> dict[str, int]:
            return {"chat": self.random.randint(1, changed)}

        yield self._times(f".get() of such a group, {with_deltas}", self._get(), one, target=1)
        yield self._times_sqlalchemy(f".get() executed by SQLAlchemy, {with_deltas}", one)
        yield self._times_faster(with_deltas, target=100)
        page = self._page()
        yield self._times(
            f"page of {PAGE} parents by .lateral, {with_deltas}", page,
            lambda: {"after": self.random.randint(0, max(changed - PAGE, 0))}, target=5,
        )  # fmt: skip
        yield self._times(
            f"page of {PAGE} parents by .lateral, none of them with deltas", page,
            lambda: {"after": self.random.randint(changed, self.sizes.groups - PAGE)},
        )  # fmt: skip
        yield self._times(f".top(10), {with_deltas}", self._top(), dict)
        self._fold()

    def few_deltas(self) -> Iterator[Figure]:
        """One delta in each of some groups."""
        changed = self.sizes.changed
        self._insert(changed, lambda i: BIG + i)
        yield self._times(f".top(10), {changed:,} deltas over as many groups", self._top(), dict, target=5)
        self._fold()

    def concentrated_deltas(self) -> Iterator[Figure]:
        """All deltas in one group."""
        self._insert(self.sizes.deltas, lambda _: BIG)
        what = f".get() of a group with all {self.sizes.deltas:,} deltas"
        yield self._times(what, self._get(), lambda: {"chat": BIG}, target=3)

    def _get(self) -> Select[Any]:
        return self.aggregate.get(chat_id=bindparam("chat", type_=BigInteger))

    def _top(self) -> Select[Any]:
        return self.aggregate.top("messages", 10)

    def _page(self) -> Select[Any]:
        counts = self.aggregate.lateral(chat_id=self.chat.c.id)
        return (
            select(self.chat.c.id, counts.c.messages, counts.c.bytes)
            .select_from(self.chat.join(counts, true()))
            .where(self.chat.c.id > bindparam("after", type_=BigInteger))
            .order_by(self.chat.c.id)
            .limit(PAGE)
        )

    def _times(
        self, what: str, read: Select[Any], parameters: Callable[[], dict[str, int]], target: float | None = None
    ) -> Figure:
        with session(self.engine) as connection:
            call = prepared(connection, self.engine, read)
            samples = [call(parameters()) for _ in range(WARM_UP + self.sizes.calls)][WARM_UP:]
        return Figure(f"{what}, time", "ms", samples, target, "under")

    def _times_sqlalchemy(self, what: str, parameters: Callable[[], dict[str, int]]) -> Figure:
        read, samples = self._get(), []
        with self.engine.connect() as connection:
            for _ in range(WARM_UP + self.sizes.calls):
                values = parameters()
                started = time.perf_counter()
                connection.execute(read, values).one()
                samples.append((time.perf_counter() - started) * 1000)
        return Figure(f"{what}, time", "ms", samples[WARM_UP:])

    def _times_faster(self, state: str, target: float | None = None) -> Figure:
        """Kept against direct on the group with many rows: several kept calls between any two direct ones."""
        kept: list[float] = []
        direct: list[float] = []
        values = {"chat": BIG}
        with session(self.engine) as connection:
            call_kept = prepared(connection, self.engine, self._get())
            call_direct = prepared(connection, self.engine, direct_of(self._get()))
            for number in range(WARM_UP + self.sizes.rounds):
                took_direct = call_direct(values)
                took_kept = median(call_kept(values) for _ in range(KEPT_CALLS_PER_DIRECT))
                if number >= WARM_UP:
                    direct.append(took_direct)
                    kept.append(took_kept)
        what = f".get() of the group of {self.sizes.rows_of_big:,} rows, {state}, direct time over kept time"
        samples = [theirs / ours for theirs, ours in zip(direct, kept, strict=True)]
        return Figure(
            what, "ratio", samples, target, "at least", baseline=median(direct), candidate=median(kept)
        )  # fmt: skip

    def _fill(self) -> None:
        """The rows of BIG, and the others spread evenly over all other groups."""
        sizes = self.sizes
        with transaction(self.engine) as cursor:
            cursor.execute("SELECT setseed(0.5)")
            cursor.execute(
                fill(
                    "INSERT INTO {t} (chat_id, size)"
                    " SELECT CASE WHEN i <= %s::integer THEN %s::integer ELSE 2 + i %% %s::integer END,"
                    " 1 + random() * 100000 FROM generate_series(1, %s::integer) AS i",
                    t=qualified(self.source),
                ),
                (sizes.rows_of_big, BIG, sizes.groups - 1, sizes.rows),
            )
            cursor.execute(
                fill("INSERT INTO {t} SELECT generate_series(1, %s::integer)", t=qualified(self.chat)),
                (sizes.groups,),
            )

    def _insert(self, count: int, group: Callable[[int], int]) -> None:
        """One statement per row, and so one delta per row."""
        with transaction(self.engine) as cursor:
            cursor.executemany(
                fill("INSERT INTO {t} (chat_id, size) VALUES (%s, %s)", t=qualified(self.source)),
                [(group(i), i % 5000) for i in range(count)],
            )

    def _fold(self) -> None:
        self.tally.fold(self.engine)
        settle(self.engine)
