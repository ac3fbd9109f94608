"""Declarations and rows that were once answered wrongly, or not at all; each is as small as it could be made."""

import random
from decimal import Decimal
from typing import LiteralString

import pytest
from sqlalchemy import URL, Engine, create_engine

from tallystick import Tally
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.servers import Connection


@pytest.fixture
def connection(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute("CREATE TABLE item (k integer, num numeric, ratio double precision, single real)")
    return connection


def _keep(engine: Engine, name: str, query: str) -> Tally:
    tally = Tally()
    tally.grouped(name, query)
    tally.install(engine)
    tally.backfill(engine)
    return tally


MOMENTS = "SELECT k, avg(num) AS mean, stddev(num) AS s, var_pop(num) AS v FROM item GROUP BY k"


@pytest.mark.parametrize("how", ["by deltas", "by backfill"])
def test_nulls_have_no_scale(engine: Engine, connection: Connection, how: str) -> None:
    """NULL was counted among the widest scales, so averages came with 1,000 digits that PostgreSQL does not give."""
    tally = _keep(engine, "moments", MOMENTS)
    connection.execute("INSERT INTO item (k, num) VALUES (1, 1), (1, 1), (1, 2), (1, NULL)")
    if how == "by backfill":
        tally.backfill(engine, force=True)
    assert_exact(engine, tally)
    kept = connection.execute("SELECT mean FROM tally.moments").fetchone()
    assert kept == (Decimal("1.3333333333333333"),)
    connection.execute("UPDATE item SET num = 3.50 WHERE num IS NULL")
    tally.fold(engine)
    assert_exact(engine, tally)
    connection.execute("UPDATE item SET num = NULL WHERE num = 3.50")
    assert_exact(engine, tally)


SPREADS = (
    "SELECT k, sum(ratio) AS total, avg(ratio) AS mean, stddev(ratio) AS s, var_pop(ratio) AS v,"
    " avg(single) AS single_mean, sum(single) AS single_total, variance(single) AS single_v FROM item GROUP BY k"
)
EXTREME: dict[str, LiteralString] = {
    "square below the smallest double": "INSERT INTO item (k, ratio) VALUES (1, 1e-200), (1, 2e-200)",
    "mean below the smallest double": "INSERT INTO item (k, ratio) VALUES (1, 5e-324), (1, 0), (1, 0)",
    "square below the smallest double, single": "INSERT INTO item (k, single) VALUES (1, 1e-45), (1, 3e-45)",
}
OVERFLOWING: dict[str, LiteralString] = {
    "double": "INSERT INTO item (k, ratio) VALUES (2, 1e308), (2, 1e308)",
    "square": "INSERT INTO item (k, ratio) VALUES (2, 1e200), (2, -1e200)",
    "single": "INSERT INTO item (k, single) VALUES (2, 3e38), (2, 3e38)",
}


@pytest.mark.parametrize("what", EXTREME)
def test_tiny_floats_are_read_and_folded(engine: Engine, connection: Connection, what: str) -> None:
    """PostgreSQL's own aggregates round what is too small for the type to 0; the cast from numeric raises an error."""
    tally = _keep(engine, "spreads", SPREADS)
    connection.execute(EXTREME[what])
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)
    tally.backfill(engine, force=True)
    assert_exact(engine, tally)


@pytest.mark.parametrize("what", OVERFLOWING)
def test_overflowing_float_total_hinders_no_fold(engine: Engine, connection: Connection, what: str) -> None:
    """PostgreSQL refuses to give such a total, which is a matter of whoever reads it; other groups go on."""
    tally = _keep(engine, "spreads", SPREADS)
    connection.execute(OVERFLOWING[what])
    connection.execute("INSERT INTO item (k, ratio, single) VALUES (1, 0.5, 0.25)")
    assert [result.deltas for result in tally.fold(engine)] == [2]
    one_group: LiteralString = "SELECT total, single_total FROM tally.spreads WHERE k = 1"
    assert connection.execute(one_group).fetchall() == [(0.5, 0.25)]
    tally.backfill(engine, force=True)
    assert connection.execute(one_group).fetchall() == [(0.5, 0.25)]
    connection.execute("DELETE FROM item WHERE k = 2")
    assert_exact(engine, tally)


@pytest.mark.parametrize("digits", [4000, 7000, 20000])
def test_wide_numeric_measures_fit_into_no_index(engine: Engine, connection: Connection, digits: int) -> None:
    """A total may be wider than the entry of a B-tree that puts groups in order by it."""
    tally = _keep(engine, "sums", "SELECT k, sum(num) AS total, max(num) AS greatest FROM item GROUP BY k")
    number = "".join(random.Random(digits).choices("123456789", k=digits))
    connection.execute("INSERT INTO item (k, num) VALUES (1, 5), (2, %s::numeric), (3, NULL)", [number])
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)
    with engine.connect() as reader:
        assert [row.k for row in reader.execute(tally["sums"].top("total", 3))] == [2, 1, 3]
    tally.backfill(engine, force=True)
    assert_exact(engine, tally)


def test_a_plan_that_was_made_while_the_state_was_empty(database: URL, connection: Connection) -> None:
    """PostgreSQL 18 keeps plans of SQL functions: the second fold of one session took half a minute."""
    engine = create_engine(database, pool_size=1, max_overflow=0)
    tally = _keep(engine, "by_k", "SELECT k, count(*) AS items, sum(num) AS total FROM item GROUP BY k")
    for _ in range(3):
        connection.execute("INSERT INTO item SELECT i, i FROM generate_series(1, 20000) AS i")
        (result,) = tally.fold(engine)
        assert result.groups == 20_000
        assert result.elapsed_s < 8
    assert_exact(engine, tally)
    engine.dispose()
