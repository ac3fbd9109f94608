"""A VACUUM of the source holds a lock that installers need, for as long as it takes; nobody else is kept waiting."""

from collections.abc import Iterator
from typing import LiteralString, cast

import psycopg
import pytest
from sqlalchemy import Engine

from tallystick import InstallError, Tally
from tests.conftest import Connect
from tests.isolation.stage import Beside, OpenSession, Operation, assert_exact_in, ok
from tests.oracle import assert_exact
from tests.servers import Connection

# Some 100 ms for each page: it is ended by the test.
SLOWLY: tuple[LiteralString, ...] = ("SET vacuum_cost_delay = 100", "SET vacuum_cost_limit = 1", "VACUUM message")
AT_WORK: LiteralString = "SELECT pid FROM pg_stat_progress_vacuum WHERE relid = 'message'::regclass"


@pytest.fixture(scope="session")
def template(with_table: str) -> str:
    """Nothing is installed yet."""
    return with_table


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_ATTEMPTS", 2)
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_PAUSE_S", 0.01)


@pytest.fixture
def watcher(connect: Connect) -> Connection:
    """A superuser's session, and a table of many pages."""
    watcher = connect(autocommit=True)
    watcher.execute("ALTER TABLE message SET (fillfactor = 10)")
    watcher.execute(
        "INSERT INTO message (chat, size, author) SELECT i % 7, i, 'ann' FROM generate_series(1, 2000) AS i"
    )
    return watcher


@pytest.fixture
def vacuum(beside: Beside, watcher: Connection) -> Iterator[Operation[None]]:
    """A VACUUM at work; if it still is at the end, it is cancelled."""

    def run(engine: Engine) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as borrowed:
            connection = cast(Connection, borrowed.connection.driver_connection)
            for statement in SLOWLY:
                connection.execute(statement)

    vacuum = beside.start(run)
    vacuum.until(lambda: watcher.execute(AT_WORK).fetchone() is not None)
    yield vacuum
    if watcher.execute(AT_WORK).fetchone() is not None:
        cancel(watcher, vacuum)


def cancel(watcher: Connection, vacuum: Operation[None]) -> None:
    watcher.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_vacuum WHERE relid = 'message'::regclass")
    with pytest.raises(psycopg.errors.QueryCanceled):
        vacuum.result()


def _pid(watcher: Connection) -> int:
    row = watcher.execute(AT_WORK).fetchone()
    assert row is not None
    return int(row[0])


def test_install_names_it_and_waits_in_no_queue(
    watcher: Connection, vacuum: Operation[None], session: OpenSession, beside: Beside, tally: Tally, impatient: None
) -> None:
    writer = session()
    with pytest.raises(InstallError, match=rf"locked by pid {_pid(watcher)} .*VACUUM message"):
        beside.run(tally.install)
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 1)")
    cancel(watcher, vacuum)
    beside.run(tally.install)
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 2)")
    assert_exact_in(tally, writer)


def test_install_comes_through_when_it_has_ended(
    watcher: Connection,
    vacuum: Operation[None],
    beside: Beside,
    engine: Engine,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_ATTEMPTS", 1000)
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_PAUSE_S", 0.02)
    install = beside.start(tally.install).until_pausing()
    cancel(watcher, vacuum)
    assert install.result() == [aggregate.name for aggregate in tally]
    beside.run(tally.backfill)
    assert_exact(engine, tally)


def test_maintenance_goes_on_beside_it(
    session: OpenSession, watcher: Connection, beside: Beside, tally: Tally, impatient: None,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """Folds, checks and a first backfill do not need the lock; removal does, and says who has it."""
    beside.run(tally.install)
    vacuum: Operation[None] = request.getfixturevalue("vacuum")
    writer = session()
    beside.run(lambda engine: tally.backfill(engine, chunk_rows=500))
    for _ in range(2):
        ok(writer, "UPDATE message SET size = size + 1, chat = chat + 1 WHERE id % 100 = 1")
        beside.run(tally.fold)
        assert all(report.is_exact for report in beside.run(tally.verify))
        assert_exact_in(tally, writer)
    with pytest.raises(InstallError, match=rf"locked by pid {_pid(watcher)} "):
        beside.run(tally.uninstall)
    cancel(watcher, vacuum)
    assert_exact_in(tally, writer)
    beside.run(tally.uninstall)
