"""Partitioned sources: whatever way a row comes into a partition, and a partition into the table, or out of it."""

import re
from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import Engine

from tallystick import Tally
from tallystick.errors import DeclarationError, NotWhole, UsageError
from tests.conftest import Connect
from tests.integration.events import (
    ATTACH,
    DECLARED,
    MARCH,
    OTHER,
    app,
    assert_kept,
    assert_served_by_source,
    serving,
    tally,
    template,
    uncounted,
)
from tests.oracle import assert_exact
from tests.servers import Connection

__all__ = ["app", "tally", "template"]  # fixtures

WRITES: list[LiteralString] = [
    "INSERT INTO event SELECT i, date '2024-01-01' + i % 55, i % 5, i, 'l' || i FROM generate_series(301, 400) AS i",
    "INSERT INTO january VALUES (1000, '2024-01-05', 1, 9, 'zz')",
    "INSERT INTO february_rest VALUES (1001, '2024-02-05', 4, -9, 'a')",
    "COPY event FROM PROGRAM 'printf \"1\\t2024-01-02\\t1\\t5\\tx\\n2\\t2024-02-02\\t3\\t6\\ty\\n\"'",
    "UPDATE event SET n = -n WHERE id % 7 = 0",
    "UPDATE event SET n = n + 1, label = 'moved' WHERE id % 9 = 0",
    "UPDATE event SET day = day + 31 WHERE day < '2024-01-10'",  # from partition to partition
    "UPDATE event SET k = (k + 3) % 5 WHERE id % 3 = 0",
    "UPDATE february SET k = 4 WHERE k = 0",
    "DELETE FROM event WHERE n = (SELECT max(n) FROM event)",
    "DELETE FROM february_low WHERE k = 1",
    "MERGE INTO event USING (VALUES (5, date '2024-01-06'), (9999, date '2024-02-06')) AS v (id, day)"
    " ON event.id = v.id WHEN MATCHED THEN DELETE"
    " WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.day, 2, 3, 'merged')",
    "TRUNCATE event",
    "BEGIN; TRUNCATE event; INSERT INTO event VALUES (1, '2024-01-01', 1, 1, 'a'); COMMIT",
    "BEGIN; INSERT INTO event VALUES (1, '2024-01-01', 1, 1, 'a'); SAVEPOINT s; TRUNCATE event; ROLLBACK TO s; COMMIT",
    "TRUNCATE january, event",
]


@pytest.mark.parametrize("write", WRITES)
def test_writes(app: Connection, engine: Engine, tally: Tally, write: LiteralString) -> None:
    app.execute(write)
    assert_kept(tally, engine)
    app.execute("INSERT INTO event VALUES (7, '2024-02-07', 3, 8, 'late')")
    assert_kept(tally, engine)


def test_writes_that_are_replayed(app: Connection, engine: Engine, tally: Tally, connect: Connect) -> None:
    replica = connect(autocommit=True)
    replica.execute("SET session_replication_role = replica")
    for write in WRITES:
        replica.execute(write)
        assert_kept(tally, engine)


def test_a_new_partition(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute(MARCH)
    assert_served_by_source(tally, engine, "partition march is not counted yet")
    app.execute("INSERT INTO event VALUES (1, '2024-03-02', 1, 1000, 'zzz'), (2, '2024-03-03', 1, 2, 'b')")
    app.execute("DELETE FROM event WHERE n = 1000")
    assert_served_by_source(tally, engine, "partition march is not counted yet")
    assert [result.adopted for result in tally.fold(engine)] == [("public.march",)] * 2
    app.execute("UPDATE march SET k = 4; INSERT INTO march VALUES (3, '2024-03-04', 0, 7, 'c')")
    assert_kept(tally, engine)


def test_a_partition_with_rows_is_attached(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute(OTHER)
    app.execute(ATTACH)
    app.execute("DELETE FROM event WHERE n = -20; INSERT INTO event VALUES (1, '2024-04-02', 1, -99, 'zzz')")
    app.execute("UPDATE april SET n = -n WHERE id % 2 = 0; UPDATE event SET day = '2024-04-09' WHERE id = 30")
    assert_served_by_source(tally, engine, "partition april is not counted yet")
    tally.fold(engine)
    app.execute("UPDATE event SET day = '2024-01-09' WHERE day > '2024-04-04'")
    assert_kept(tally, engine)


def test_what_is_counted_alone_goes_alone(app: Connection, engine: Engine, tally: Tally) -> None:
    """One aggregate that has not adopted yet does not hold up the others."""
    app.execute(MARCH)
    tally.fold(engine, only=["by_k"])
    assert {found.name: found.serving for found in tally.status(engine)} == {"by_k": "kept", "rows": "direct"}
    assert_exact(engine, tally)


@pytest.mark.parametrize("partition", ["january", "public.february", "february_low"])
def test_detach(app: Connection, engine: Engine, tally: Tally, partition: LiteralString) -> None:
    app.execute("UPDATE event SET n = n + 1 WHERE id < 50")
    assert tally.detach(engine, partition) == ["by_k", "rows"]
    name = partition.removeprefix("public.")
    assert app.execute("SELECT relispartition FROM pg_class WHERE relname = %s", [name]).fetchone() == (False,)
    leaf = sql.Identifier("february_low" if name == "february" else name)
    app.execute(sql.SQL("UPDATE {t} SET n = 5; INSERT INTO {t} SELECT * FROM {t} LIMIT 1").format(t=leaf))
    assert_kept(tally, engine)
    # It is a table like any other now, and can come back changed.
    app.execute(sql.SQL("TRUNCATE {t}").format(t=leaf))
    if name == "january":
        app.execute("INSERT INTO january VALUES (1, '2024-01-05', 1, 3, 'a')")
        app.execute("ALTER TABLE event ATTACH PARTITION january FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')")
        tally.fold(engine)
    assert_kept(tally, engine)
    told = app.execute(
        "SELECT what, aggregate FROM tally.event WHERE what IN ('detach', 'adopt') ORDER BY id"
    ).fetchall()
    expected = ["detach", "adopt"] if name == "january" else ["detach"]
    assert told == [(what, aggregate) for what in expected for aggregate in ("by_k", "rows")]


BEHIND_OUR_BACK: list[tuple[LiteralString, str]] = [
    ("ALTER TABLE event DETACH PARTITION january", "partition january is no longer the one that was counted"),
    ("DROP TABLE january", "is no longer the one that was counted"),
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
    assert_exact(engine, tally)
    with pytest.raises(NotWhole, match="Run: tally backfill by_k"):
        tally.fold(engine, only=["by_k"])
    app.execute("DELETE FROM event WHERE id % 3 = 0")
    assert_exact(engine, tally)
    tally.backfill(engine)
    assert_kept(tally, engine)


def test_a_partition_comes_and_goes_between_two_folds(app: Connection, engine: Engine, tally: Tally) -> None:
    """Found by the state machine: what was written to it was counted, though it never was."""
    app.execute(OTHER)
    app.execute(ATTACH)
    app.execute("UPDATE event SET day = '2024-01-09' WHERE day = '2024-04-05' AND id < 9")
    app.execute("INSERT INTO april VALUES ('a', 1, 1, '2024-04-05', 1)")
    app.execute("ALTER TABLE event DETACH PARTITION april")
    assert_kept(tally, engine)
    app.execute("UPDATE april SET n = 0")
    app.execute(ATTACH)
    tally.fold(engine)
    assert_kept(tally, engine)


def test_truncated_in_a_transaction_that_goes_on(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute(
        "BEGIN; TRUNCATE event; INSERT INTO event VALUES (1, '2024-02-02', 1, 1, 'a'); TRUNCATE january; COMMIT"
    )
    assert_kept(tally, engine)  # january was empty already


def test_a_truncation_that_is_rolled_back(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute("BEGIN; SAVEPOINT s; TRUNCATE january; ROLLBACK TO s; DELETE FROM january; COMMIT")
    assert_kept(tally, engine)


@pytest.mark.parametrize(
    ("come", "why"),
    [
        (
            "CREATE UNLOGGED TABLE march PARTITION OF event FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')",
            "partition public.march is UNLOGGED",
        ),
        (
            "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;"
            "CREATE FOREIGN TABLE march PARTITION OF event FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')"
            " SERVER nowhere",
            "partition public.march is a foreign table",
        ),
    ],
)
def test_partitions_that_cannot_be_counted(
    app: Connection, engine: Engine, tally: Tally, come: LiteralString, why: str
) -> None:
    app.execute(come)
    assert serving(tally, engine) == {"direct"}
    for operation in (tally.fold, tally.backfill):
        with pytest.raises(NotWhole, match=re.escape(why)):
            operation(engine)
    other = Tally(schema="other")
    other.grouped("by_k", DECLARED["by_k"])
    with pytest.raises(DeclarationError, match=re.escape(why.replace("march", "march of public.event"))):
        other.install(engine)
    app.execute("ALTER TABLE event DETACH PARTITION march")
    assert_kept(tally, engine)


def test_detach_of_what_is_no_partition(app: Connection, engine: Engine, tally: Tally) -> None:
    for name in ("event", "nothing", 'odd "name"'):
        with pytest.raises(UsageError, match="is not a partition"):
            tally.detach(engine, name)
    app.execute("CREATE TABLE other (id integer) PARTITION BY LIST (id); CREATE TABLE o1 PARTITION OF other DEFAULT")
    with pytest.raises(UsageError, match=r"ALTER TABLE public[.]other DETACH PARTITION public[.]o1"):
        tally.detach(engine, "o1")


def test_a_partition_is_no_source(app: Connection, engine: Engine) -> None:
    tally = Tally()
    tally.grouped("january", "SELECT k, count(*) AS events FROM january GROUP BY k")
    with pytest.raises(DeclarationError, match="part of an inheritance tree or a partition"):
        tally.install(engine)


def test_a_branch_can_be_a_source(app: Connection, engine: Engine, tally: Tally) -> None:
    """Rows come into it through the whole tree; a TRUNCATE of the whole is one of the branch."""
    branch = Tally(schema="branch")
    branch.grouped("february", "SELECT k, count(*) AS events, max(n) AS greatest FROM february GROUP BY k")
    branch.install(engine)
    branch.backfill(engine)
    for write in WRITES:
        app.execute(write)
        assert_kept(branch, engine)


def test_uninstall_after_a_detach(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute("ALTER TABLE event DETACH PARTITION january")
    tally.uninstall(engine)
    assert app.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (0,)
    app.execute("INSERT INTO event VALUES (1, '2024-02-02', 1, 1, 'a'); TRUNCATE january; TRUNCATE event")
    assert app.execute("SELECT count(*) FROM tally.partition").fetchone() == (0,)


def test_a_disabled_trigger_of_a_partition_is_found(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute("ALTER TABLE january DISABLE TRIGGER tally_rows__insert")
    (found,) = [finding for finding in tally.doctor(engine) if finding.level == "error"]
    assert found.what == 'trigger "tally_rows__insert" on public.january is disabled'
    assert found.remedy.startswith('ALTER TABLE public.january ENABLE ALWAYS TRIGGER "tally_rows__insert"')
