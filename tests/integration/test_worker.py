"""`tally worker`: what is due is folded, by whichever worker, whatever happens to it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import LiteralString

import psutil  # type: ignore[import-untyped]
import pytest
from psycopg import sql
from sqlalchemy import URL, Column, Date, Engine, Integer, MetaData, Table, Text

from tallystick import Tally, UsageError
from tallystick.cli.worker import work
from tallystick.maintain import worker as working_on
from tallystick.maintain.health import problems
from tallystick.maintain.stopping import Stop
from tallystick.maintain.worker import Settings, Worker
from tests.commands import ORDERS
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.servers import Connection
from tests.workers import WorkerProcess, until, waiting, working

AT_ONCE = ("--interval", "0.05", "--backlog", "1")
ADD: LiteralString = "INSERT INTO orders (region, total, placed) VALUES ('r1', 2.5, '2025-01-01')"
ORDERED = Table(
    "orders", MetaData(), Column("id", Integer, primary_key=True), Column("region", Text), Column("placed", Date),
    schema="public",
)  # fmt: skip


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(ORDERS)
    return connection


@pytest.fixture
def tally(app: Connection, engine: Engine) -> Tally:
    tally = Tally()
    tally.grouped(
        "by_region",
        "SELECT region, count(*) AS orders, sum(total) AS total, max(id) AS last FROM public.orders GROUP BY region",
    )
    tally.grouped("by_day", "SELECT placed, count(*) AS orders, min(total) AS least FROM public.orders GROUP BY placed")
    tally.install(engine)
    tally.backfill(engine)
    return tally


@pytest.fixture
def start(database: URL) -> Iterator[Callable[..., WorkerProcess]]:
    """Start a worker; those that still run are killed at the end."""
    running: list[WorkerProcess] = []

    def start(*options: str) -> WorkerProcess:
        worker = WorkerProcess(database, *options)
        running.append(worker)
        worker.until_said("started")
        return worker

    yield start
    for worker in running:
        worker.kill()


def backlog(connection: Connection, name: LiteralString) -> int:
    row = connection.execute(f"SELECT count(*) FROM tally.{name}__delta").fetchone()  # noqa: S608 (a literal name)
    assert row is not None
    return int(row[0])


def all_folded(connection: Connection, names: tuple[LiteralString, ...] = ("by_region", "by_day")) -> bool:
    return not any(backlog(connection, name) for name in names)


def rows(connection: Connection, query: LiteralString) -> list[tuple[object, ...]]:
    return connection.execute(query).fetchall()


def test_what_is_due_is_folded_until_sigterm(app: Connection, tally: Tally, database: URL, engine: Engine) -> None:
    with working(database, *AT_ONCE) as worker:
        until(lambda: rows(app, "SELECT FROM tally.worker"), "the worker's row")
        app.execute(ADD)
        until(lambda: all_folded(app), "the folds")
        assert_exact(engine, tally)
        assert worker.stop() < 5
        assert worker.said("stopped")
    assert rows(app, "SELECT FROM tally.worker") == []


def test_ctrl_c_ends_it_as_well(app: Connection, tally: Tally, start: Callable[..., WorkerProcess]) -> None:
    worker = start(*AT_ONCE)
    worker.ask_to_stop(signal.SIGINT)
    assert worker.popen.wait(5) == 0
    assert worker.lines == []


def test_few_rows_wait_until_they_are_old_or_many(
    app: Connection, tally: Tally, start: Callable[..., WorkerProcess], engine: Engine
) -> None:
    worker = start("--interval", "0.05", "--backlog", "10", "--max-age", "3600")
    for _ in range(9):
        app.execute(ADD)
    until(lambda: len(rows(app, "SELECT FROM tally.backlog")) == 2, "that the worker sees them")
    assert backlog(app, "by_region") == 9
    app.execute(ADD)
    worker.until_said("folded", aggregate="by_region", deltas=10)
    worker.until_said("folded", aggregate="by_day", deltas=10)
    until(lambda: rows(app, "SELECT FROM tally.backlog") == [], "that nothing waits")
    assert worker.stop() < 5

    start("--interval", "0.05", "--backlog", "10", "--max-age", "0.3")
    app.execute(ADD)
    until(lambda: all_folded(app), "the folds of old rows")
    assert_exact(engine, tally)


def test_two_workers_race_beside_writers(
    app: Connection, tally: Tally, connect: Connect, start: Callable[..., WorkerProcess], engine: Engine
) -> None:
    workers = [start("--interval", "0.05", "--backlog", "1"), start("--interval", "0.05", "--backlog", "1")]

    def write(connection: Connection, number: int) -> None:
        for i in range(150):
            connection.execute(
                "INSERT INTO orders (region, total, placed) VALUES (%s, %s, date '2025-01-01' + %s)",
                [f"r{number}", i, i % 9],
            )
            if i % 3 == 0:
                connection.execute("DELETE FROM orders WHERE id = (SELECT max(id) FROM orders WHERE region = 'r4')")

    writers = [threading.Thread(target=write, args=(connect(autocommit=True), number)) for number in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert_exact(engine, tally)
    until(lambda: all_folded(app), "the last folds")
    assert_exact(engine, tally)
    assert len(rows(app, "SELECT FROM tally.worker")) == 2
    assert [worker.stop() < 5 for worker in workers] == [True, True]
    assert not [each for worker in workers for each in worker.log if each["level"] in ("error", "warning")]


class Halted:
    """A fold that has begun and cannot end: another session holds the state's rows."""

    def __init__(self, app: Connection, holder: Connection, watcher: Connection) -> None:
        self.app, self.holder, self.watcher = app, holder, watcher
        holder.execute("SELECT FROM tally.by_region__state FOR UPDATE")
        app.execute(ADD)
        until(self.pids, "a fold that waits")

    def pids(self) -> list[int]:
        return waiting(self.watcher)

    def release(self) -> None:
        self.holder.rollback()


@pytest.fixture
def halt(app: Connection, connect: Connect) -> Callable[[], Halted]:
    return lambda: Halted(app, connect(), connect(autocommit=True))


def test_killed_in_a_fold(
    app: Connection, tally: Tally, halt: Callable[[], Halted], start: Callable[..., WorkerProcess], engine: Engine
) -> None:
    first = start(*AT_ONCE)
    halted = halt()
    first.kill()
    assert_exact(engine, tally)
    halted.release()
    second = start(*AT_ONCE)
    until(lambda: all_folded(app), "the other worker's folds")
    assert_exact(engine, tally)
    assert second.stop() < 5
    assert len(rows(app, "SELECT FROM tally.worker")) == 1, "the killed one could not take its row with it"


PHASES = {
    "look": "aggregate",
    "note": "backlog",
    "schedule": "schedule",
    "fold": "by_day__state",
    "purge": "event",
    "audit": "audit",
}


@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_every_phase(
    app: Connection, tally: Tally, connect: Connect, start: Callable[..., WorkerProcess], engine: Engine, phase: str
) -> None:
    app.execute(ADD)
    holder, watcher = connect(), connect(autocommit=True)
    holder.execute(sql.SQL("LOCK TABLE tally.{}").format(sql.Identifier(PHASES[phase])))
    first = start(*AT_ONCE, "--audit", "50%")
    until(lambda: waiting(watcher), "that it waits for the table")
    first.kill()
    holder.rollback()
    assert_exact(engine, tally)
    second = start(*AT_ONCE)
    app.execute(ADD)
    until(lambda: all_folded(app), "the other worker's folds")
    assert_exact(engine, tally)
    assert second.stop() < 5


def test_sigterm_in_a_fold_that_does_not_end(
    app: Connection, tally: Tally, halt: Callable[[], Halted], start: Callable[..., WorkerProcess], engine: Engine
) -> None:
    worker = start(*AT_ONCE)
    halted = halt()
    assert worker.stop() < 5
    assert worker.said("cut short", task="fold by_region")
    assert backlog(app, "by_region") == 1
    halted.release()
    assert_exact(engine, tally)


def test_sigterm_while_the_server_says_nothing(
    app: Connection, tally: Tally, halt: Callable[[], Halted], start: Callable[..., WorkerProcess], engine: Engine
) -> None:
    """As when the network is gone: neither an answer nor an end of the connection comes."""
    worker = start(*AT_ONCE)
    halted = halt()
    (pid,) = halted.pids()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert worker.stop() < 5
    finally:
        os.kill(pid, signal.SIGCONT)
    halted.release()
    assert_exact(engine, tally)


def test_a_fold_that_fails_is_told_and_tried_again_and_the_others_go_on(
    app: Connection, tally: Tally, start: Callable[..., WorkerProcess], engine: Engine
) -> None:
    app.execute("ALTER TABLE tally.by_region__state ADD CONSTRAINT broken CHECK (false) NOT VALID")
    worker = start(*AT_ONCE)
    app.execute(ADD)
    worker.until_said("folded", aggregate="by_day")
    worker.until_said("failed", task="fold by_region", level="error")
    assert next(each for each in worker.log if each["message"] == "failed")["next_try_s"] <= 1
    app.execute(ADD)
    until(lambda: all_folded(app, ("by_day",)), "the other aggregate's second fold")
    app.execute("ALTER TABLE tally.by_region__state DROP CONSTRAINT broken")
    until(lambda: all_folded(app), "the fold that failed")
    assert_exact(engine, tally)


def test_an_aggregate_in_ruins_is_told_and_the_others_go_on(
    app: Connection, tally: Tally, start: Callable[..., WorkerProcess]
) -> None:
    app.execute("DROP TABLE tally.by_region__delta CASCADE")
    worker = start(*AT_ONCE)
    worker.until_said("failed", task="look at by_region", level="error")
    app.execute(ADD)
    until(lambda: all_folded(app, ("by_day",)), "the other aggregate's fold")
    worker.until_said("folded", aggregate="by_day")
    assert not worker.said("no work done")


def test_a_lost_connection_is_made_anew(
    app: Connection, tally: Tally, start: Callable[..., WorkerProcess], engine: Engine
) -> None:
    worker = start(*AT_ONCE)
    until(lambda: rows(app, "SELECT FROM tally.worker"), "the worker's row")
    for _ in range(3):
        app.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'tally worker'"
        )
        app.execute(ADD)
        until(lambda: all_folded(app), "folds over a new connection")
    worker.until_said("no work done", level="error")
    assert worker.popen.poll() is None
    assert_exact(engine, tally)


def test_it_waits_for_an_installation(app: Connection, start: Callable[..., WorkerProcess], engine: Engine) -> None:
    worker = start(*AT_ONCE)
    tally = Tally()
    tally.grouped("by_region", "SELECT region, count(*) AS orders FROM public.orders GROUP BY region")
    tally.install(engine)
    app.execute(ADD)
    tally.backfill(engine)
    app.execute(ADD)
    worker.until_said("folded", aggregate="by_region")
    tally.uninstall(engine)
    tally.install(engine)
    tally.backfill(engine)
    app.execute(ADD)
    until(lambda: all_folded(app, ("by_region",)), "the fold after another install")
    assert_exact(engine, tally)


def test_readers_get_the_kept_half_back_without_a_delta(
    app: Connection, start: Callable[..., WorkerProcess], engine: Engine
) -> None:
    """VACUUM FULL moves the rows, TRUNCATE voids the state, a new partition is not counted: only a fold mends these."""
    app.execute("CREATE TABLE part (id integer, day date) PARTITION BY RANGE (day)")
    app.execute("CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')")
    tally = Tally()
    tally.ordered("by_date", ORDERED, namespace=[ORDERED.c.region], key=[ORDERED.c.placed])
    tally.grouped("by_part_day", "SELECT day, count(*) AS n FROM public.part GROUP BY day")
    tally.install(engine)
    tally.backfill(engine)
    assert all(each.serving == "kept" for each in tally.status(engine))
    start("--interval", "0.05")
    app.execute("VACUUM FULL orders")
    app.execute("CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2025-02-01') TO ('2025-03-01')")
    assert {each.serving for each in tally.status(engine)} == {"direct"}
    until(lambda: all(each.serving == "kept" for each in tally.status(engine)), "that both are served again")


def test_counters_are_folded(app: Connection, start: Callable[..., WorkerProcess], engine: Engine) -> None:
    tally = Tally()
    clicks = tally.counter("clicks", shards=2)
    tally.install(engine)
    worker = start("--interval", "0.05", "--backlog", "1")
    with engine.begin() as connection:
        connection.execute(clicks.add("a", 7))
    worker.until_said("folded", aggregate="clicks")
    until(lambda: tally.status(engine)[0].backlog == 0, "no fresh row")
    with engine.connect() as connection:
        assert connection.execute(clicks.counts(["a"])).all() == [("a", 7)]


def test_old_events_are_purged(app: Connection, tally: Tally, start: Callable[..., WorkerProcess]) -> None:
    app.execute("INSERT INTO tally.event (at, what) SELECT now() - interval '8 days', 'old' FROM generate_series(1, 5)")
    recent = rows(app, "SELECT id FROM tally.event WHERE what <> 'old'")
    assert recent
    start("--interval", "0.05", "--keep-events", "7")
    until(lambda: rows(app, "SELECT id FROM tally.event ORDER BY id") == recent, "that only recent events are left")


def test_it_verifies_part_by_part_and_tells_of_drift(
    app: Connection, tally: Tally, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working_on, "AUDIT_EVERY_S", 0.01)
    stop = Stop(engine)
    worker = Worker(engine, "tally", Settings(interval_s=0.05, audit=1.0), stop)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        passes = "SELECT aggregate FROM tally.audit WHERE passes > 1 AND drifted = 0 ORDER BY aggregate"
        until(lambda: app.execute(passes).fetchall() == [("by_day",), ("by_region",)], "two passes over both")
        app.execute("UPDATE tally.by_region__state SET n = n + 1 WHERE k1 = 'r2'")
        until(lambda: worker.done.drifted["by_region"], "the drift")
    finally:
        stop.request()
        thread.join()
    assert worker.done.drifted["by_day"] == 0
    assert rows(app, "SELECT DISTINCT aggregate FROM tally.event WHERE what = 'drift'") == [("by_region",)]
    assert [each.subject for each in problems(engine, "tally", tally.status(engine))] == ["by_region"]
    tally.repair(engine, only=["by_region"])
    assert problems(engine, "tally", tally.status(engine)) == []
    assert_exact(engine, tally)


@pytest.mark.parametrize("wrong", ["1", "much", "-1%", "101%", "nan%"])
def test_a_share_that_is_none(wrong: str) -> None:
    with pytest.raises(UsageError, match="no share of the time"):
        work(dsn="postgresql:///nowhere", schema="tally", audit=wrong)


@pytest.mark.slow
def test_idle_costs(app: Connection, tally: Tally, start: Callable[..., WorkerProcess]) -> None:
    """Under 1 % of a core, its backends' share included, and under 100 MB."""
    worker = start()
    until(lambda: rows(app, "SELECT FROM tally.worker"), "the worker's row")
    found = rows(app, "SELECT pid FROM pg_stat_activity WHERE application_name = 'tally worker'")
    processes = [psutil.Process(pid) for pid in (worker.popen.pid, *(int(str(pid)) for (pid,) in found))]

    def spent_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before_s = spent_s()
    with pytest.raises(Exception, match="timed out"):
        worker.popen.wait(10)
    assert spent_s() - before_s < 0.1
    assert processes[0].memory_info().rss < 100e6
