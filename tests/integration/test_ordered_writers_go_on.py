"""A user's write neither fails nor waits because of an ordered aggregate: beside folds, over ruins, in odd sessions."""

from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import BigInteger, Column, Engine, Integer, MetaData, Table, Text, create_engine
from sqlalchemy.pool import NullPool

from tallystick import Tally
from tests.conftest import Connect
from tests.integration.test_replication import CHANGES, EMPTIED, PLAIN
from tests.integration.test_replication import ROWS as REPLICATED
from tests.integration.test_writers_go_on import ALL_RUINED, PATIENCE, QUALIFIED, SETTINGS, user, write
from tests.isolation.stage import OpenSession, ok
from tests.order_oracle import OrderOracle, assert_orders_exact, serves_buckets, small_buckets
from tests.servers import Connection, Server

__all__ = ["user"]  # a fixture

TABLES: LiteralString = """
CREATE TABLE message (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chat integer, size integer, author text);
INSERT INTO message (chat, size, author) SELECT i % 3, i % 7, 'a' || i % 5 FROM generate_series(1, 30) AS s (i);
CREATE TABLE sample ();
"""
MESSAGE = Table(
    "message", MetaData(), Column("id", BigInteger, primary_key=True), Column("chat", Integer),
    Column("size", Integer), Column("author", Text), schema="public",
)  # fmt: skip
ITEM = Table(
    "item", MetaData(), Column("id", BigInteger, primary_key=True), Column("kind", Text), Column("size", Integer)
)


def declared() -> Tally:
    tally, message = Tally(), MESSAGE.c
    tally.ordered("by_size", MESSAGE, namespace=[message.chat], key=[message.size], sums={"bytes": message.size})
    tally.ordered("authors", MESSAGE, key=[message.author.desc()])
    return tally


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """Name of a template database with the table and kept aggregates over it."""

    def build(connection: Connection) -> None:
        connection.execute(TABLES)
        connection.commit()
        engine = create_engine(server.url(connection.info.dbname), poolclass=NullPool)
        with small_buckets():
            declared().install(engine)
        declared().backfill(engine)

    return server.template("writers go on in order", build)


@pytest.fixture
def tally() -> Tally:
    return declared()


@pytest.fixture
def superuser(connect: Connect) -> Connection:
    return connect(autocommit=True)


def assert_goes_on(user: Connection, engine: Engine, tally: Tally) -> None:
    """Writes succeed and are counted, before and after a fold."""
    assert write(user, truncates=False) == {}
    assert_orders_exact(engine, tally)
    tally.fold(engine)
    assert write(user) == {}
    assert_orders_exact(engine, tally)


def test_fold_in_an_open_transaction(session: OpenSession, user: Connection, engine: Engine, tally: Tally) -> None:
    folder, reader = session(), session()
    user.execute(PATIENCE)
    assert write(user, truncates=False) == {}
    ok(folder, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT tally.by_size__fold()", "SELECT tally.authors__fold()")
    for _ in range(2):
        assert write(user, truncates=False) == {}
        for each in (folder, reader):
            OrderOracle(each.connection, tally).check()
    ok(folder, "COMMIT")
    assert_goes_on(user, engine, tally)


RUINS: dict[str, LiteralString] = {
    "delta": "DROP TABLE tally.authors__delta CASCADE",
    "buckets": "DROP TABLE tally.authors__bucket CASCADE",
    "row": "DROP FUNCTION tally.authors__row CASCADE",
    "source": "DROP FUNCTION tally.authors__source CASCADE",
    "direct view": "DROP VIEW tally.authors__direct CASCADE",
    "a function of readers": "DROP FUNCTION tally.authors_count CASCADE",
    "its row": "DELETE FROM tally.aggregate WHERE name = 'authors'",
}


@pytest.mark.parametrize("what", RUINS)
def test_one_aggregate_in_ruins(superuser: Connection, user: Connection, engine: Engine, what: str) -> None:
    """Its sibling counts on."""
    assert write(user) == {}
    superuser.execute(RUINS[what])
    assert write(user) == {}
    sibling = Tally()
    sibling.ordered(
        "by_size", MESSAGE, namespace=[MESSAGE.c.chat], key=[MESSAGE.c.size], sums={"bytes": MESSAGE.c.size}
    )
    assert_goes_on(user, engine, sibling)


@pytest.mark.parametrize("what", ALL_RUINED)
def test_all_in_ruins(superuser: Connection, user: Connection, what: str) -> None:
    assert write(user) == {}
    superuser.execute(ALL_RUINED[what])
    assert write(user) == {}
    assert superuser.execute("SELECT count(*) FROM message").fetchone() == (2,)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_a_user(superuser: Connection, user: Connection, engine: Engine, tally: Tally, name: str) -> None:
    user.execute(SETTINGS[name])
    superuser.execute(SETTINGS[name])
    superuser.execute("SET jit = off")
    oracle = OrderOracle(superuser, tally)
    if name == "no search path":
        for statement in QUALIFIED[:3]:
            user.execute(statement)
        oracle.check()
        user.execute("SET search_path = public")
    assert write(user, truncates=False) == {}
    oracle.check()
    tally.fold(engine)
    assert write(user) == {}
    oracle.check()
    assert_orders_exact(engine, tally)


def test_a_session_that_replays(superuser: Connection, engine: Engine) -> None:
    """session_replication_role = replica, in which ordinary triggers do not fire."""
    superuser.execute(PLAIN + REPLICATED)
    tally = Tally()
    tally.ordered("by_kind", ITEM, namespace=[ITEM.c.kind], key=[ITEM.c.size], sums={"ids": ITEM.c.id})
    with small_buckets():
        tally.install(engine)
    tally.backfill(engine)
    superuser.execute("SET session_replication_role = replica")
    oracle = OrderOracle(superuser, tally)
    for number, change in enumerate(CHANGES):
        superuser.execute(change)
        oracle.check()
        if number % 3 == 2:
            tally.fold(engine)
    with superuser.transaction():
        for role in ("origin", "replica", "local", "replica"):
            superuser.execute(sql.SQL("SET LOCAL session_replication_role = {}").format(sql.SQL(role)))
            superuser.execute("UPDATE item SET id = -id, size = size + 1 WHERE mod(id, 10) = 3")
            oracle.check()
    assert serves_buckets(superuser, tally.orders["by_kind"])
    superuser.execute(EMPTIED)
    oracle.check()
    tally.fold(engine)
    oracle.check()
    assert all(report.is_exact for report in tally.verify(engine))
