"""The index that an ordered aggregate walks along: found or built beside writers, replaced, cleaned up, dropped."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import LiteralString

import psycopg
import pytest
from sqlalchemy import URL, Column, Engine, Integer, MetaData, Table, Text

from tallystick import InstallError, Tally
from tests.conftest import Connect
from tests.isolation.stage import Beside, ok
from tests.order_oracle import assert_orders_exact, serves_buckets, small_buckets
from tests.servers import Connection
from tests.stepping import Session

TABLE: LiteralString = """
CREATE TABLE item (id integer PRIMARY KEY, g integer, k text, size integer);
INSERT INTO item SELECT i, i % 3, 'k' || i % 7, i FROM generate_series(1, 40) AS s (i)
"""
ITEM = Table(
    "item", MetaData(), Column("id", Integer, primary_key=True), Column("g", Integer), Column("k", Text),
    Column("size", Integer), schema="public",
)  # fmt: skip
INDEXES: LiteralString = """
SELECT c.relname::text, indisvalid FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
WHERE indrelid = 'public.item'::regclass AND NOT indisprimary ORDER BY 1
"""
OWN = "tally_by_k__order"
OpenSession = Callable[[], Session]


def declared(*names: str) -> Tally:
    tally = Tally()
    for name in names or ("by_k",):
        tally.ordered(name, ITEM, namespace=[ITEM.c.g], key=[ITEM.c.k.desc()], where=ITEM.c.size > 3)
    return tally


@pytest.fixture
def app(connect: Connect) -> Connection:
    app = connect(autocommit=True)
    app.execute(TABLE)
    return app


@pytest.fixture
def beside(app: Connection, database: URL, session: OpenSession, connect: Connect) -> Iterator[Beside]:
    with ExitStack() as opened:
        beside = Beside(database, connect(autocommit=True), opened)
        yield beside
        beside.end_all()


def assert_kept(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.backfill(engine)
    app.execute("UPDATE item SET k = 'k' || id % 5, size = size + 1 WHERE id % 2 = 0")
    assert_orders_exact(engine, tally)
    tally.fold(engine)
    assert_orders_exact(engine, tally)
    assert all(serves_buckets(app, aggregate) for aggregate in tally.orders.values())


def test_an_equal_one_is_used_and_left(app: Connection, engine: Engine) -> None:
    app.execute("CREATE INDEX mine ON item (g, k DESC, id) INCLUDE (size) WHERE size > 3 AND g IS NOT NULL")
    app.execute("CREATE INDEX equal ON item (g, k DESC, id) WHERE size > 3 AND g IS NOT NULL AND k IS NOT NULL")
    app.execute("CREATE INDEX plain ON item (g, k DESC, id) WHERE size > 3")
    before = app.execute(INDEXES).fetchall()
    tally = declared()
    with small_buckets():
        tally.install(engine)
    assert app.execute(INDEXES).fetchall() == before
    assert_kept(app, engine, tally)
    tally.uninstall(engine)
    assert app.execute(INDEXES).fetchall() == before


@pytest.mark.parametrize(
    "other",
    [
        "CREATE INDEX other ON item (g, k, id) WHERE size > 3",
        "CREATE INDEX other ON item (g, k DESC, id)",
        "CREATE INDEX other ON item (g, k DESC, id) WHERE size > 4",
        'CREATE INDEX other ON item (g, k COLLATE "POSIX" DESC, id) WHERE size > 3',
        "CREATE INDEX other ON item (g, k text_pattern_ops DESC, id) WHERE size > 3",
        "CREATE INDEX other ON item (g, k DESC NULLS LAST, id) WHERE size > 3",
    ],
)
def test_one_that_differs_is_not(app: Connection, engine: Engine, other: LiteralString) -> None:
    app.execute(other)
    tally = declared()
    with small_buckets():
        tally.install(engine)
    assert app.execute(INDEXES).fetchall() == [("other", True), (OWN, True)]
    assert_kept(app, engine, tally)
    tally.uninstall(engine)
    assert app.execute(INDEXES).fetchall() == [("other", True)]


def test_built_beside_an_open_writer(app: Connection, engine: Engine, session: OpenSession, beside: Beside) -> None:
    """It waits for transactions that were there before, as CREATE INDEX CONCURRENTLY does, and nobody waits for it."""
    one, two = session(), session()
    tally = declared()
    ok(one, "BEGIN", "UPDATE item SET k = 'open' WHERE id = 1")
    installing = beside.start(tally.install).until_settled()
    assert installing.is_waiting
    ok(two, "INSERT INTO item VALUES (100, 1, 'new', 9)", "DELETE FROM item WHERE id = 2", "SELECT count(*) FROM item")
    ok(one, "UPDATE item SET k = 'more' WHERE id = 3", "COMMIT")
    assert installing.result() == ["by_k"]
    tally.backfill(engine)
    assert_orders_exact(engine, tally)


def test_what_a_killed_build_left_is_replaced(
    app: Connection, engine: Engine, session: OpenSession, beside: Beside
) -> None:
    one = session()
    tally = declared()
    ok(one, "BEGIN", "UPDATE item SET k = 'open' WHERE id = 1")
    installing = beside.start(tally.install).until_settled()
    assert installing.is_waiting
    ended = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND wait_event IS NOT NULL"
    )
    app.execute(ended, [installing.application])
    with pytest.raises((psycopg.Error, InstallError)):
        installing.result()
    ok(one, "COMMIT")
    assert app.execute(INDEXES).fetchall() == [(OWN, False)]
    with small_buckets():
        tally.install(engine)
    assert app.execute(INDEXES).fetchall() == [(OWN, True)]
    assert_kept(app, engine, tally)


def test_a_build_that_fails_leaves_nothing(app: Connection, engine: Engine) -> None:
    """A value is too wide for a B-tree of PostgreSQL's."""
    app.execute("INSERT INTO item SELECT 101, 1, string_agg(md5(i::text), ''), 9 FROM generate_series(1, 200) AS s (i)")
    tally = declared()
    with pytest.raises(InstallError, match="could not be built: index row size") as caught:
        tally.install(engine)
    assert caught.value.hint is not None
    assert "CREATE INDEX CONCURRENTLY" in caught.value.hint
    assert app.execute(INDEXES).fetchall() == []
    assert [status.phase for status in tally.status(engine) if status.phase in ("building", "kept")] == []
    app.execute("DELETE FROM item WHERE id = 101")
    with small_buckets():
        tally.install(engine)
    assert_kept(app, engine, tally)


def test_one_that_goes_away(app: Connection, engine: Engine) -> None:
    """Without it reads are slow, and right."""
    tally = declared()
    with small_buckets():
        tally.install(engine)
    app.execute("DROP INDEX tally_by_k__order")
    assert_kept(app, engine, tally)
    tally.uninstall(engine)


@pytest.mark.parametrize("first", ["by_k", "too"])
def test_one_for_two(app: Connection, engine: Engine, first: str) -> None:
    """Dropped with the last of them."""
    tally = declared("by_k", "too")
    with small_buckets():
        tally.install(engine)
    assert app.execute(INDEXES).fetchall() == [(OWN, True)]
    tally.uninstall(engine, only=[first])
    assert app.execute(INDEXES).fetchall() == [(OWN, True)]
    tally.uninstall(engine, only=["too" if first == "by_k" else "by_k"])
    assert app.execute(INDEXES).fetchall() == []
