"""Ordered aggregates under transactions and TRUNCATE, also as others and older snapshots see them."""

from collections.abc import Callable, Iterator
from typing import LiteralString

import pytest
from sqlalchemy import URL, Engine

from tests.conftest import Connect
from tests.integration import ordered_scenario
from tests.integration.ordered_scenario import declared
from tests.integration.scenario import Scenario, Stage
from tests.integration.test_write_transactions import MORE, ROWS, SCENARIOS, SECOND, UPDATE
from tests.order_oracle import OrderOracle, assert_orders_exact, serves_buckets
from tests.servers import Server
from tests.stepping import Session


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    return ordered_scenario.template(server)


@pytest.fixture
def stage(connect: Connect, database: URL) -> Iterator[Stage]:
    """The application's session; its folds run beside open transactions too."""
    with ordered_scenario.stage(connect, database, fold_every=3) as stage:
        yield stage


@pytest.mark.parametrize("script", SCENARIOS.values(), ids=SCENARIOS)
def test_transactions(stage: Stage, script: Scenario) -> None:
    stage.play(script)


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_snapshot_before_a_truncate(connect: Connect, engine: Engine, level: LiteralString) -> None:
    """To older snapshots PostgreSQL shows an emptied table as empty: so must we, and never what was folded once.

    A session that has taken no lock on the table is let through as soon as the TRUNCATE has committed.
    """
    app, old = connect(autocommit=True), connect(autocommit=True)
    tally = declared()
    for refilled in (False, True, False):
        app.execute(MORE)
        tally.fold(engine)
        old.execute("BEGIN ISOLATION LEVEL " + level)
        old.execute("SELECT count(*) FROM pg_class")
        app.execute("TRUNCATE item")
        if refilled:
            app.execute(ROWS)
        OrderOracle(old, tally, direct=True).check()
        tally.fold(engine)
        app.execute(UPDATE)
        seen = old.execute("SELECT count(*), tally.by_id_count() FROM item").fetchone()
        assert seen is not None
        assert seen[0] == seen[1]
        tally.fold(engine)
        OrderOracle(old, tally, direct=True).check()
        old.execute("ROLLBACK")
        app.execute(MORE)
        assert_orders_exact(engine, tally)


def test_a_reader_in_the_middle_of_a_truncate(session: Callable[[], Session], engine: Engine) -> None:
    """It waits as every query does; then its statement, whose snapshot is older, is answered like one on the table."""
    one, two, three = session(), session(), session()
    tally = declared()
    one.run("BEGIN").result()
    one.run("TRUNCATE item").result()
    kept = two.run("SELECT tally.by_id_count(), count(*) FROM item")
    assert kept.waiting
    direct = three.run("SELECT tally.by_id_count()")
    assert direct.waiting
    one.run(ROWS).result()
    one.run("COMMIT").result()
    assert kept.rows in ([(0, 0)], [(3, 3)])
    assert direct.rows in ([(0,)], [(3,)])
    assert_orders_exact(engine, tally)


def test_after_a_truncate_the_source_serves_until_a_fold(connect: Connect, engine: Engine) -> None:
    app = connect(autocommit=True)
    tally = declared()
    app.execute("TRUNCATE item")
    app.execute("INSERT INTO item (place, kind, size, price) SELECT 1, 'k1', i, i FROM generate_series(2, 40) AS s (i)")
    assert not any(serves_buckets(app, aggregate) for aggregate in tally.orders.values())
    assert_orders_exact(engine, tally)
    tally.fold(engine)
    assert all(serves_buckets(app, aggregate) for aggregate in tally.orders.values())
    assert_orders_exact(engine, tally)


def test_a_truncate_that_is_rolled_back_leaves_the_buckets(connect: Connect, engine: Engine) -> None:
    app = connect(autocommit=True)
    tally = declared()
    for end in ("ROLLBACK", "ROLLBACK TO s; COMMIT"):
        app.execute("BEGIN; SAVEPOINT s; TRUNCATE item")
        app.execute(ROWS)
        OrderOracle(app, tally).check()
        app.execute(end.encode())
        assert all(serves_buckets(app, aggregate) for aggregate in tally.orders.values())
        assert_orders_exact(engine, tally)
        tally.fold(engine)
        assert_orders_exact(engine, tally)


@pytest.mark.parametrize(("second", "written"), SECOND.values(), ids=SECOND)
@pytest.mark.parametrize(
    "first", ["UPDATE item SET place = 2, size = 33 WHERE id = 1", "DELETE FROM item WHERE id = 1"]
)
def test_second_writer_waits_and_looks_again(
    session: Callable[[], Session], engine: Engine, first: LiteralString, second: LiteralString, written: int
) -> None:
    """At READ COMMITTED it goes on with the row as the first has left it."""
    one, two = session(), session()
    tally = declared()
    one.run("BEGIN").result()
    one.run(first).result()
    waiting = two.run(second)
    assert waiting.waiting
    assert_orders_exact(engine, tally)
    tally.fold(engine)
    one.run("COMMIT").result()
    rows = waiting.result()
    if first.startswith("UPDATE"):
        assert len(rows) == written
    assert_orders_exact(engine, tally)
    tally.fold(engine)
    assert_orders_exact(engine, tally)


def test_truncate_waits_for_a_writer(session: Callable[[], Session], engine: Engine) -> None:
    """The marker comes after the deltas of everyone who has written before, and before everyone's after it."""
    one, two, three = session(), session(), session()
    tally = declared()
    for end in ("ROLLBACK", "COMMIT"):
        one.run("BEGIN").result()
        one.run(MORE).result()
        truncate = two.run("TRUNCATE item")
        assert truncate.waiting
        insert = three.run(ROWS)
        assert insert.waiting
        one.run(UPDATE).result()
        one.run("COMMIT" if end == "COMMIT" else "ROLLBACK").result()
        truncate.result()
        insert.result()
        assert_orders_exact(engine, tally)
        tally.fold(engine)
        assert_orders_exact(engine, tally)
