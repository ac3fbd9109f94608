"""Everything through PgBouncer in transaction mode, where each transaction may run in another session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import cast

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Engine, create_engine, select

from tallystick import Tally, direct_of
from tallystick.maintain import schedule
from tallystick.store.connection import transaction
from tests.commands import ran
from tests.conftest import Connect
from tests.crash import world
from tests.crash.world import Load, Repeated
from tests.oracle import differences
from tests.pgbouncer import BACKENDS, pgbouncer
from tests.servers import Connection, Server
from tests.workers import working

# What an application needs before PgBouncer 1.21, for its own statements as for the reads of aggregates.
PREPARES_NOTHING = {"prepare_threshold": None}


@pytest.fixture
def bounced(server: Server, database: URL, tmp_path: Path) -> Iterator[URL]:
    """URL of the test's database through PgBouncer, which has all its backends open."""
    with pgbouncer(server, tmp_path) as through, ExitStack() as opened:
        url = through.set(database=database.database)
        connect_through = partial(psycopg.connect, url.set(drivername="postgresql").render_as_string())
        for _ in range(BACKENDS):
            opened.enter_context(connect_through()).execute("SELECT")
        opened.close()
        yield url


@pytest.fixture
def connect_through(bounced: URL) -> Callable[[], Connection]:
    """Open connections of the application through PgBouncer."""
    dsn = bounced.set(drivername="postgresql").render_as_string()
    return partial(psycopg.connect, dsn, prepare_threshold=None)


@pytest.fixture
def through(bounced: URL) -> Iterator[Engine]:
    """An engine through PgBouncer as anybody makes one; its connection is kept, and used again and again."""
    engine = create_engine(bounced)
    yield engine
    engine.dispose()


@pytest.fixture
def tally(through: Engine, connect: Connect) -> Tally:
    """The aggregates of the world, installed through PgBouncer."""
    return world.build(through, connect())


def test_sessions_change_under_a_client(connect_through: Callable[[], Connection]) -> None:
    """What these tests rely on."""
    with closing(connect_through()) as connection:
        connection.autocommit = True
        pids = {connection.execute("SELECT pg_backend_pid()").fetchone() for _ in range(2 * BACKENDS)}
    assert len(pids) == BACKENDS


@pytest.mark.slow
def test_the_whole_life_under_load(
    through: Engine, engine: Engine, tally: Tally, connect_through: Callable[[], Connection]
) -> None:
    """The same statements, for all aggregates, more often than psycopg waits before it prepares one."""
    load, folding = Load(connect_through), Repeated(partial(tally.fold, through))
    coming = world.coming_and_going()
    for _ in range(3):
        tally.plan(through)
        assert tally.install(through) == []
        tally.backfill(through, force=True, chunk_rows=500, workers=2)
        assert all(report.is_exact for report in tally.verify(through))
        tally.status(through)
        assert [finding for finding in tally.doctor(through) if finding.level == "error"] == []
        coming.install(through)
        coming.backfill(through)
        coming.uninstall(through)
    load.until_committed(50)
    committed = load.stop()
    folding.stop()
    world.check(engine, tally, committed)
    world.check_copies(through, tally)
    assert len(tally.uninstall(through)) == len(tally.kept()) + len(tally.counters)


def test_changes_and_the_way_back(through: Engine, engine: Engine, tally: Tally) -> None:
    world.narrow.install(through)
    world.narrow.backfill(through)
    for each in (world.wide, world.narrow):
        assert [result.changes != () for result in each.redefine(through)] == [True]
        world.check_authors(engine)
    renamed = Tally()
    renamed.grouped("writers", world.narrow["authors"].definition)
    renamed.rename(through, "authors", "writers")
    world.damage(through)
    assert [result.groups for result in tally.repair(through, only=[*world.DAMAGE])] == [1, 1]
    tally.rollback(through)
    assert {result.serving for result in tally.resume(through)} == {"kept"}
    assert {report.status for report in tally.verify(through, rolling=True)} == {"exact"}
    schedule.add(through, "tally", "nightly", "0 0 * * *", "verify")
    with transaction(engine) as cursor:
        cursor.execute("UPDATE tally.schedule SET due_at = now()")
    done = schedule.run_if_due(through, "tally", "nightly")
    assert done is not None
    assert {report.status for report in done.reports} == {"exact"}
    world.check(engine, tally, set())


def test_a_worker(bounced: URL, tally: Tally, connect: Connect) -> None:
    app = connect(autocommit=True)
    with working(bounced, "--interval", "0.05", "--backlog", "1", "--audit", "50%") as worker:
        app.execute("INSERT INTO message (chat_id, author, size) VALUES (1, 'new', 5)")
        worker.until_said("folded", aggregate="by_size")
        worker.until_said("audited")
        assert worker.stop() < 5
    assert not [each for each in worker.log if each["level"] in ("error", "warning")]


def test_reads(bounced: URL, tally: Tally, connect: Connect) -> None:
    connect(autocommit=True).execute("DELETE FROM message WHERE size IN (0, 49)")
    engine = create_engine(bounced, connect_args=PREPARES_NOTHING)
    order = tally.orders["by_size"]
    values = [
        order.count("author 3", lower=7), order.rank("author 3", key=20), order.sum("bytes", "author 1", upper=9),
        tally["by_chat"].value("messages", chat_id=5),
    ]  # fmt: skip
    rows = [
        order.page("author 2", limit=5), order.at("author 2", offset=-3), order.percentile("author 4", p=0.5),
        tally["by_author"].top("n", 3), tally["by_chat"].get(chat_id=7),
    ]  # fmt: skip
    for _ in range(8):
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            for value in values:
                assert connection.scalar(select(value)) == connection.scalar(select(direct_of(value)))
            for read in rows:
                assert connection.execute(read).all() == connection.execute(direct_of(read)).all()
            connection.execute(tally.counters["clicks"].add_many({"a": 2, "b": 3}))
            assert differences(cast(Connection, connection.connection.driver_connection), tally) == []
            connection.commit()
    with engine.connect() as connection:
        assert connection.execute(tally.counters["clicks"].counts(["a", "b"])).all() == [("a", 16), ("b", 24)]
    engine.dispose()


def test_commands(bounced: URL, tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    dsn = bounced.set(drivername="postgresql").render_as_string()
    for command in ("backfill", "fold", "verify", "status", "doctor"):
        done = ran(capsys, command, "--dsn", dsn, "--schema", "tally")
        assert done.code == 0, done.err


def test_no_setting_is_left_in_a_session(
    server: Server, bounced: URL, database: URL, through: Engine, connect: Connect
) -> None:
    """The build of an index lifts the time-out of its session; behind PgBouncer that may be somebody else's by then."""
    superuser = connect(autocommit=True)
    superuser.execute(world.TABLES)
    assert database.database is not None
    superuser.execute(
        sql.SQL("ALTER DATABASE {} SET statement_timeout = '77s'").format(sql.Identifier(database.database))
    )
    superuser.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE client_addr IS NULL"
                      " AND pid <> pg_backend_pid() AND datname = current_database()")  # fmt: skip
    tally = Tally()
    tally.ordered("by_size", world.message, namespace=[world.message.c.author], key=[world.message.c.size])
    tally.install(through)
    tally.backfill(through)
    dsn = bounced.set(drivername="postgresql").render_as_string()
    with ExitStack() as opened:
        for _ in range(BACKENDS):
            connection = opened.enter_context(closing(psycopg.connect(dsn)))
            assert connection.execute("SHOW statement_timeout").fetchone() == ("77s",)


@pytest.mark.slow
def test_backends_that_are_terminated(
    engine: Engine, tally: Tally, through: Engine, connect: Connect, connect_through: Callable[[], Connection]
) -> None:
    """pg_terminate_backend for all of them in the middle, again and again."""
    superuser, committed = connect(autocommit=True), set[int]()
    backfill = partial(tally.backfill, force=True, chunk_rows=500)
    for operation in (tally.fold, backfill, tally.verify):
        load, running = Load(connect_through), Repeated(partial(operation, through))
        running.until_begun()
        load.until_committed(40)
        superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        committed |= load.stop()
        running.stop()
        engine.dispose()  # its sessions are terminated, too
        world.check(engine, tally, committed)
        tally.backfill(through)
    tally.fold(through)
    world.check_copies(through, tally)
    world.check(engine, tally, committed)
