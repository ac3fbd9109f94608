"""How long a backfill rests beside others; beside replicas that lag, in tests/crash/test_standby.py."""

import pytest
from sqlalchemy import Engine

from tallystick.maintain.pace import Pace
from tests.backfills import Noted
from tests.conftest import Connect
from tests.servers import Connection


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute("CREATE TABLE item (id integer)")
    return connection


@pytest.mark.parametrize(("workers", "rest_s"), [(1, 18.0), (2, 38.0)])
@pytest.mark.usefixtures("app")
def test_beside_writers_all_workers_together_take_a_tenth_of_the_time(
    connect: Connect, engine: Engine, workers: int, rest_s: float
) -> None:
    noted, writer, reader = Noted(), connect(), connect()
    pace = Pace(engine, "tally", workers, None, noted)
    reader.execute("SELECT FROM item")
    pace.rest(1000, took_s=2.0)
    writer.execute("INSERT INTO item VALUES (1)")
    pace.rest(1000, took_s=2.0)
    writer.rollback()
    pace.rest(1000, took_s=2.0)
    assert noted.waits == [0, rest_s, 0]


@pytest.mark.usefixtures("app")
def test_no_more_rows_a_second_than_allowed(connect: Connect, engine: Engine) -> None:
    noted, writer = Noted(), connect()
    pace = Pace(engine, "tally", 2, 100, noted)
    pace.rest(1000, took_s=0.5)
    pace.rest(500, took_s=0.5)
    assert noted.waits == [pytest.approx(10, abs=1.5), pytest.approx(15, abs=1.5)]
    writer.execute("INSERT INTO item VALUES (1)")
    pace.rest(1, took_s=100.0)
    assert noted.waits[-1] == 1900
