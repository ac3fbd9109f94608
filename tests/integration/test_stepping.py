"""The tool for stepped tests tells a statement that waits from one that has finished."""

from collections.abc import Callable

import psycopg
import pytest

from tests.conftest import Connect
from tests.stepping import Session

OpenSession = Callable[[], Session]


@pytest.fixture
def row(connect: Connect) -> None:
    """A table with one row, to be fought over."""
    with connect() as connection:
        connection.execute("CREATE TABLE counter (n int); INSERT INTO counter VALUES (1)")


def test_finished_statement_has_rows(session: OpenSession) -> None:
    step = session().run("SELECT n * %s FROM generate_series(1, 3) AS s (n)", [2])
    assert not step.waiting
    assert step.rows == [(2,), (4,), (6,)]


def test_slow_statement_does_not_wait(session: OpenSession) -> None:
    assert not session().run("SELECT pg_sleep(0.05)").waiting


def test_second_writer_waits_for_first(row: None, session: OpenSession) -> None:
    first, second = session(), session()
    first.run("BEGIN").result()
    assert not first.run("UPDATE counter SET n = n + 1").waiting
    blocked = second.run("UPDATE counter SET n = n * 10 RETURNING n")
    assert blocked.waiting
    first.run("COMMIT").result()
    assert blocked.result() == [(20,)]


def test_writer_waits_for_prepared_transaction(row: None, session: OpenSession) -> None:
    first, second = session(), session()
    for statement in ("BEGIN", "UPDATE counter SET n = 5", "PREPARE TRANSACTION 'stepping'"):
        first.run(statement).result()
    blocked = second.run("UPDATE counter SET n = n + 1 RETURNING n")
    assert blocked.waiting
    first.run("COMMIT PREPARED 'stepping'").result()
    assert blocked.result() == [(6,)]


def test_deadlock_is_raised_by_its_victim(row: None, session: OpenSession) -> None:
    first, second = session(), session()
    second.run("SET deadlock_timeout = '10ms'").result()  # so that it is the one to find out
    for each, key in ((first, 1), (second, 2)):
        each.run("BEGIN").result()
        each.run("SELECT pg_advisory_xact_lock(%s)", [key]).result()
    blocked = first.run("SELECT pg_advisory_xact_lock(2)")
    assert blocked.waiting
    closing = second.run("SELECT pg_advisory_xact_lock(1)")
    with pytest.raises(psycopg.errors.DeadlockDetected):
        closing.result()
    second.run("ROLLBACK").result()
    assert blocked.result() == [("",)]


def test_unseen_error_is_raised_on_close(session: OpenSession) -> None:
    failing = session()
    failing.run("SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        failing.close()


def test_waiting_statement_is_cancelled_on_close(row: None, session: OpenSession) -> None:
    first, second = session(), session()
    first.run("BEGIN").result()
    first.run("LOCK TABLE counter").result()
    blocked = second.run("SELECT FROM counter")
    assert blocked.waiting
    second.close()
    with pytest.raises(psycopg.errors.QueryCanceled):
        blocked.result()
