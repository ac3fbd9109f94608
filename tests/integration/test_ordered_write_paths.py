"""Ordered aggregates beside every statement and every client's way to write rows."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.conftest import Connect
from tests.integration import ordered_scenario
from tests.integration.scenario import Scenario, Stage
from tests.integration.test_write_paths import (
    STATEMENTS,
    copy,
    steps,
    test_copy,
    test_core,
    test_expression_of_a_generated_column_changes,
    test_merge_of_what_the_source_lacks,
    test_orm_unit_of_work,
    test_psycopg_executemany_and_pipeline,
    test_returning_old_and_new,
)
from tests.order_oracle import assert_orders_exact, assert_reads, levels, serves_buckets
from tests.servers import Server

__all__ = [
    "test_copy",
    "test_core",
    "test_expression_of_a_generated_column_changes",
    "test_merge_of_what_the_source_lacks",
    "test_orm_unit_of_work",
    "test_psycopg_executemany_and_pipeline",
    "test_returning_old_and_new",
]


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    return ordered_scenario.template(server)


@pytest.fixture
def stage(connect: Connect, database: URL) -> Iterator[Stage]:
    """The application's session, with a fold after every second statement."""
    with ordered_scenario.stage(connect, database, fold_every=2) as stage:
        yield stage


@pytest.mark.parametrize("script", STATEMENTS.values(), ids=STATEMENTS)
def test_statements(stage: Stage, script: Scenario) -> None:
    stage.play(script)


def test_the_stage_is_set(stage: Stage) -> None:
    """The scenarios are about buckets in several levels, and readers are served from them."""
    for name, aggregate in stage.tally.orders.items():
        assert serves_buckets(stage.app, aggregate)
        assert levels(stage.app, aggregate) == (3 if name == "by_id" else 2)
        assert_reads(stage.engine, aggregate)


def test_copy_frozen_after_truncate(stage: Stage) -> None:
    """Rows that are visible to every snapshot at once, with deltas that are not: the lock keeps readers out."""
    for number in steps(stage):
        with stage.app.transaction():
            stage.app.execute("TRUNCATE item")
            copy(stage.app, "COPY item (place, size) FROM STDIN (FREEZE)", [(1, number), (2, 5), (None, 6)])
        stage.check()
        assert stage.app.execute("SELECT tally.by_id_count()").fetchone() == (3,)


def test_many_rows_at_once_and_away_again(stage: Stage) -> None:
    """Buckets split over all levels in one fold, and are joined again until none is left."""
    stage.app.execute(
        "INSERT INTO item (place, kind, size, price) SELECT 2, 'k1', i % 90, i FROM generate_series(1, 100) AS s (i)"
    )
    stage.fold()
    assert levels(stage.app, stage.tally.orders["by_size"]) == 3
    assert_orders_exact(stage.engine, stage.tally)
    for rest in (7, 3, 0):
        stage.app.execute("DELETE FROM item WHERE mod(id + size, 8) > %s", [rest])
        stage.check()
    stage.app.execute("DELETE FROM item")
    stage.fold()
    assert {levels(stage.app, aggregate) for aggregate in stage.tally.orders.values()} == {0}
