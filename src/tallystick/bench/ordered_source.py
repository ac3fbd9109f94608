"""What `tally bench ordered` counts: the events of one namespace, one a second, ordered by their time."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

from sqlalchemy import BigInteger, Column, DateTime, Engine, Identity, Index, Integer, MetaData, Table, func

from tallystick.bench.figures import Progress
from tallystick.bench.place import create, qualified
from tallystick.compiler.text import fill
from tallystick.declare.ordered import Ordered
from tallystick.maintain.tally import Tally
from tallystick.store.connection import transaction

NAMESPACE = 1


def event_table(schema: str, *, is_indexed: bool = False) -> Table:
    """Events. `is_indexed`: with the index that an aggregate over them asks for, which is otherwise made for it."""
    table = Table(
        "event", MetaData(schema=schema),
        Column("id", BigInteger, Identity(), primary_key=True),
        Column("ns", BigInteger, nullable=False),
        Column("moment", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        Column("amount", Integer, nullable=False),
    )  # fmt: skip
    if is_indexed:
        Index(None, table.c.ns, table.c.moment, table.c.id)
    return table


def declare(tally: Tally, name: str, table: Table) -> Ordered:
    """The aggregate of the benchmark."""
    return tally.ordered(
        name, table, namespace=[table.c.ns], key=[table.c.moment], sums={"total": table.c.amount}
    )  # fmt: skip


def at_second(number: int) -> datetime:
    """When the event of that number happened."""
    return datetime.fromtimestamp(number, UTC)


def append(engine: Engine, table: Table, first: int, last: int) -> None:
    """One INSERT of the events of these numbers."""
    with transaction(engine) as cursor:
        cursor.execute(
            fill(
                "INSERT INTO {t} (ns, moment, amount) SELECT %s::bigint, to_timestamp(i), 1 + i %% 5000"
                " FROM generate_series(%s::integer, %s::integer) AS i",
                t=qualified(table),
            ),
            (NAMESPACE, first, last),
        )


class Timeline:
    """A source that is filled, and its aggregate, which is backfilled.

    Attributes:
        rows: events at the start, numbered from 1.
        table: the source.
        kept: the aggregate.
    """

    def __init__(self, engine: Engine, tally: Tally, schema: str, rows: int, progress: Progress) -> None:
        self.rows = rows
        self.table = event_table(schema)
        self.kept = declare(tally, f"events_{schema}", self.table)
        self._engine, self._tally = engine, tally
        self._random = Random(1)  # noqa: S311  # seeded data, not secrets
        self._deleted: set[int] = set()
        self._last = rows
        progress(f"filling {rows:,} rows")
        create(engine, self.table)
        append(engine, self.table, 1, rows)
        tally.install(engine, only=[self.kept.name])
        progress("backfilling")
        tally.backfill(engine, only=[self.kept.name])

    def change(self, deltas: int) -> None:
        """As many deltas: half of them events that come late, at random places, half of them deleted events."""
        late = [(NAMESPACE, at_second(self._number()), 1 + i % 5000) for i in range(deltas - deltas // 2)]
        gone: set[int] = set()
        while len(gone) < deltas // 2:
            gone.add(self._number())
            gone -= self._deleted
        self._deleted |= gone
        with transaction(self._engine) as cursor:
            cursor.executemany(
                fill("INSERT INTO {t} (ns, moment, amount) VALUES (%s, %s, %s)", t=qualified(self.table)), late
            )
            cursor.executemany(
                fill("DELETE FROM {t} WHERE id = %s", t=qualified(self.table)), [(number,) for number in gone]
            )

    def append(self, rows: int) -> None:
        """As many events behind the last one."""
        append(self._engine, self.table, self._last + 1, self._last + rows)
        self._last += rows

    def scatter(self, rows: int) -> None:
        """As many events at random places, in one INSERT."""
        with transaction(self._engine) as cursor:
            cursor.execute(
                fill(
                    "INSERT INTO {t} (ns, moment, amount)"
                    " SELECT %s::bigint, to_timestamp(1 + random() * %s::integer), 1 + i %% 5000"
                    " FROM generate_series(1, %s::integer) AS i",
                    t=qualified(self.table),
                ),
                (NAMESPACE, self.rows, rows),
            )

    def fold(self) -> float:
        """Deltas per second."""
        folded = self._tally.fold(self._engine, only=[self.kept.name])[0]
        return folded.deltas / folded.elapsed_s

    def _number(self) -> int:
        return self._random.randint(1, self.rows)
