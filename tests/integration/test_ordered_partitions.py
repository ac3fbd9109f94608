"""Ordered aggregates over partitioned sources: partitions that come, go and are emptied, and indexes built for each."""

import re
from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import BigInteger, Column, Date, Engine, Integer, MetaData, Numeric, Table, Text, create_engine
from sqlalchemy.pool import NullPool

from tallystick import Tally
from tallystick.errors import NotWhole
from tests.conftest import Connect
from tests.integration.events import serving, uncounted
from tests.order_oracle import assert_orders_exact, assert_reads, serves_buckets, small_buckets
from tests.servers import Connection, Server

TABLES: LiteralString = """
CREATE TABLE event (id bigint, day date, k integer, n numeric, label text, PRIMARY KEY (id, day, k))
    PARTITION BY RANGE (day);
CREATE TABLE january PARTITION OF event FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE february PARTITION OF event FOR VALUES FROM ('2024-02-01') TO ('2024-03-01') PARTITION BY LIST (k);
CREATE TABLE february_low PARTITION OF february FOR VALUES IN (0, 1, 2);
CREATE TABLE february_rest PARTITION OF february DEFAULT;
INSERT INTO event SELECT i, date '2024-01-01' + i % 55, i % 5, i % 9 * 1.5, 'l' || i % 7
FROM generate_series(1, 60) AS i;
"""
# Its columns stand in another order, with a gap.
OTHER: LiteralString = """
CREATE TABLE april (label text, gap integer, n numeric, k integer NOT NULL, day date NOT NULL, id bigint NOT NULL);
ALTER TABLE april DROP COLUMN gap;
INSERT INTO april (id, day, k, n, label) SELECT i, '2024-04-05', i % 3, -i, 'l' || i FROM generate_series(1, 20) AS i
"""
ATTACH: LiteralString = "ALTER TABLE event ATTACH PARTITION april FOR VALUES FROM ('2024-04-01') TO ('2024-05-01')"
MARCH: LiteralString = "CREATE TABLE march PARTITION OF event FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')"
EVENT = Table(
    "event", MetaData(), Column("id", BigInteger, primary_key=True), Column("day", Date, primary_key=True),
    Column("k", Integer, primary_key=True), Column("n", Numeric), Column("label", Text), schema="public",
)  # fmt: skip
NAMES = ["by_k", "by_n"]
LATE: LiteralString = "INSERT INTO event VALUES (7000, '2024-02-07', 3, 8, 'late')"
WRITES: list[LiteralString] = [
    "INSERT INTO event SELECT i, date '2024-01-01' + i % 55, i % 5, i % 8, 'l' FROM generate_series(301, 340) AS i",
    "INSERT INTO january VALUES (1000, '2024-01-05', 1, 9, 'zz'); INSERT INTO february_rest VALUES"
    " (1001, '2024-02-05', 4, -9, 'a')",
    "COPY event FROM PROGRAM 'printf \"1000\\t2024-01-02\\t1\\t5\\tx\\n1000\\t2024-02-02\\t3\\t\\\\N\\ty\\n\"'",
    "UPDATE event SET n = -n WHERE id % 7 = 0; UPDATE event SET n = n + 1, label = 'moved' WHERE id % 9 = 0",
    "UPDATE event SET day = day + 31 WHERE day < '2024-01-10'",  # from partition to partition
    "UPDATE event SET k = (k + 3) % 5 WHERE id % 3 = 0; UPDATE february SET k = 4 WHERE k = 0",
    "DELETE FROM event WHERE n = (SELECT max(n) FROM event); DELETE FROM february_low WHERE k = 1",
    "MERGE INTO event USING (VALUES (5, date '2024-01-06', 0), (9999, date '2024-02-06', 2)) AS v (id, day, k)"
    " ON event.id = v.id WHEN MATCHED THEN DELETE"
    " WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.day, v.k, 3, 'merged')",
    "INSERT INTO event SELECT id, day, k, n + 1, 'up' FROM event WHERE id < 9"
    " ON CONFLICT (id, day, k) DO UPDATE SET n = excluded.n, label = 'up'",
    "BEGIN; INSERT INTO event VALUES (1, '2024-01-01', 1, 1, 'a'); SAVEPOINT s; TRUNCATE event; ROLLBACK TO s; COMMIT",
    "BEGIN; TRUNCATE event; INSERT INTO event VALUES (1, '2024-01-01', 1, 1, 'a'); COMMIT",
    "TRUNCATE january, event",
]  # fmt: skip


def declared() -> Tally:
    tally, event = Tally(), EVENT.c
    tally.ordered("by_k", EVENT, namespace=[event.k], key=[event.day], sums={"n": event.n})
    tally.ordered("by_n", EVENT, key=[event.n.desc(), event.label], where=event.n > -15)
    return tally


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """Name of a template database with the tables and their aggregates, serving their kept half."""

    def build(connection: Connection) -> None:
        connection.execute(TABLES)
        connection.commit()
        engine = create_engine(server.url(connection.info.dbname), poolclass=NullPool)
        tally = declared()
        with small_buckets():
            tally.install(engine)
        tally.backfill(engine)

    return server.template("partitions in order", build)


@pytest.fixture
def app(connect: Connect) -> Connection:
    return connect(autocommit=True)


@pytest.fixture
def tally(app: Connection) -> Tally:
    return declared()


def assert_kept(tally: Tally, engine: Engine, *, is_emptied: bool = False) -> None:
    """Readers are served the kept half, after a TRUNCATE of all from the next fold on; exact, and nothing is amiss."""
    assert serving(tally, engine) == {"direct" if is_emptied else "kept"}
    assert_orders_exact(engine, tally)
    tally.fold(engine)
    assert serving(tally, engine) == {"kept"}
    assert_orders_exact(engine, tally)
    assert all(report.is_exact for report in tally.verify(engine))
    assert not [finding for finding in tally.doctor(engine) if finding.level == "error"]


def empties(write: str) -> bool:
    return "TRUNCATE" in write and "ROLLBACK" not in write


def assert_served_by_source(app: Connection, tally: Tally, engine: Engine, why: str) -> None:
    assert serving(tally, engine) == {"direct"}
    assert uncounted(tally, engine) == {why}
    assert not any(serves_buckets(app, aggregate) for aggregate in tally.orders.values())
    assert_orders_exact(engine, tally)


def order_indexes(app: Connection) -> dict[str, bool]:
    """Tables that have an index of ours, and whether all of it is valid."""
    return dict(
        app.execute(
            "SELECT indrelid::regclass::text, bool_and(indisvalid) FROM pg_index"
            " JOIN pg_class ON oid = indexrelid WHERE relname LIKE 'tally%' OR EXISTS (SELECT FROM pg_inherits AS i"
            " JOIN pg_class AS p ON p.oid = i.inhparent WHERE inhrelid = indexrelid AND p.relname LIKE 'tally%')"
            " GROUP BY 1"
        ).fetchall()
    )


def test_the_stage_is_set(app: Connection, engine: Engine, tally: Tally) -> None:
    assert all(serves_buckets(app, aggregate) for aggregate in tally.orders.values())
    for aggregate in tally.orders.values():
        assert_reads(engine, aggregate)


@pytest.mark.parametrize("write", WRITES)
def test_writes(app: Connection, engine: Engine, tally: Tally, write: LiteralString) -> None:
    app.execute(write)
    assert_kept(tally, engine, is_emptied=empties(write))
    app.execute(LATE)
    assert_kept(tally, engine)


def test_writes_that_are_replayed(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute("SET session_replication_role = replica")
    for number, write in enumerate(WRITES, start=1):
        app.execute(write)
        if number % 3 == 0 or number == len(WRITES):
            assert_kept(tally, engine, is_emptied=any(map(empties, WRITES[number - 3 : number])))


def test_a_new_partition(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute(MARCH)
    assert_served_by_source(app, tally, engine, "partition march is not counted yet")
    app.execute("INSERT INTO event VALUES (1, '2024-03-02', 1, 1000, 'zzz'), (2, '2024-03-03', 1, 2, 'b')")
    app.execute("DELETE FROM event WHERE n = 1000")
    assert_served_by_source(app, tally, engine, "partition march is not counted yet")
    assert [result.adopted for result in tally.fold(engine)] == [("public.march",)] * 2
    app.execute("UPDATE march SET k = 4; INSERT INTO march VALUES (3, '2024-03-04', 0, 7, 'c')")
    assert_kept(tally, engine)
    assert order_indexes(app)["march"]


def test_a_partition_with_rows_is_attached(app: Connection, engine: Engine, tally: Tally) -> None:
    """Its rows lie between those of the others, in every namespace, and its columns in another order."""
    app.execute(OTHER)
    app.execute(ATTACH)
    app.execute("DELETE FROM event WHERE n = -20; INSERT INTO event VALUES (1, '2024-04-02', 1, -99, 'zzz')")
    app.execute("UPDATE april SET n = -n WHERE id % 2 = 0; UPDATE event SET day = '2024-04-09' WHERE id = 30")
    assert_served_by_source(app, tally, engine, "partition april is not counted yet")
    tally.fold(engine)
    app.execute("UPDATE event SET day = '2024-01-09' WHERE day > '2024-04-04' AND id > 10")
    assert_kept(tally, engine)
    assert all(serves_buckets(app, aggregate) for aggregate in tally.orders.values())


@pytest.mark.parametrize("partition", ["january", "public.february", "february_low"])
def test_detach(app: Connection, engine: Engine, tally: Tally, partition: LiteralString) -> None:
    app.execute("UPDATE event SET n = n + 1 WHERE id < 50")
    assert tally.detach(engine, partition) == NAMES
    name = partition.removeprefix("public.")
    assert app.execute("SELECT relispartition FROM pg_class WHERE relname = %s", [name]).fetchone() == (False,)
    assert_kept(tally, engine)
    leaf = sql.Identifier("february_low" if name == "february" else name)
    app.execute(sql.SQL("UPDATE {t} SET n = 5").format(t=leaf))
    assert_kept(tally, engine)
    # It is a table like any other now, and can come back changed.
    app.execute(sql.SQL("TRUNCATE {t}").format(t=leaf))
    if name == "january":
        app.execute("INSERT INTO january VALUES (1, '2024-01-05', 1, 3, 'a')")
        app.execute("ALTER TABLE event ATTACH PARTITION january FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')")
        tally.fold(engine)
    assert_kept(tally, engine)


BEHIND_OUR_BACK: list[tuple[LiteralString, str]] = [
    ("ALTER TABLE event DETACH PARTITION january", "partition january is no longer the one that was counted"),
    ("DROP TABLE february", "is no longer the one that was counted"),
    ("TRUNCATE january", "partition january was truncated by itself"),
    (
        "TRUNCATE event; INSERT INTO january VALUES (1, '2024-01-01', 1, 1, 'a'); TRUNCATE january",
        "truncated by itself",
    ),
    (
        "ALTER TABLE event DETACH PARTITION january; UPDATE january SET n = 0;"
        "ALTER TABLE event ATTACH PARTITION january FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')",
        "partition january is no longer the one that was counted",
    ),
]


@pytest.mark.parametrize(("change", "why"), BEHIND_OUR_BACK)
def test_behind_our_back(app: Connection, engine: Engine, tally: Tally, change: LiteralString, why: str) -> None:
    """Served by the source until it is backfilled; a fold says so and does nothing."""
    app.execute(change)
    assert serving(tally, engine) == {"direct"}
    assert all(why in each for each in uncounted(tally, engine))
    assert_orders_exact(engine, tally)
    assert {report.status for report in tally.verify(engine)} == {"uncounted"}
    with pytest.raises(NotWhole, match="Run: tally backfill by_k"):
        tally.fold(engine, only=["by_k"])
    app.execute("DELETE FROM event WHERE id % 3 = 0")
    assert_orders_exact(engine, tally)
    tally.backfill(engine)
    assert_kept(tally, engine)


def test_a_partition_truncated_before_an_older_snapshot(app: Connection, engine: Engine, connect: Connect) -> None:
    """The older snapshot sees the partition empty, and no marker."""
    old = connect()
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT FROM pg_class")
    app.execute("TRUNCATE january")
    app.execute("INSERT INTO january VALUES (1, '2024-01-05', 1, 3, 'a')")
    query: LiteralString = "SELECT count(*), tally.by_n_count() FROM event WHERE n > -15 AND label IS NOT NULL"
    seen = old.execute(query).fetchone()
    assert seen is not None
    assert seen[0] == seen[1]


def test_a_partition_comes_and_goes_between_two_folds(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute(OTHER)
    app.execute(ATTACH)
    app.execute("UPDATE event SET day = '2024-01-09' WHERE day = '2024-04-05' AND id BETWEEN 6 AND 9")
    app.execute("INSERT INTO april VALUES ('a', 1, 1, '2024-04-06', 1)")
    app.execute("ALTER TABLE event DETACH PARTITION april")
    assert_kept(tally, engine)
    app.execute("UPDATE april SET n = 0")
    app.execute(ATTACH)
    tally.fold(engine)
    assert_kept(tally, engine)


def test_partitions_that_cannot_be_counted(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute(MARCH.replace("CREATE", "CREATE UNLOGGED").encode())
    assert serving(tally, engine) == {"direct"}
    for operation in (tally.fold, tally.backfill):
        with pytest.raises(NotWhole, match=re.escape("partition public.march is UNLOGGED")):
            operation(engine)
    app.execute("ALTER TABLE event DETACH PARTITION march")
    assert_kept(tally, engine)


def test_the_index_is_one_for_each_partition(app: Connection, engine: Engine, tally: Tally) -> None:
    """Built beside writers, valid as a whole, gone with the last aggregate that needs it."""
    everywhere = {"event", "january", "february", "february_low", "february_rest"}
    assert order_indexes(app) == dict.fromkeys(everywhere, True)
    tally.uninstall(engine)
    assert order_indexes(app) == {}
    writer = app
    with writer.transaction():
        tally.plan(engine)
    tally.install(engine)
    assert order_indexes(app) == dict.fromkeys(everywhere, True)
    tally.backfill(engine)
    assert_kept(tally, engine)


def test_uninstall_after_a_detach(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute("ALTER TABLE event DETACH PARTITION january")
    tally.uninstall(engine)
    assert app.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (0,)
    app.execute("INSERT INTO event VALUES (1, '2024-02-02', 1, 1, 'a'); TRUNCATE january; TRUNCATE event")
    assert app.execute("SELECT count(*) FROM tally.partition").fetchone() == (0,)
