"""Schedules: each due time is done once, wholly or not at all, however many workers there are, and after downtime."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Engine

from tallystick import NotInstalled, Tally, UsageError
from tallystick.maintain import schedule
from tests.conftest import Connect
from tests.servers import Connection
from tests.workers import until, waiting, working

MIDNIGHT = "0 0 * * *"


@pytest.fixture
def tally(engine: Engine, app: Connection) -> Tally:
    app.execute("CREATE TABLE t (id integer PRIMARY KEY, kind text)")
    app.execute("INSERT INTO t SELECT i, 'k' FROM generate_series(1, 9) AS i")
    tally = Tally()
    tally.counter("clicks", shards=3)
    tally.grouped("kinds", "SELECT kind, count(*) AS n FROM public.t GROUP BY kind")
    tally.install(engine)
    tally.backfill(engine, only=["kinds"])
    return tally


@pytest.fixture
def app(connect: Connect) -> Connection:
    return connect(autocommit=True)


@pytest.fixture
def midnight(engine: Engine, tally: Tally) -> str:
    """Name of a schedule that resets a counter."""
    return schedule.add(engine, "tally", "midnight", MIDNIGHT, "reset", "clicks").name


def add(connection: Connection, key: str, n: int) -> None:
    connection.execute("SELECT tally.counter_add('clicks', %s, %s)", [key, n])


def counts(connection: Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT key, count FROM tally.clicks").fetchall())


def make_due(connection: Connection, ago: str = "1 second") -> None:
    connection.execute("UPDATE tally.schedule SET due_at = now() - %s::interval", [ago])


def told(connection: Connection, what: str) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT aggregate, detail FROM tally.event WHERE what = %s ORDER BY id", [what]
    ).fetchall()


def test_the_next_time_lies_ahead_by_the_clock_of_the_database(app: Connection, engine: Engine, midnight: str) -> None:
    (found,) = schedule.every(engine, "tally")
    row = app.execute("SELECT date_trunc('day', now(), 'UTC') + interval '1 day'").fetchone()
    assert row == (found.due_at,)
    assert (found.done_at, found.aggregate, found.key) == (None, "clicks", None)
    assert schedule.run_if_due(engine, "tally", midnight) is None, "it is not due"


def test_of_many_workers_one_does_it(app: Connection, engine: Engine, midnight: str) -> None:
    for round_number in range(5):
        add(app, "a", 5)
        add(app, "b", 2)
        make_due(app)
        with ThreadPoolExecutor(6) as pool:
            outcomes = list(pool.map(lambda _: schedule.run_if_due(engine, "tally", midnight), range(6)))
        assert [outcome.keys for outcome in outcomes if outcome is not None] == [2]
        assert counts(app) == {}
        assert len(told(app, "reset")) == round_number + 1


def test_missed_times_are_made_up_for_once(app: Connection, database: URL, engine: Engine, midnight: str) -> None:
    add(app, "a", 5)
    make_due(app, "10 days 3 hours")
    with working(database, "--interval", "0.05") as first, working(database, "--interval", "0.05") as second:
        until(lambda: told(app, "reset"), "the reset")
        add(app, "a", 7)
        app.execute("INSERT INTO t VALUES (100, 'k')")
        until(lambda: first.said("folded") or second.said("folded"), "that workers have gone on")
    assert counts(app) == {"a": 7}
    assert len(told(app, "reset")) == 1
    (found,) = schedule.every(engine, "tally")
    assert found.done_at is not None
    assert found.done_at < found.due_at <= found.done_at + timedelta(days=1)


def test_each_due_time_once_beside_two_workers_one_of_which_is_killed(
    app: Connection, database: URL, engine: Engine, tally: Tally
) -> None:
    schedule.add(engine, "tally", "ticks", "* * * * * *", "reset", "clicks")  # six fields: every second
    with working(database, "--interval", "0.05") as first, working(database, "--interval", "0.05"):
        until(lambda: len(told(app, "reset")) >= 1, "the first reset")
        first.kill()
        until(lambda: len(told(app, "reset")) >= 3, "resets by the other")
    dues = [detail["due_at"] for _, detail in told(app, "reset")]
    assert dues == sorted(set(dues))


TASKS: dict[str, tuple[str, LiteralString]] = {
    "reset": ("clicks", "tally.counter_set"),
    "verify": ("kinds", "tally.kinds__state"),
}


@pytest.mark.parametrize("task", TASKS)
def test_killed_in_a_task(
    app: Connection, connect: Connect, database: URL, engine: Engine, tally: Tally, task: str
) -> None:
    """It is due still, and the next worker does it, once."""
    subject, table = TASKS[task]
    schedule.add(engine, "tally", "nightly", MIDNIGHT, task, subject)
    add(app, "a", 5)
    holder = connect()
    holder.execute(sql.SQL("LOCK TABLE {}").format(sql.SQL(table)))
    make_due(app)
    with working(database, "--interval", "0.05", "--audit", "0") as first:
        until(lambda: waiting(app), "that it waits in the task")
        first.kill()
    holder.rollback()
    assert (told(app, task), counts(app)) == ([], {"a": 5})
    with working(database, "--interval", "0.05"):
        until(lambda: told(app, task), "that the other one does it")
        app.execute("INSERT INTO t VALUES (100, 'k')")
        until(lambda: not app.execute("SELECT FROM tally.kinds__delta").fetchall(), "that it has gone on")
    assert [aggregate for aggregate, _ in told(app, task)] == [subject]
    assert counts(app) == ({} if task == "reset" else {"a": 5})


def test_effect_and_note_are_one_transaction(app: Connection, engine: Engine, midnight: str) -> None:
    add(app, "a", 5)
    make_due(app)
    app.execute("ALTER TABLE tally.schedule ADD CONSTRAINT broken CHECK (done_at IS NULL)")
    with pytest.raises(psycopg.errors.CheckViolation):
        schedule.run_if_due(engine, "tally", midnight)
    assert counts(app) == {"a": 5}
    assert told(app, "reset") == []
    app.execute("ALTER TABLE tally.schedule DROP CONSTRAINT broken")
    assert schedule.run_if_due(engine, "tally", midnight) is not None
    assert counts(app) == {}


def test_an_add_that_commits_after_the_reset_counts(
    app: Connection, connect: Connect, engine: Engine, midnight: str
) -> None:
    add(app, "a", 5)
    late = connect()
    add(late, "a", 3)
    make_due(app)
    assert schedule.run_if_due(engine, "tally", midnight) is not None
    assert counts(app) == {}
    late.commit()
    assert counts(app) == {"a": 3}


def test_one_key_alone(app: Connection, engine: Engine, tally: Tally) -> None:
    add(app, "a", 5)
    add(app, "b", 2)
    schedule.add(engine, "tally", "only_a", MIDNIGHT, "reset", "clicks", "a")
    make_due(app)
    assert schedule.run_if_due(engine, "tally", "only_a") is not None
    assert counts(app) == {"b": 2}


def test_a_verification_tells_of_drift(app: Connection, engine: Engine, tally: Tally) -> None:
    schedule.add(engine, "tally", "nightly", MIDNIGHT, "verify")
    for damage, status in (("SELECT", "exact"), ("UPDATE tally.kinds__state SET n = n + 1", "drift")):
        app.execute(damage)
        make_due(app)
        outcome = schedule.run_if_due(engine, "tally", "nightly")
        assert outcome is not None
        assert [(each.aggregate, each.status) for each in outcome.reports] == [("kinds", status)]
        name, detail = told(app, "verify")[-1]
        assert (name, detail["status"], detail["schedule"]) == ("kinds", status, "nightly")


def test_a_counter_that_is_gone_is_told_and_others_are_done(
    app: Connection, database: URL, engine: Engine, tally: Tally, midnight: str
) -> None:
    schedule.add(engine, "tally", "nightly", MIDNIGHT, "verify")
    tally.uninstall(engine, only=["clicks"])
    make_due(app)
    with working(database, "--interval", "0.05") as worker:
        worker.until_said("failed", task="schedule midnight", level="error")
        worker.until_said("verified", aggregate="kinds", status="exact")
    assert {each.name: each.done_at is None for each in schedule.every(engine, "tally")} == {
        "midnight": True, "nightly": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x", "often", "verify"), '"often" is no cron expression'),
        (("x", "0 0 30 2 *", "verify"), "no cron expression: bad day-of-month"),
        (("x", MIDNIGHT, "dance"), 'there is no task "dance"'),
        (("x", MIDNIGHT, "reset"), "which counter"),
        (("x", MIDNIGHT, "reset", "kinds"), 'counter "kinds" is not installed'),
        (("x", MIDNIGHT, "verify", "clicks"), "nothing to verify"),
        (("x", MIDNIGHT, "verify", "kinds", "a"), "a key has no meaning"),
        (("", MIDNIGHT, "verify"), "needs a name"),
        (("midnight", MIDNIGHT, "verify"), 'there is a schedule "midnight"'),
    ],
)
def test_what_cannot_be_scheduled(engine: Engine, midnight: str, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises((UsageError, NotInstalled), match=said):
        schedule.add(engine, "tally", *arguments)
    assert [each.name for each in schedule.every(engine, "tally")] == ["midnight"]


def test_the_time_after_another() -> None:
    at = datetime(2024, 2, 28, 23, 59, 30, tzinfo=UTC)
    assert schedule.next_time("0 0 29 2 *", at) == datetime(2024, 2, 29, tzinfo=UTC)
    assert schedule.next_time("0 0 29 2 *", at + timedelta(days=1)) == datetime(2028, 2, 29, tzinfo=UTC)
