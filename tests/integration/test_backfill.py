"""Backfill in chunks: exact beside writers, whatever the primary key is; it goes on, or begins anew where it must."""

import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import BigInteger, Column, Engine, Integer, MetaData, Numeric, Table, Text, Uuid
from sqlalchemy.types import TypeEngine

from tallystick import Tally
from tallystick.maintain.backfill import Progress
from tests.backfills import Stopped, after, stop_after
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.order_oracle import assert_orders_exact, small_buckets
from tests.servers import Connection

ROWS = 60
KEYS: dict[str, tuple[LiteralString, dict[str, type[TypeEngine[Any]]], Callable[[int], tuple[object, ...]]]] = {
    "bigint": ("id bigint PRIMARY KEY", {"id": BigInteger}, lambda n: (n,)),
    "composite": (
        'part text COLLATE "C", number integer, PRIMARY KEY (part, number)',
        {"part": Text, "number": Integer},
        lambda n: ("aBcD"[n % 4], n // 4),
    ),
    "uuid": (
        "id uuid PRIMARY KEY",
        {"id": Uuid},
        lambda n: (UUID(int=(n * 0x9E3779B97F4A7C15) % 2**64 << 64),),
    ),
    "text": ("id text PRIMARY KEY", {"id": Text}, lambda n: (f"{n % 10} Ümläut-{n}",)),
    "numeric": ("id numeric PRIMARY KEY", {"id": Numeric}, lambda n: (n / 8,)),
}  # fmt: skip
GROUPED = {
    "by_place": "SELECT place, count(*) AS items, sum(size) AS size, min(size) AS least, max(size) AS most,"
    " count(DISTINCT kind) AS kinds FROM public.item GROUP BY place",
    "totals": "SELECT count(*) AS items, sum(price) AS price, max(size) AS most FROM public.item WHERE size > 1",
    "by_kind": "SELECT kind, count(*) AS items FROM public.item GROUP BY kind",
}


class Application:
    """A table with a primary key of some kind, and random writes to it by two sessions that overlap."""

    def __init__(self, connect: Connect, kind: str, seed: int = 0) -> None:
        columns, self.declared, self.key = KEYS[kind]
        self.random = random.Random(seed)
        self.connection = connect(autocommit=True)
        self.others = [connect(), connect()]
        self.numbers = count(ROWS)
        self.live = list(range(ROWS))
        self.taken: set[int] = set()  # rows that an open transaction has written
        self.names = list(self.declared)
        self.connection.execute(
            sql.SQL("CREATE TABLE item ({}, place integer, kind text, size integer, price numeric)").format(
                sql.SQL(columns)
            )
        )
        for number in range(ROWS):
            self._insert(self.connection, number)

    def write(self) -> None:
        """One write by one of the sessions, which then may commit, or roll back all that it has done."""
        session = self.random.choice(self.others)
        free = [number for number in self.live if number not in self.taken]
        what = self.random.randrange(5)
        with session.cursor() as cursor:
            if what == 0 or len(free) < ROWS // 2:
                self._insert(session, self._new())
            elif what == 1:
                cursor.execute(self._where("DELETE FROM item WHERE {}"), self.key(self._own(free)))
            elif what == 2:
                change = "UPDATE item SET size = size + 3, place = nullif(place %% 3 + 1, 2) WHERE {}"
                cursor.execute(self._where(change), self.key(self._own(free)))
            else:
                place = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in self.names)
                moved = self._where("UPDATE item SET {place}, kind = 'moved' WHERE {}", place=place)
                cursor.execute(moved, (*self.key(self._new()), *self.key(self._own(free))))
        if self.random.random() < 0.4:
            (session.commit if self.random.random() < 0.7 else session.rollback)()
            self._refresh()

    def end(self) -> None:
        for session in self.others:
            session.commit()

    def _own(self, free: list[int]) -> int:
        number = self.random.choice(free)
        self.taken.add(number)
        return number

    def _new(self) -> int:
        number = next(self.numbers)
        # Anywhere in the order of the primary key, not only behind all others.
        return number if self.random.random() < 0.5 else -number

    def _insert(self, session: Connection, number: int) -> None:
        values = [*self.key(number), abs(number) % 5 or None, f"k{abs(number) % 3}", abs(number) % 7, number]
        marks = sql.SQL(", ").join([sql.Placeholder()] * len(values))
        session.execute(sql.SQL("INSERT INTO item VALUES ({})").format(marks), values)

    def _refresh(self) -> None:
        """Rows as they are now; those that an open transaction has written are locked, and left alone."""
        by_key = {self.key(number): number for number in range(-next(self.numbers), next(self.numbers))}
        names = sql.SQL(", ").join(map(sql.Identifier, self.names))
        query = sql.SQL("SELECT {} FROM item FOR UPDATE SKIP LOCKED").format(names)
        self.live = [by_key[tuple(row)] for row in self.connection.execute(query).fetchall()]
        self.taken = set()

    def _where(self, template: LiteralString, **parts: sql.Composable) -> sql.Composed:
        here = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in self.names)
        return sql.SQL(template).format(here, **parts)


def grouped() -> Tally:
    tally = Tally()
    for name, definition in GROUPED.items():
        tally.grouped(name, definition)
    return tally


def ordered(application: Application, *names: str) -> Tally:
    item = Table(
        "item", MetaData(),
        *(Column(name, type_, primary_key=True) for name, type_ in application.declared.items()),
        Column("place", Integer), Column("kind", Text), Column("size", Integer), Column("price", Numeric),
        schema="public",
    )  # fmt: skip
    declared: dict[str, dict[str, Any]] = {
        "by_size": {"namespace": [item.c.place], "key": [item.c.size], "sums": {"price": item.c.price}},
        "by_price": {"key": [item.c.price.desc(), (item.c.size % 4).label("rest")]},
        "by_id": {"sums": {"size": item.c.size}},
    }
    tally = Tally()
    for name in names or declared:
        tally.ordered(name, item, **declared[name])
    return tally


KINDS = [(kind, 2) for kind in KEYS] + [("bigint", 1)]


@pytest.mark.parametrize(("kind", "workers"), KINDS)
def test_beside_writers(connect: Connect, engine: Engine, kind: str, workers: int) -> None:
    application = Application(connect, kind)
    tally = grouped()
    tally.install(engine)

    def told(progress: Progress) -> None:
        for _ in range(4):
            application.write()

    results = tally.backfill(engine, chunk_rows=5, workers=workers, told=told)
    assert_exact(engine, tally)
    application.end()
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)
    assert [each.rows is not None for each in results] == [True] * 3
    assert {status.phase for status in tally.status(engine)} == {"kept"}


@pytest.mark.parametrize(("kind", "workers"), KINDS)
def test_ordered_beside_writers(connect: Connect, engine: Engine, kind: str, workers: int) -> None:
    application = Application(connect, kind)
    tally = ordered(application)

    def told(progress: Progress) -> None:
        for _ in range(4):
            application.write()

    with small_buckets():
        tally.install(engine)
        tally.backfill(engine, chunk_rows=7, workers=workers, told=told)
    assert_orders_exact(engine, tally)
    application.end()
    assert_orders_exact(engine, tally)
    tally.fold(engine)
    assert_orders_exact(engine, tally)
    assert {status.phase for status in tally.status(engine)} == {"kept"}


def reasons(connection: Connection, name: str) -> list[str]:
    """Why backfills of an aggregate have begun, in order."""
    query = "SELECT detail ->> 'why' FROM tally.event WHERE what = 'backfill begins' AND aggregate = %s ORDER BY id"
    return [why for (why,) in connection.execute(query, [name]).fetchall()]


@pytest.fixture
def application(connect: Connect) -> Application:
    return Application(connect, "bigint")


@pytest.fixture
def tally(engine: Engine, application: Application) -> Iterator[Tally]:
    """A grouped and an ordered aggregate over the application's table, installed."""
    tally = ordered(application, "by_size")
    tally.grouped("by_place", GROUPED["by_place"])
    with small_buckets():
        tally.install(engine)
        yield tally


def assert_all_exact(engine: Engine, tally: Tally) -> None:
    assert_exact(engine, tally)
    assert_orders_exact(engine, tally)


NAMES = ["by_place", "by_size"]
# Rows that are told of, in chunks of ten. A fifth has no place, so is in no order; the last counts as a whole one.
TOLD = {"by_place": ROWS, "by_size": 50}


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_where_it_was_stopped(application: Application, engine: Engine, tally: Tally, name: str) -> None:
    with pytest.raises(Stopped):
        tally.backfill(engine, only=[name], chunk_rows=10, told=stop_after(4))
    for _ in range(8):
        application.write()
    application.end()
    assert_all_exact(engine, tally)  # readers are served by the source
    seen: list[Progress] = []
    (result,) = tally.backfill(engine, only=[name], chunk_rows=10, told=seen.append)
    assert seen[0].done >= 50  # four chunks before, and one
    assert result.rows is not None
    assert result.rows < ROWS
    assert reasons(application.connection, name) == ["nothing is kept yet"]
    assert_all_exact(engine, tally)


@pytest.mark.parametrize("name", NAMES)
def test_leaves_alone_what_is_complete_unless_forced(
    application: Application, engine: Engine, tally: Tally, name: str
) -> None:
    tally.backfill(engine)
    (again,) = tally.backfill(engine, only=[name])
    assert again.rows is None
    (forced,) = tally.backfill(engine, only=[name], force=True, chunk_rows=10)
    assert forced.rows == TOLD[name]
    assert (forced.groups, again.unit) == (again.groups, forced.unit)
    assert reasons(application.connection, name) == ["nothing is kept yet", "it was asked for"]
    assert_all_exact(engine, tally)


@pytest.mark.parametrize("name", NAMES)
def test_a_truncate_begins_it_anew(application: Application, engine: Engine, tally: Tally, name: str) -> None:
    def truncate() -> None:
        application.connection.execute("TRUNCATE item")
        application.connection.execute("INSERT INTO item SELECT i, 1, 'new', i, i FROM generate_series(1, 30) AS s (i)")

    tally.backfill(engine, only=[name], chunk_rows=10, told=after(3, truncate))
    assert reasons(application.connection, name) == ["nothing is kept yet", "public.item was truncated"]
    assert_all_exact(engine, tally)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("by_place", "VACUUM FULL item"),
        ("by_size", "VACUUM FULL item"),
        ("by_place", "ALTER TABLE item ADD COLUMN more integer DEFAULT (random() * 10)::integer"),
        ("by_size", "ALTER TABLE item ADD COLUMN more integer DEFAULT (random() * 10)::integer"),
        ("by_place", "ALTER TABLE item RENAME TO thing"),
        ("by_place", "ALTER TABLE item RENAME COLUMN id TO number"),
    ],
)
def test_goes_on_beside_changes_of_the_table(
    application: Application, engine: Engine, tally: Tally, name: str, change: LiteralString
) -> None:
    if "RENAME" in change:  # reads of ordered aggregates name the source's columns
        tally.uninstall(engine, only=["by_size"])
    back: LiteralString = "ALTER TABLE thing RENAME TO item" if change.endswith("thing") else "SELECT"
    tally.backfill(engine, only=[name], chunk_rows=10, told=after(3, lambda: application.connection.execute(change)))
    assert len(reasons(application.connection, name)) == 1
    application.connection.execute(back)  # the oracle is the declared text
    assert_exact(engine, tally)
    if "RENAME" not in change:
        assert_orders_exact(engine, tally)


def test_another_primary_key_begins_it_anew(application: Application, engine: Engine, tally: Tally) -> None:
    def change() -> None:
        application.connection.execute(
            "ALTER TABLE item DROP CONSTRAINT item_pkey,"
            " ADD COLUMN other bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
        )
        application.connection.execute("ALTER TABLE item ALTER id DROP NOT NULL")
        application.connection.execute("UPDATE item SET id = NULL, size = 100 WHERE id % 2 = 0")

    tally.backfill(engine, only=["by_place"], chunk_rows=10, told=after(3, change))
    assert reasons(application.connection, "by_place")[1:] == [
        "changes were captured without the primary key that public.item has now"
    ]
    assert_exact(engine, tally)


def test_afterwards_the_primary_key_is_the_applications_own(
    application: Application, engine: Engine, tally: Tally
) -> None:
    """While the backfill is due, PostgreSQL refuses to change the type of the key; afterwards nothing is left of it."""
    alter = "ALTER TABLE item ALTER COLUMN id TYPE numeric"
    only = Tally()
    only.grouped("by_place", GROUPED["by_place"])
    tally.uninstall(engine, only=["by_size"])
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        application.connection.execute(alter)
    only.backfill(engine)
    application.connection.execute(alter)
    application.connection.execute("UPDATE item SET id = id + 0.5, size = size + 1 WHERE id % 2 = 0")
    assert_exact(engine, only)
    # Chunks are of the type that it had: without them, one snapshot.
    only.backfill(engine, force=True)
    assert_exact(engine, only)


def test_places_are_forgotten_by_a_later_fold_if_a_writer_is_in_the_way(
    application: Application, engine: Engine, tally: Tally
) -> None:
    writer = application.others[0]
    writer.execute("UPDATE item SET size = 50 WHERE id = 7")
    tally.backfill(engine, only=["by_place"])
    there = "SELECT to_regclass('tally.by_place__places') IS NOT NULL"
    assert application.connection.execute(there).fetchone() == (True,)
    writer.execute("UPDATE item SET id = 1007, size = 51 WHERE id = 7")
    assert_exact(engine, tally)
    writer.commit()
    assert_exact(engine, tally)
    tally.fold(engine, only=["by_place"])
    assert application.connection.execute(there).fetchone() == (False,)
    application.connection.execute("UPDATE item SET id = 7, size = 52 WHERE id = 1007")
    assert_exact(engine, tally)


@pytest.mark.parametrize("name", NAMES)
def test_deltas_are_left_to_the_backfill_by_folds(
    application: Application, engine: Engine, tally: Tally, name: str
) -> None:
    def told(progress: Progress) -> None:
        application.write()
        tally.fold(engine, only=[name])

    tally.backfill(engine, only=[name], chunk_rows=5, told=told)
    assert_all_exact(engine, tally)


def test_without_a_primary_key_in_one_snapshot(
    connect: Connect, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    application = Application(connect, "bigint")
    application.connection.execute("ALTER TABLE item DROP CONSTRAINT item_pkey")
    tally = grouped()
    tally.install(engine)
    application.others[0].execute("INSERT INTO item VALUES (1000, 1, 'late', 2, 3)")
    tally.backfill(engine)
    assert "has no primary key" in caplog.text
    assert_exact(engine, tally)
    application.end()
    assert_exact(engine, tally)
    assert [each.rows for each in tally.backfill(engine)] == [None] * 3
    application.connection.execute("TRUNCATE tally.event")
    (result,) = tally.backfill(engine, only=["by_place"], force=True)
    recorded = application.connection.execute("SELECT what, aggregate, detail FROM tally.event").fetchall()
    assert recorded == [("backfill", "by_place", {"groups": result.groups})]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_share_one(application: Application, engine: Engine, tally: Tally, name: str) -> None:
    """Another one begins, counts and ends while this one counts."""
    others: list[int | None] = []

    def other() -> None:
        (result,) = tally.backfill(engine, only=[name], chunk_rows=10)
        others.append(result.rows)

    (result,) = tally.backfill(engine, only=[name], chunk_rows=10, told=after(2, other))
    assert (result.rows, others) == (20, [TOLD[name] - 20])
    assert reasons(application.connection, name) == ["nothing is kept yet"]
    assert_all_exact(engine, tally)


def test_a_forced_one_beside_another(application: Application, engine: Engine, tally: Tally) -> None:
    """What the first has counted is void; both go on with what the second has begun."""

    def other() -> None:
        with pytest.raises(Stopped):
            tally.backfill(engine, only=["by_place"], chunk_rows=10, force=True, told=stop_after(2, application.write))

    tally.backfill(engine, only=["by_place"], chunk_rows=10, told=after(3, other))
    assert reasons(application.connection, "by_place") == ["nothing is kept yet", "it was asked for"]
    assert_exact(engine, tally)
    application.end()
    assert_exact(engine, tally)


def test_rows_a_second_are_kept_to(application: Application, engine: Engine, tally: Tally) -> None:
    seen: list[Progress] = []
    tally.backfill(engine, only=["by_place"], chunk_rows=10, max_rows_per_second=100, told=seen.append)
    assert seen[-1].rate <= 150  # the last chunk is counted without the rest that follows it
    assert_exact(engine, tally)


@pytest.mark.parametrize("name", NAMES)
def test_ends_though_rows_come_behind_faster_than_it_counts(
    application: Application, engine: Engine, tally: Tally, name: str
) -> None:
    seen: list[Progress] = []
    behind = "INSERT INTO item SELECT i, 1000, 'k', i, 1 FROM generate_series(%(n)s * 100, %(n)s * 100 + 30) AS s (i)"

    def told(progress: Progress) -> None:
        seen.append(progress)
        assert len(seen) < ROWS
        application.connection.execute(behind, {"n": len(seen)})

    tally.backfill(engine, only=[name], chunk_rows=10, told=told)
    assert len(seen) <= ROWS // 10  # those of the rows that there were
    assert_all_exact(engine, tally)


PARTITIONED: LiteralString = """
CREATE TABLE entry (id bigint PRIMARY KEY, k integer, n integer) PARTITION BY RANGE (id);
CREATE TABLE low PARTITION OF entry FOR VALUES FROM (MINVALUE) TO (50);
CREATE TABLE high PARTITION OF entry FOR VALUES FROM (50) TO (1000);
INSERT INTO entry SELECT i, i % 4, i FROM generate_series(1, 99) AS s (i)
"""
IN_THE_MIDDLE: list[tuple[list[LiteralString], bool]] = [
    (
        ["UPDATE entry SET id = id + 100 WHERE id % 9 = 0", "UPDATE low SET n = -n", "DELETE FROM high WHERE k = 1"],
        False,
    ),
    (
        [
            "CREATE TABLE late (LIKE entry)",
            "INSERT INTO late SELECT i, 1, i FROM generate_series(1000, 1030) AS s (i)",
            "ALTER TABLE entry ATTACH PARTITION late FOR VALUES FROM (1000) TO (2000)",
            "UPDATE late SET k = 2 WHERE id < 1010",
        ],
        True,
    ),
    (["ALTER TABLE entry DETACH PARTITION low", "UPDATE low SET n = 1000"], True),
    (["TRUNCATE low", "INSERT INTO entry VALUES (7, 7, 7)"], True),
    (["TRUNCATE entry", "INSERT INTO entry VALUES (70, 7, 7)"], True),
]


@pytest.mark.parametrize(("changes", "is_anew"), IN_THE_MIDDLE)
@pytest.mark.parametrize("chunks", [1, 9])
def test_of_a_partitioned_table(
    connect: Connect, engine: Engine, changes: list[LiteralString], is_anew: bool, chunks: int
) -> None:
    application = connect(autocommit=True)
    application.execute(PARTITIONED)
    tally = Tally()
    tally.grouped("entries", "SELECT k, count(*) AS entries, max(n) AS most FROM public.entry GROUP BY k")
    entry = Table(
        "entry", MetaData(), Column("id", BigInteger, primary_key=True), Column("k", Integer), Column("n", Integer),
        schema="public",
    )  # fmt: skip
    tally.ordered("by_n", entry, namespace=[entry.c.k], key=[entry.c.n])

    def change() -> None:
        for statement in changes:
            application.execute(statement)

    with small_buckets():
        tally.install(engine)
        tally.backfill(engine, only=["entries"], chunk_rows=10, workers=2, told=after(chunks, change))
        assert len(reasons(application, "entries")) == 1 + is_anew
        assert {found.serving for found in tally.status(engine) if found.name == "entries"} == {"kept"}
        assert_exact(engine, tally)
        tally.backfill(engine, only=["by_n"], chunk_rows=7)
        assert_orders_exact(engine, tally)
        tally.fold(engine)
        assert_all_exact(engine, tally)


def test_of_an_empty_table(application: Application, engine: Engine, tally: Tally) -> None:
    application.connection.execute("DELETE FROM item")
    application.connection.execute("ANALYZE item")
    seen: list[Progress] = []
    results = tally.backfill(engine, told=seen.append)
    assert [(result.groups, result.rows) for result in results] == [(0, 0), (0, 0)]
    assert [(progress.done, progress.left_s) for progress in seen] == [(0, None), (0, None)]
    application.connection.execute("INSERT INTO item VALUES (1, 1, 'k1', 1, 1)")
    assert_all_exact(engine, tally)


def test_progress_tells_rate_and_time_left(application: Application, engine: Engine, tally: Tally) -> None:
    seen: list[Progress] = []
    application.connection.execute("ANALYZE item")
    tally.backfill(engine, only=["by_place"], chunk_rows=10, told=seen.append)
    assert [(progress.done, progress.total) for progress in seen] == [(rows, ROWS) for rows in range(10, ROWS + 1, 10)]
    left = [progress.left_s for progress in seen]
    assert None not in left
    assert left[-1] == 0
    assert all(progress.rate > 0 for progress in seen)


@pytest.mark.parametrize("left", [0, 7], ids=["nothing left", "a few left"])
def test_what_was_deleted_since_the_last_analyze_is_not_counted(
    application: Application, engine: Engine, tally: Tally, left: int
) -> None:
    """The last chunk has no size of its own. Were it all that PostgreSQL expects, a pace would make it rest as long."""
    application.connection.execute("ANALYZE item")
    application.connection.execute("DELETE FROM item WHERE id >= %s", [left])
    results = tally.backfill(engine, only=["by_place"], chunk_rows=5, workers=2)
    assert [each.rows is not None and left <= each.rows < left + 5 for each in results] == [True]
    assert_all_exact(engine, tally)
