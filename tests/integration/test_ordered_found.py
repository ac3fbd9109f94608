"""Faults of ordered aggregates that a reading of the code found, each as the case that showed it."""

from collections.abc import Iterator
from typing import Any, LiteralString

import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Column,
    Date,
    Engine,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    select,
)

from tallystick import DeclarationError, InstallError, Tally
from tests.conftest import Connect
from tests.isolation.stage import OpenSession
from tests.order_oracle import assert_orders_exact, serves_buckets, small_buckets
from tests.servers import Connection

ROWS: LiteralString = """
CREATE TABLE item (id bigint PRIMARY KEY, space text, size integer, ratio real, small smallint, tags integer[]);
INSERT INTO item SELECT i, 's' || i % 2, i % 9, i % 4, i % 5, ARRAY[i] FROM generate_series(1, 60) AS s (i);
"""
PARTS: LiteralString = """
CREATE TABLE day (id bigint, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE january PARTITION OF day FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE february PARTITION OF day FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
INSERT INTO day SELECT i, date '2024-01-01' + i % 55 FROM generate_series(1, 80) AS s (i);
"""
ITEM = Table(
    "item", MetaData(), Column("id", BigInteger, primary_key=True), Column("space", Text), Column("size", Integer),
    Column("ratio", REAL), Column("small", Integer), Column("tags", ARRAY(Integer)),
)  # fmt: skip
DAY = Table("day", MetaData(), Column("id", BigInteger, primary_key=True), Column("day", Date, primary_key=True))


@pytest.fixture
def item(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(ROWS)
    return connection


@pytest.fixture
def small() -> Iterator[None]:
    with small_buckets():
        yield


def kept(engine: Engine, name: str, table: Table, **said: Any) -> Tally:
    tally = Tally()
    tally.ordered(name, table, **said)
    tally.install(engine)
    tally.backfill(engine)
    return tally


@pytest.mark.usefixtures("small")
def test_deltas_of_a_namespace_that_ignores_case_are_found(item: Connection, engine: Engine) -> None:
    if item.execute("SELECT FROM pg_collation WHERE collname = 'und-x-icu'").fetchone() is None:
        pytest.skip("this PostgreSQL was built without ICU")
    item.execute("CREATE COLLATION mild (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    item.execute("ALTER TABLE item ALTER space TYPE text COLLATE mild")
    tally = kept(engine, "o", ITEM, namespace=[ITEM.c.space], key=[ITEM.c.size])
    item.execute("INSERT INTO item SELECT i, 'S' || i % 2, i % 9 FROM generate_series(100, 140) AS s (i)")
    order = tally.orders["o"]
    assert serves_buckets(item, order)
    with engine.connect() as connection:
        found = [connection.scalar(select(half.count("s1"))) for half in (order, order.direct)]
    assert found == [50, 50]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_detach_beside_a_reader_is_seen_whole(
    connect: Connect, session: OpenSession, engine: Engine, level: LiteralString
) -> None:
    """What the planner takes for the partitions, the buckets stand for too, or they are not asked."""
    app = connect(autocommit=True)
    app.execute(PARTS)
    kept(engine, "o", DAY, key=[DAY.c.day])
    ((left,),) = app.execute("SELECT count(*) FROM january").fetchall()
    reader, other = session(), session()
    reader.run("BEGIN ISOLATION LEVEL " + level)
    assert reader.run("SELECT count(*) FROM pg_class WHERE relname = 'nothing'").rows == [(0,)]
    other.run("BEGIN")
    other.run("ALTER TABLE day DETACH PARTITION february")
    reading = reader.run("SELECT tally.o_count(), tally.o_count(upper_day => '2024-02-10')")
    assert reading.waiting
    other.run("COMMIT")
    assert reading.rows == [(left, left)]  # as the source itself answers, in either level


@pytest.mark.usefixtures("small")
def test_buckets_of_other_files_are_made_anew(item: Connection, engine: Engine) -> None:
    """As in a restored database, whose collations may order otherwise."""
    tally = kept(engine, "o", ITEM, namespace=[ITEM.c.space], key=[ITEM.c.size])
    order = tally.orders["o"]
    item.execute("UPDATE tally.o__bucket SET n = n + 1")
    item.execute("VACUUM FULL item")
    (state,) = tally.status(engine)
    assert (state.serving, len(state.uncounted)) == ("direct", 1)
    assert [finding.remedy for finding in tally.doctor(engine)] == ["tally fold o"]
    assert not serves_buckets(item, order)
    assert_orders_exact(engine, tally)
    tally.fold(engine)
    assert serves_buckets(item, order)
    assert_orders_exact(engine, tally)
    assert tally.doctor(engine) == []


@pytest.mark.parametrize("column", ["ratio", "small"])
def test_values_take_the_type_of_the_column(item: Connection, engine: Engine, column: str) -> None:
    tally = kept(engine, "o", ITEM, key=[ITEM.c[column]])
    order = tally.orders["o"]
    bound = 2.0 if column == "ratio" else 2
    with engine.connect() as connection:
        counted = SQL("SELECT count(*) FROM item WHERE {} >= 2").format(Identifier(column))
        ((wanted,),) = item.execute(counted).fetchall()
        assert connection.scalar(select(order.count(lower=bound))) == wanted
        assert [row[1] for row in connection.execute(order.count_many([{"lower": bound}]))] == [wanted]


def test_an_array_is_no_sort_key(item: Connection, engine: Engine) -> None:
    tally = Tally()
    tally.ordered("o", ITEM, key=[ITEM.c.tags])
    with pytest.raises(DeclarationError, match="array type"):
        tally.install(engine)
    assert indexes(item) == ["item_pkey"]


def test_functions_of_one_name_are_refused(item: Connection, engine: Engine) -> None:
    tally = Tally()
    tally.ordered("o_sum", ITEM, key=[ITEM.c.size])
    tally.ordered("o", ITEM, key=[ITEM.c.size], sums={"count": ITEM.c.size})
    with pytest.raises(DeclarationError, match='function "o_sum_count"'):
        tally.install(engine)


def test_an_index_of_that_name_is_left_alone(item: Connection, engine: Engine) -> None:
    item.execute("CREATE INDEX tally_o__order ON item (space)")
    tally = Tally()
    tally.ordered("o", ITEM, key=[ITEM.c.size])
    with pytest.raises(InstallError, match="has an index"):
        tally.install(engine)
    assert indexes(item) == ["item_pkey", "tally_o__order"]


def test_an_install_that_fails_leaves_no_index(item: Connection, engine: Engine) -> None:
    """A column of the same name as a parameter of page()."""
    item.execute("ALTER TABLE item ADD lower_size integer")
    table = Table(
        "item", MetaData(), Column("id", BigInteger, primary_key=True), Column("size", SmallInteger),
        Column("lower_size", Integer),
    )  # fmt: skip
    tally = Tally()
    tally.ordered("o", table, key=[table.c.size], sums={"lower_size": table.c.lower_size})
    with pytest.raises(InstallError, match="more than once"):
        tally.install(engine)
    assert indexes(item) == ["item_pkey"]


def indexes(item: Connection) -> list[str]:
    found = item.execute(
        "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = 'item'::regclass"
    )
    return sorted(name for (name,) in found.fetchall())
