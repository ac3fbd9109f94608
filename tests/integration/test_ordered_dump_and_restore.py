"""Ordered aggregates that were dumped and restored are exact at once, and after whatever is written and folded.

Data is restored before indexes are made, enum values have other hashes, and transaction ids may be lower.
"""

from contextlib import ExitStack
from typing import Any, LiteralString

import pytest
from psycopg import sql
from sqlalchemy import BigInteger, Column, Engine, Enum, Integer, MetaData, Numeric, Table, Text
from sqlalchemy.types import TypeEngine

from tallystick import Tally
from tallystick.errors import NotWhole
from tests.conftest import RELEASES
from tests.integration.test_dump_and_restore import (
    AT_LAST,
    BURN,
    FOLDED,
    LATER,
    NEXT_ID,
    PARTITIONED,
    SOURCE,
    UNFOLDED,
    Make,
    carried_over,
    copied,
    errors,
    fresh,
    make,
    raw,
    run,
    stack,
    why_begun,
)
from tests.order_oracle import OrderOracle, assert_orders_exact, levels, serves_buckets, small_buckets
from tests.servers import Server, Servers

__all__ = ["fresh", "make", "stack"]  # fixtures

MOOD = Enum("sad", "glad", "odd", name="mood")
COLUMNS: dict[str, TypeEngine[Any]] = {
    "id": BigInteger(),
    "mood": MOOD,
    "label": Text(),
    "size": Integer(),
    "amount": Numeric(),
}
ITEM, LOG, PART = (
    Table(name, MetaData(), *(Column(each, COLUMNS[each], primary_key=each == "id") for each in columns))
    for name, columns in (("item", COLUMNS), ("log", ("id", "mood", "size")), ("item", ("id", "mood", "size")))
)


def populate(engine: Engine, stack: ExitStack) -> Tally:
    """Aggregates with buckets, a floor, unfolded deltas, keys too wide for a B-tree's place, a marker of TRUNCATE."""
    tally = Tally()
    tally.ordered("by_mood", ITEM, namespace=[ITEM.c.mood], key=[ITEM.c.size], sums={"amount": ITEM.c.amount})
    tally.ordered("by_size", ITEM, key=[ITEM.c.size.desc(), ITEM.c.mood])
    tally.ordered("logged", LOG, namespace=[LOG.c.mood], key=[LOG.c.size], sums={"total": LOG.c.size})
    connection = raw(engine, stack)
    connection.execute(SOURCE)
    with small_buckets(4, 3):
        tally.install(engine)
    tally.backfill(engine)
    connection.execute(FOLDED)
    tally.fold(engine)
    for statement in UNFOLDED.split(";\n"):
        connection.execute(statement.encode())
    assert connection.execute("SELECT count(*) FROM tally.reset").fetchone() == (1,)
    assert levels(connection, tally.orders["by_mood"]) == 3
    return tally


def check_and_write(engine: Engine, tally: Tally, stack: ExitStack) -> None:
    """Exact from the first moment, through writes, a fold, and writes again."""
    connection = raw(engine, stack)
    oracle = OrderOracle(raw(engine, stack), tally)
    for statement in ("SELECT", *LATER):
        connection.execute(statement.encode())
        oracle.check()
    tally.fold(engine)
    assert_orders_exact(engine, tally)
    assert all(report.is_exact for report in tally.verify(engine))
    for name in ("by_mood", "by_size"):
        assert serves_buckets(connection, tally.orders[name])
    connection.execute(AT_LAST)
    assert_orders_exact(engine, tally)
    tally.fold(engine)
    assert_orders_exact(engine, tally)
    assert all(report.is_exact for report in tally.verify(engine))
    tally.uninstall(engine)
    assert connection.execute(r"SELECT relname FROM pg_class WHERE relname LIKE '%\_\_order'").fetchall() == []


@pytest.mark.parametrize("format_", ["plain", "custom"])
def test_into_another_database(server: Server, make: Make, stack: ExitStack, format_: str) -> None:
    """Once wrong: the index was recorded as a regclass, which cannot be restored before there is the index."""
    source, target = make(server), make(server)
    tally = populate(source, stack)
    if format_ == "plain":
        copied(server, source, target)
    else:
        archive = run(server, "pg_dump", source, "--format=custom")
        run(server, "pg_restore", target, "--exit-on-error", given=archive)
    assert errors(target, tally) == []
    assert {status.serving for status in tally.status(target)} == {
        "direct"
    }  # files of a server mean nothing in another
    check_and_write(target, tally, stack)


@pytest.mark.parametrize("where", ["the same cluster", "a new cluster"])
def test_in_the_middle_of_a_backfill(server: Server, fresh: Server, make: Make, stack: ExitStack, where: str) -> None:
    """What was counted is told by transaction ids, which mean nothing there: it begins anew."""
    source, target = make(server), make(server if where == "the same cluster" else fresh)
    tally = populate(source, stack)
    here, there = carried_over(server, source, target, tally, stack)
    assert_orders_exact(target, tally)
    tally.backfill(target, chunk_rows=50)
    assert why_begun(there, "by_mood") == "the database was restored"
    assert_orders_exact(target, tally)
    assert all(serves_buckets(there, tally.orders[name]) for name in ("by_mood", "by_size"))
    tally.backfill(source, chunk_rows=50)  # that of the dumped database goes on
    assert why_begun(here, "by_mood") == "it was asked for"
    assert_orders_exact(source, tally)


def test_a_schema_alone(server: Server, make: Make, stack: ExitStack) -> None:
    """Nothing is registered, so readers are served by the source; writers are not disturbed."""
    source, target = make(server), make(server)
    tally = populate(source, stack)
    copied(server, source, target, "--schema-only")
    restored = raw(target, stack)
    for statement in LATER:
        restored.execute(statement)
        assert_orders_exact(target, tally)


def test_into_a_newer_version(servers: Servers, make: Make, stack: ExitStack) -> None:
    newest, oldest = (servers.get(release) for release in RELEASES)
    source, target = make(oldest), make(newest)
    tally = populate(source, stack)
    copied(newest, source, target)
    assert errors(target, tally) == []
    check_and_write(target, tally, stack)


def test_where_transaction_ids_are_lower(server: Server, fresh: Server, make: Make, stack: ExitStack) -> None:
    """What is written below the dumped floor counts."""
    source, target = make(server), make(fresh)
    burner, writer = raw(source, stack), raw(target, stack)
    next_ids = [(connection.execute(NEXT_ID).fetchone() or (0,))[0] for connection in (writer, burner)]
    burner.execute(sql.SQL(BURN).format(sql.Literal(max(2000 + next_ids[0] - next_ids[1], 0))))
    tally = populate(source, stack)
    copied(server, source, target)
    floor: LiteralString = "SELECT max(floor::text::bigint) FROM tally.watermark"
    assert (writer.execute(NEXT_ID).fetchone() or (0,))[0] + 500 < (writer.execute(floor).fetchone() or (0,))[0]
    check_and_write(target, tally, stack)


def test_a_partitioned_source(server: Server, make: Make, stack: ExitStack) -> None:
    """Which rows the buckets count cannot be told of partitions that came by a restore: the source serves."""
    source, target = make(server), make(server)
    tally = Tally()
    tally.ordered("by_mood", PART, namespace=[PART.c.mood.cast(Text).label("mood")], key=[PART.c.size])
    raw(source, stack).execute(PARTITIONED)
    with small_buckets():
        tally.install(source)
    tally.backfill(source)
    copied(server, source, target)
    restored = raw(target, stack)
    assert not serves_buckets(restored, tally.orders["by_mood"])
    assert_orders_exact(target, tally)
    restored.execute("INSERT INTO item VALUES (1001, 'new', 50), (-1, NULL, NULL); DELETE FROM item WHERE size = 29")
    with pytest.raises(NotWhole):
        tally.fold(target)
    tally.backfill(target)
    restored.execute("UPDATE item SET id = -id WHERE id > 190; DELETE FROM item WHERE mood = 'mood 1'")
    assert_orders_exact(target, tally)
    tally.fold(target)
    assert_orders_exact(target, tally)
    assert serves_buckets(restored, tally.orders["by_mood"])
    assert errors(target, tally) == []
