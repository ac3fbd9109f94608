"""Time-outs that a database or a role has: what takes long lifts them, what would wait fails whole."""

from collections.abc import Callable
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Engine

from tallystick import FoldLocked, InstallError, Tally
from tallystick.maintain import schedule
from tallystick.maintain.audit import audit_step
from tests.conftest import Connect
from tests.isolation.stage import Beside, OpenSession, assert_exact_in, ok
from tests.oracle import assert_exact
from tests.servers import Connection

# 40 rows take longer than the time-out.
SLOW: LiteralString = """
CREATE FUNCTION slow(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE
AS $$ BEGIN PERFORM pg_sleep(0.03); RETURN $1 % 3; END $$;
INSERT INTO message (chat, size) SELECT i, i + 100 FROM generate_series(1, 40) AS s (i);
"""
THIRDS = "SELECT slow(size) AS third, count(*) AS n, max(size) AS most FROM message GROUP BY slow(size)"
WRONG: LiteralString = "UPDATE tally.thirds__state SET n = n + 1 WHERE k1 = 1"
LIMITS: tuple[LiteralString, ...] = (
    "statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout",
)  # fmt: skip
OPERATIONS: dict[str, Callable[[Tally, Engine], object]] = {
    "fold": Tally.fold,
    "backfill": lambda tally, engine: tally.backfill(engine, force=True),
    "uninstall": Tally.uninstall,
}


@pytest.fixture
def with_default(database: URL, engine: Engine, connect: Connect) -> Callable[[LiteralString, str], None]:
    """Set what sessions of the test's database begin with; those that the engine keeps end."""
    superuser = connect(autocommit=True)

    def set_default(setting: LiteralString, value: str) -> None:
        assert database.database is not None
        superuser.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                sql.Identifier(database.database), sql.SQL(setting), sql.Literal(value)
            )
        )
        engine.dispose()

    return set_default


def test_statements_that_take_longer_than_statement_timeout(
    engine: Engine, connect: Connect, with_default: Callable[[LiteralString, str], None]
) -> None:
    """The life of an aggregate whose direct query no session of this database may finish."""
    app: Connection = connect(autocommit=True)
    app.execute(SLOW)
    tally = Tally()
    tally.grouped("thirds", THIRDS)
    tally.install(engine)
    limits = [limit for limit in LIMITS if app.info.server_version >= 170_000 or limit != "transaction_timeout"]
    for limit in limits:
        with_default(limit, "1s")
    with pytest.raises((psycopg.errors.QueryCanceled, psycopg.errors.TransactionTimeout)):
        connect().execute(THIRDS.encode())
    tally.backfill(engine)
    app.execute("DELETE FROM message WHERE size > 136")  # the fold looks for the greatest again
    assert [result.deltas > 0 for result in tally.fold(engine)] == [True]
    assert [tally.verify(engine, rolling=True)[0].status, tally.verify(engine, sample=3)[0].status] == ["exact"] * 2
    app.execute(WRONG)
    assert audit_step(engine, "tally", "thirds").report.drifted == 1
    assert [result.groups for result in tally.repair(engine)] == [1]
    tally.rollback(engine)
    assert [result.serving for result in tally.resume(engine)] == ["kept"]
    schedule.add(engine, "tally", "nightly", "0 0 * * *", "verify", "thirds")
    app.execute("UPDATE tally.schedule SET due_at = now()")
    done = schedule.run_if_due(engine, "tally", "nightly")
    assert done is not None
    assert [report.status for report in done.reports] == ["exact"]
    for limit in limits:
        with_default(limit, "1min")
    assert_exact(engine, tally)
    tally.uninstall(engine)


def test_a_timeout_is_not_the_fault_of_a_declaration(
    engine: Engine, connect: Connect, with_default: Callable[[LiteralString, str], None]
) -> None:
    """Install tries the expressions on some rows; nothing is left behind when that takes too long."""
    app = connect(autocommit=True)
    app.execute(SLOW)
    tally = Tally()
    tally.grouped("thirds", THIRDS)
    with_default("statement_timeout", "1s")
    with pytest.raises(psycopg.errors.QueryCanceled):
        tally.install(engine)
    assert app.execute("SELECT count(*) FROM pg_class WHERE relname ~ '^thirds'").fetchone() == (0,)
    with_default("statement_timeout", "1min")
    tally.install(engine)
    tally.backfill(engine)
    assert_exact(engine, tally)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_lock_timeout_while_somebody_holds_our_rows(
    session: OpenSession,
    beside: Beside,
    engine: Engine,
    tally: Tally,
    with_default: Callable[[LiteralString, str], None],
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
) -> None:
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_ATTEMPTS", 2)
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_PAUSE_S", 0.01)
    holder, writer = session(), session()
    with_default("lock_timeout", "50ms")
    ok(writer, "UPDATE message SET chat = 3, author = 'eve' WHERE id = 1", "DELETE FROM message WHERE size = 20")
    ok(holder, "BEGIN", "SELECT FROM tally.counts__state FOR UPDATE", "SELECT FROM tally.authors__state FOR UPDATE")
    with pytest.raises((psycopg.errors.LockNotAvailable, FoldLocked, InstallError)):
        beside.start(lambda engine: OPERATIONS[operation](tally, engine)).result()
    ok(writer, "INSERT INTO message (chat, size, author) VALUES (3, 7, 'dan')")
    assert_exact_in(tally, holder, writer)
    ok(holder, "COMMIT")
    assert_exact(engine, tally)
    OPERATIONS[operation](tally, engine)
    tally.install(engine)
    tally.backfill(engine)
    assert_exact(engine, tally)


def test_verify_waits_longer_than_statement_timeout_for_a_truncate(
    session: OpenSession,
    beside: Beside,
    connect: Connect,
    tally: Tally,
    with_default: Callable[[LiteralString, str], None],
) -> None:
    truncates, watcher = session(), connect(autocommit=True)
    with_default("statement_timeout", "1s")
    ok(truncates, "BEGIN", "TRUNCATE message")
    verify = beside.start(tally.verify)
    longer: LiteralString = (
        "SELECT FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND clock_timestamp() > query_start + interval '2 s'"
    )
    verify.until(lambda: watcher.execute(longer).fetchone() is not None)
    assert verify.is_waiting
    ok(truncates, "COMMIT")
    assert [report.status for report in verify.result()] == ["exact"] * len(tally)
