"""Ordered aggregates over keys and sums of all kinds: order, ties and totals as PostgreSQL's types have them."""

from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Column, Engine, Integer, MetaData, Numeric, Table
from sqlalchemy.types import BigInteger, Boolean, Date, DateTime, Double, Enum, LargeBinary, Text, TypeEngine, Uuid

from tallystick import Tally
from tests.conftest import Connect
from tests.order_oracle import OrderOracle, assert_orders_exact, levels, small_buckets

KEYS: dict[str, tuple[LiteralString, TypeEngine[Any], list[LiteralString]]] = {
    "text": ("text", Text(), ["'a'", "'B'", "'b'", "'ä'", "''", "'a '", "'10'", "'9'", "E'\\n\"'"]),
    "text C": ('text COLLATE "C"', Text(), ["'a'", "'B'", "'b'", "'ä'", "''", "'_'"]),
    "varchar": ("varchar(3)", Text(), ["'a'", "'ab'", "'B'", "''"]),
    "char": ("char(3)", Text(), ["'a'", "'a '", "'ab'", "'B'"]),
    "numeric": ("numeric", Numeric(), ["1.0", "1.00", "1", "-0.5", "'NaN'", "'Infinity'", "'-Infinity'", "1e30"]),
    "timestamptz": (
        "timestamptz", DateTime(timezone=True),
        ["'infinity'", "'-infinity'", "'2024-03-31 01:30+00'", "'2024-03-31 02:30+01'", "'0044-03-15 BC'"],
    ),
    "date": ("date", Date(), ["'infinity'", "'2024-02-29'", "'-infinity'", "'4713-01-01 BC'"]),
    "uuid": ("uuid", Uuid(), ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
                              "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    "enum": ("mood", Enum("sad", "glad", "odd", name="mood"), ["'sad'", "'glad'", "'odd'"]),
    "bytea": ("bytea", LargeBinary(), ["'\\x00'", "'\\xff'", "''", "'\\x0001'"]),
    "boolean": ("boolean", Boolean(), ["true", "false"]),
    "double": ("double precision", Double(), ["'NaN'", "-0.0", "0", "'Infinity'", "'-Infinity'", "0.1", "1e-300"]),
}  # fmt: skip
SUMS: dict[str, tuple[LiteralString, TypeEngine[Any], list[LiteralString]]] = {
    "integer": ("integer", Integer(), ["2147483647", "-2147483648", "0"]),
    "bigint": ("bigint", BigInteger(), ["9223372036854775807", "-9223372036854775808", "1"]),
    "numeric": ("numeric", Numeric(), ["1.0", "1.00", "'NaN'", "'Infinity'", "'-Infinity'", "1e-20", "-3"]),
    "double": ("double precision", Double(), ["0.1", "1e20", "-1e20", "'NaN'", "'Infinity'", "'-Infinity'", "-0.0"]),
}

FILL = sql.SQL(
    "INSERT INTO item SELECT {first} + n * 100 + row_number() OVER (), n % 2, v"
    " FROM (VALUES {rows}) AS v (v), generate_series(1, {times}) AS s (n)"
)


def play(connect: Connect, engine: Engine, column: LiteralString, type_: TypeEngine[Any], values: list[LiteralString],
         *, is_key: bool) -> None:  # fmt: skip
    """Every value several times beside NULLs; then changed, deleted and moved, folded in between."""
    app = connect(autocommit=True)
    app.execute("CREATE TYPE mood AS ENUM ('sad', 'glad', 'odd')")
    app.execute(sql.SQL("CREATE TABLE item (id integer PRIMARY KEY, g integer, x {})").format(sql.SQL(column)))
    bare = sql.SQL(column.partition(" COLLATE")[0])
    listed = sql.SQL(", ").join(sql.SQL("(({})::{})").format(sql.SQL(value), bare) for value in [*values, "NULL"])
    app.execute(FILL.format(first=sql.SQL("0"), rows=listed, times=sql.SQL("3")))
    item = Table(
        "item", MetaData(), Column("id", Integer, primary_key=True), Column("g", Integer), Column("x", type_),
        schema="public",
    )  # fmt: skip
    tally = Tally()
    if is_key:
        tally.ordered("up", item, namespace=[item.c.g], key=[item.c.x], sums={"gs": item.c.g})
        tally.ordered("down", item, key=[item.c.x.desc()])
        tally.ordered("spaces", item, namespace=[item.c.x], key=[item.c.g.desc()])
    else:
        tally.ordered("up", item, namespace=[item.c.g], key=[], sums={"total": item.c.x})
    with small_buckets():
        tally.install(engine)
    tally.backfill(engine)
    assert levels(app, tally.orders["up"]) >= 1
    oracle = OrderOracle(connect(autocommit=True), tally, direct=True)
    oracle.check()
    writes: list[bytes | sql.Composed] = [
        FILL.format(first=sql.SQL("1000"), rows=listed, times=sql.SQL("2")),
        b"UPDATE item SET x = (SELECT o.x FROM item AS o WHERE o.id > item.id ORDER BY o.id LIMIT 1)",
        b"UPDATE item SET g = 1 - g WHERE id % 3 = 0",
        b"DELETE FROM item WHERE id % 2 = 0",
        b"UPDATE item SET id = -id WHERE id % 5 < 2",
        b"DELETE FROM item WHERE id > 1000",
    ]
    for number, write in enumerate(writes):
        app.execute(write)
        oracle.check()
        if number % 2:
            tally.fold(engine)
            oracle.check()
    app.execute("DELETE FROM item WHERE x IS NOT NULL")
    tally.fold(engine)
    oracle.check()


@pytest.mark.parametrize("kind", KEYS)
def test_keys(connect: Connect, engine: Engine, kind: str) -> None:
    play(connect, engine, *KEYS[kind], is_key=True)


@pytest.mark.parametrize("kind", SUMS)
def test_sums(connect: Connect, engine: Engine, kind: str) -> None:
    play(connect, engine, *SUMS[kind], is_key=False)


def test_nondeterministic_collation(connect: Connect, engine: Engine) -> None:
    """Keys that differ and are equal are ties; as namespaces they are one."""
    try:
        connect(autocommit=True).execute(
            "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
    except psycopg.errors.FeatureNotSupported as error:
        pytest.skip(f"this server has no ICU: {error.diag.message_primary}")
    play(connect, engine, "text COLLATE nocase", Text(), ["'a'", "'A'", "'b'", "'B'", "'ä'", "'Ä'"], is_key=True)


def test_an_old_snapshot_across_many_folds(connect: Connect, engine: Engine) -> None:
    """Its answers stay what they were, and everyone else's are those of now, while buckets split and join."""
    app, old = connect(autocommit=True), connect(autocommit=True)
    app.execute("CREATE TABLE item (id integer PRIMARY KEY, g integer, x integer)")
    app.execute("INSERT INTO item SELECT i, i % 2, i % 9 FROM generate_series(1, 40) AS s (i)")
    item = Table(
        "item", MetaData(), Column("id", Integer, primary_key=True), Column("g", Integer), Column("x", Integer),
        schema="public",
    )  # fmt: skip
    tally = Tally()
    tally.ordered("up", item, namespace=[item.c.g], key=[item.c.x], sums={"ids": item.c.id})
    with small_buckets():
        tally.install(engine)
    tally.backfill(engine)
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    oracle = OrderOracle(old, tally, direct=True)
    reads: LiteralString = "SELECT g, tally.up_count(g), tally.up_sum_ids(g) FROM (VALUES (0), (1)) AS s (g)"
    before = old.execute(reads).fetchall()
    for number in range(6):
        app.execute("INSERT INTO item SELECT 1000 * %s + i, i % 2, i FROM generate_series(1, 12) s (i)".replace(
            "i % 2", "i %% 2"), [number + 1])  # fmt: skip
        app.execute("UPDATE item SET x = x + 3, g = 1 - g WHERE mod(id, 4) = %s", [number % 4])
        app.execute("DELETE FROM item WHERE mod(id, 6) = %s", [number])
        tally.fold(engine)
        oracle.check()
        assert_orders_exact(engine, tally)
    assert old.execute(reads).fetchall() == before
