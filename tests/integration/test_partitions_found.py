"""Partitions: what a review found. Each was once wrong, or failed or blocked a user's statement."""

from collections.abc import Callable
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from tallystick import Tally
from tallystick.errors import InstallError, NotWhole
from tallystick.maintain import partitions
from tests.conftest import Connect
from tests.integration.events import MARCH, app, assert_kept, assert_served_by_source, serving, tally, template
from tests.oracle import assert_exact
from tests.servers import Connection
from tests.stepping import Session

__all__ = ["app", "tally", "template"]  # fixtures
AGAIN: LiteralString = "ALTER TABLE event ATTACH PARTITION january FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_ATTEMPTS", 2)
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_PAUSE_S", 0.01)
    monkeypatch.setattr("tallystick.store.locks.TRIES", 2)


def test_two_folds_adopt_once(app: Connection, engine: Engine, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes between what the first has seen and what it does."""
    app.execute(MARCH)
    app.execute("INSERT INTO event VALUES (1, '2024-03-02', 1, 1000, 'zzz'), (2, '2024-03-03', 1, 2, 'b')")
    prepare = partitions.prepare

    def prepare_and_fold(*given: object) -> None:
        monkeypatch.setattr(partitions, "prepare", prepare)
        tally.fold(engine)
        prepare(*given)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(partitions, "prepare", prepare_and_fold)
    tally.fold(engine)
    assert_kept(tally, engine)


def test_truncated_then_detached(app: Connection, engine: Engine, tally: Tally) -> None:
    """What the state holds of it cannot be counted out any more, so it is not."""
    app.execute("TRUNCATE january")
    with pytest.raises(NotWhole, match="truncated by itself, so it cannot be counted out"):
        tally.detach(engine, "january")
    app.execute("ALTER TABLE event DETACH PARTITION january")
    app.execute(AGAIN)
    assert serving(tally, engine) == {"direct"}
    with pytest.raises(NotWhole):
        tally.fold(engine)
    assert_exact(engine, tally)
    tally.backfill(engine)
    assert_kept(tally, engine)
    tally.detach(engine, "january")
    assert_kept(tally, engine)


def test_a_new_partition_is_truncated(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute(MARCH)
    tally.fold(engine, only=["rows"])
    app.execute("INSERT INTO event VALUES (1, '2024-03-02', 1, 1000, 'zzz'); TRUNCATE march")
    tally.backfill(engine, only=["rows"])
    tally.fold(engine)
    assert_kept(tally, engine)


def test_a_detached_partition_is_a_table_like_any_other(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute("ALTER TABLE event DETACH PARTITION february")
    app.execute("TRUNCATE february; INSERT INTO february_low VALUES (1, '2024-02-02', 1, 1, 'a')")
    app.execute("TRUNCATE february_low")
    tally.backfill(engine)
    assert_kept(tally, engine)
    found = app.execute("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'february_low'::regclass").fetchone()
    assert found == (0,)


def test_detach_concurrently(app: Connection, engine: Engine, tally: Tally, session: Callable[[], Session]) -> None:
    """While it is pending, the partition is no part of the table, and its triggers still fire."""
    reader, detacher = session(), session()
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ").result()
    reader.run("SELECT count(*) FROM event").result()
    detaching = detacher.run("ALTER TABLE event DETACH PARTITION january CONCURRENTLY")
    assert detaching.waiting
    app.execute("INSERT INTO january VALUES (1, '2024-01-05', 1, 9, 'zz')")
    app.execute("UPDATE january SET n = 1 WHERE id % 2 = 0; DELETE FROM january WHERE id % 3 = 0")
    assert serving(tally, engine) == {"direct"}
    reader.run("COMMIT").result()
    detaching.result()
    app.execute("TRUNCATE january")
    assert_exact(engine, tally)
    tally.backfill(engine)
    assert_kept(tally, engine)


BESIDE: list[tuple[LiteralString, LiteralString]] = [
    ("CREATE TABLE rest PARTITION OF event DEFAULT", "SELECT count(*) FROM rest"),
    (
        "CREATE TABLE kind (k integer PRIMARY KEY); INSERT INTO kind VALUES (0), (1), (2), (3), (4);"
        "ALTER TABLE event ADD FOREIGN KEY (k) REFERENCES kind",
        "UPDATE kind SET k = 9 WHERE k = 8",
    ),
]


@pytest.mark.parametrize(("setup", "use"), BESIDE, ids=["default partition", "foreign key"])
def test_detach_queues_for_nothing(
    app: Connection, engine: Engine, tally: Tally, connect: Connect, setup: LiteralString, use: LiteralString
) -> None:
    """DETACH locks more than the two tables; writers and readers of the others must not wait behind it."""
    app.execute(setup)
    tally.fold(engine)
    busy = connect()
    busy.execute(use)
    with pytest.raises(InstallError, match="could not be locked"):
        tally.detach(engine, "january")
    app.execute("SET lock_timeout = '1ms'")
    app.execute("INSERT INTO event VALUES (7, '2024-02-07', 3, 8, 'late')")
    assert_exact(engine, tally)
    busy.rollback()
    tally.fold(engine)
    assert_kept(tally, engine)
    tally.detach(engine, "january")
    assert_kept(tally, engine)


RENAMES: dict[str, LiteralString] = {
    "column": "ALTER TABLE event RENAME COLUMN n TO amount; ALTER TABLE event RENAME COLUMN k TO kind",
    "table": "ALTER TABLE event RENAME TO happening",
    "schema": "CREATE SCHEMA elsewhere; ALTER TABLE event SET SCHEMA elsewhere;"
    "ALTER TABLE january SET SCHEMA elsewhere",
}


@pytest.mark.parametrize("what", RENAMES)
def test_after_a_rename(app: Connection, engine: Engine, tally: Tally, what: str) -> None:
    """Adopting and releasing follow, as everything else does."""
    app.execute(RENAMES[what])
    app.execute("SET search_path = elsewhere, public")
    event: LiteralString = "happening" if what == "table" else "event"
    app.execute(sql.SQL("CREATE TABLE march PARTITION OF {} FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')").format(
        sql.Identifier(event)))  # fmt: skip
    app.execute(sql.SQL("INSERT INTO {} VALUES (1, '2024-03-02', 1, 7, 'a')").format(sql.Identifier(event)))
    tally.fold(engine)
    tally.detach(engine, "elsewhere.january" if what == "schema" else "january")
    assert serving(tally, engine) == {"kept"}
    assert all(report.is_exact for report in tally.verify(engine))
    tally.fold(engine)
    assert all(report.is_exact for report in tally.verify(engine))


def test_a_truncation_that_goes_on_to_the_whole(
    app: Connection, engine: Engine, tally: Tally, session: Callable[[], Session]
) -> None:
    """A fold that waited for it would make the user the victim of a deadlock."""
    app.execute(MARCH)
    user = session()
    user.run("BEGIN").result()
    user.run("TRUNCATE march").result()
    with pytest.raises(InstallError, match="could not be locked"):
        tally.fold(engine)
    whole = user.run("TRUNCATE event")
    assert not whole.waiting
    user.run("COMMIT").result()
    tally.fold(engine)
    assert_kept(tally, engine)


def test_a_branch_without_partitions(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute("CREATE TABLE march PARTITION OF event FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')"
                " PARTITION BY LIST (k)")  # fmt: skip
    assert_served_by_source(tally, engine, "partition march is not counted yet")
    tally.fold(engine)
    assert_kept(tally, engine)
    app.execute(
        "CREATE TABLE march_rest PARTITION OF march DEFAULT; INSERT INTO event VALUES (1, '2024-03-02', 1, 7, 'a')"
    )
    tally.fold(engine)
    assert_kept(tally, engine)


def test_a_partition_of_another_owner(
    app: Connection, engine: Engine, tally: Tally, make_role: Callable[[], str]
) -> None:
    """Superusers do not care; writers neither."""
    app.execute(sql.SQL("ALTER TABLE january OWNER TO {}").format(sql.Identifier(make_role())))
    app.execute("INSERT INTO january VALUES (1, '2024-01-05', 1, 9, 'zz')")
    assert_kept(tally, engine)


def test_two_folds_by_hand(app: Connection, engine: Engine, tally: Tally, session: Callable[[], Session]) -> None:
    """The function waits for the lock itself, in a statement before those that fold."""
    first, second = session(), session()
    app.execute("INSERT INTO event VALUES (1, '2024-01-05', 77, 9, 'zz')")
    first.run("BEGIN").result()
    first.run("SELECT tally.by_k__fold()").result()
    waiting = second.run("SELECT tally.by_k__fold()")
    assert waiting.waiting
    app.execute("INSERT INTO event VALUES (2, '2024-01-06', 77, 9, 'zz')")
    first.run("COMMIT").result()
    waiting.result()
    assert_kept(tally, engine)


def test_a_truncate_that_others_fill_again(app: Connection, engine: Engine) -> None:
    """After renames too: of a plain table, whose rows are counted again behind the marker."""
    app.execute("CREATE TABLE item (g integer, n integer); INSERT INTO item VALUES (1, 1), (2, 2)")
    app.execute(
        "CREATE FUNCTION refill() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN EXECUTE 'INSERT INTO ' || TG_RELID::regclass || ' VALUES (5, 5)'; RETURN NULL; END $$"
    )
    app.execute("CREATE TRIGGER a_refill AFTER TRUNCATE ON item EXECUTE FUNCTION refill()")
    items = Tally(schema="items")
    items.grouped("by_g", "SELECT g, count(*) AS items, max(n) AS greatest FROM item GROUP BY g")
    items.install(engine)
    items.backfill(engine)
    changes: list[LiteralString] = [
        "TRUNCATE item",
        "ALTER TABLE item RENAME COLUMN n TO amount; TRUNCATE item",
        "ALTER TABLE item RENAME TO thing; TRUNCATE thing",
    ]
    for change in changes:
        app.execute(change)
        assert app.execute("SELECT * FROM items.by_g").fetchall() == [(5, 1, 5)]
        assert items.verify(engine)[0].is_exact
    items.fold(engine)
    assert items.verify(engine)[0].is_exact


def test_what_a_writer_is_told(app: Connection, tally: Tally) -> None:
    """Nothing: no error of ours reaches the application."""
    app.execute("ALTER TABLE event DETACH PARTITION january")
    for statement in ("INSERT INTO january VALUES (1, '2024-01-05', 1, 9, 'zz')", "TRUNCATE january"):
        try:
            app.execute(statement)
        except psycopg.Error as error:
            pytest.fail(str(error))
