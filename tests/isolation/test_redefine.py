"""A redefinition beside readers and writers: it waits for nobody, nobody waits for it, and no snapshot sees a gap."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import LiteralString

import psycopg
import pytest
from sqlalchemy import URL, Engine

from tallystick import Tally
from tallystick.maintain import redefine
from tallystick.maintain.redefine import Redefined
from tests.conftest import Connect
from tests.isolation.stage import DECLARED, Beside, OpenSession, assert_exact_in, ok
from tests.oracle import assert_exact, differences
from tests.servers import Connection

BOTH: LiteralString = """
SELECT (SELECT to_jsonb(k) FROM (SELECT messages, bytes FROM tally.counts WHERE chat = 1) AS k),
       (SELECT to_jsonb(d) FROM (SELECT messages, bytes FROM tally.counts__direct WHERE chat = 1) AS d)
"""
SNAPSHOT: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ"
ELSEWHERE: LiteralString = "SELECT count(*) FROM pg_class"
READ: LiteralString = "SELECT messages FROM tally.counts WHERE chat = 1"
WRITE: LiteralString = "INSERT INTO message (chat, size, author) VALUES (1, 40, 'eve'), (3, 1, NULL)"
# Columns that both versions have, over both halves: rows that one has and the other has not.
HALVES: LiteralString = """
(SELECT chat, messages, bytes FROM tally.counts EXCEPT ALL SELECT chat, messages, bytes FROM tally.counts__direct)
UNION ALL
(SELECT chat, messages, bytes FROM tally.counts__direct EXCEPT ALL SELECT chat, messages, bytes FROM tally.counts)
"""
CHANGED = (
    "SELECT chat, count(*) AS messages, sum(size) AS bytes, min(size) AS least FROM message"
    " WHERE size > 5 GROUP BY chat"
)


@pytest.fixture
def changed() -> Tally:
    """The same aggregates, one of which has a measure more and counts less."""
    tally = Tally()
    for name, query in (DECLARED | {"counts": CHANGED}).items():
        tally.grouped(name, query)
    return tally


def redefined(tally: Tally) -> Callable[[Engine], Redefined]:
    return lambda engine: redefine.redefine(engine, tally["counts"])


def test_beside_an_open_transaction_that_reads(
    session: OpenSession, beside: Beside, tally: Tally, changed: Tally
) -> None:
    """It tries again and again until the reader has gone, and is in nobody's way meanwhile."""
    reader, other, writer = session(), session(), session()
    assert ok(reader, "BEGIN", READ) == [(2,)]
    operation = beside.start(redefined(changed)).until_pausing()
    ok(writer, WRITE)
    for each in (reader, other):
        assert ok(each, READ) == [(3,)]
    assert_exact_in(tally, reader, other, writer)
    ok(reader, "COMMIT")
    assert operation.result().changes
    assert_exact_in(changed, reader, other, writer)


def test_beside_an_open_transaction_that_writes(session: OpenSession, beside: Beside, changed: Tally) -> None:
    writer, other = session(), session()
    ok(writer, "BEGIN", WRITE)
    operation = beside.start(redefined(changed)).until_pausing()  # the triggers cannot be made yet
    ok(other, WRITE)
    ok(writer, "SAVEPOINT a", WRITE, "ROLLBACK TO a", "COMMIT")
    operation.result()
    assert_exact_in(changed, writer, other)


def test_writers_between_backfill_and_switch(session: OpenSession, beside: Beside, changed: Tally) -> None:
    reader, writer, late = session(), session(), session()
    ok(reader, "BEGIN", READ)
    operation = beside.start(redefined(changed)).until_pausing()
    ok(late, "BEGIN", WRITE)
    ok(writer, "UPDATE message SET size = size - 6", "DELETE FROM message WHERE id = 2")
    ok(reader, "COMMIT")
    operation.until_pausing()  # the writer that is late holds it up now
    ok(late, "COMMIT")
    operation.result()
    assert_exact_in(changed, reader, writer, late)
    ok(writer, "TRUNCATE message", WRITE)
    assert_exact_in(changed, reader, writer, late)


def test_old_snapshots(session: OpenSession, beside: Beside, changed: Tally) -> None:
    """Older than the next version, and between its backfill and the switch: each has the answer of its own time."""
    blocker, older, writer, old = session(), session(), session(), session()
    ok(older, SNAPSHOT, ELSEWHERE)
    ok(blocker, "BEGIN", READ)
    operation = beside.start(redefined(changed)).until_pausing()
    ok(writer, WRITE)
    ok(old, SNAPSHOT, ELSEWHERE)
    ok(writer, "DELETE FROM message WHERE chat = 1 AND size > 15")
    ok(blocker, "COMMIT")
    operation.result()
    assert [ok(each, READ) for each in (older, old, writer)] == [[(2,)], [(3,)], [(1,)]]
    for each in (older, old, writer):
        assert ok(each, HALVES) == []
    beside.run(changed.fold)
    ok(writer, WRITE)
    assert [ok(each, READ) for each in (older, old, writer)] == [[(2,)], [(3,)], [(2,)]]
    for each in (older, old, writer):
        assert ok(each, HALVES) == []


def test_back_and_forth_under_an_old_snapshot(
    session: OpenSession, engine: Engine, tally: Tally, changed: Tally
) -> None:
    """The switch that the snapshot sees is that of tables which are gone."""
    old, writer = session(), session()
    ok(old, SNAPSHOT, ELSEWHERE)
    for each in (changed, tally, changed):
        ok(writer, WRITE)
        assert redefine.redefine(engine, each["counts"]).changes
        assert_exact_in(each, writer)
    assert ok(old, READ) == [(2,)]
    assert ok(old, HALVES) == []


def test_two_at_once(session: OpenSession, beside: Beside, changed: Tally) -> None:
    reader = session()
    ok(reader, "BEGIN", READ)
    operations = [beside.start(redefined(changed)).until_pausing() for _ in range(2)]
    ok(reader, "COMMIT")
    results = [operation.result() for operation in operations]
    assert all(result.changes for result in results)
    assert_exact_in(changed, reader)
    assert [name for (name,) in ok(reader, "SELECT name FROM tally.aggregate WHERE name LIKE 'counts%'")] == ["counts"]
    assert ok(reader, "SELECT count(*) FROM tally.event WHERE what = 'redefine'") == [(1,)]


def test_killed_before_the_switch(
    session: OpenSession, beside: Beside, tally: Tally, changed: Tally, connect: Connect
) -> None:
    reader, writer = session(), session()
    ok(reader, "BEGIN", READ)
    operation = beside.start(redefined(changed)).until_pausing()
    beside.end_all()
    with pytest.raises(psycopg.OperationalError):
        operation.result()
    ok(writer, WRITE)
    assert_exact_in(tally, reader, writer)
    ok(reader, "COMMIT")
    assert beside.start(redefined(changed)).result().changes
    assert_exact_in(changed, reader, writer)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("at", range(4))
def test_interrupted_and_run_again(engine: Engine, tally: Tally, changed: Tally, connect: Connect, at: int) -> None:
    """Whatever the step, readers have the present version, and a second run goes on."""
    steps: list[str] = []

    def interrupted(text: str) -> None:
        steps.append(text)
        if len(steps) > at:
            raise Interrupted

    app = connect(autocommit=True)
    with pytest.raises(Interrupted):
        redefine.redefine(engine, changed["counts"], step=interrupted)
    app.execute(WRITE)
    assert_exact(engine, tally)
    assert redefine.redefine(engine, changed["counts"]).changes
    app.execute(WRITE)
    assert_exact(engine, changed)


def test_under_load(database: URL, engine: Engine, connect: Connect, tally: Tally, changed: Tally) -> None:
    """Back and forth beside writers and readers: none of them fails, and every reader is answered exactly."""
    done = Event()

    def write(connection: Connection) -> int:
        writes = 0
        while not done.is_set():
            connection.execute(WRITE)
            connection.execute("DELETE FROM message WHERE id % 3 = 0")
            writes += 1
        return writes

    def read(connection: Connection) -> int:
        reads = 0
        while not done.is_set():
            ((kept, direct),) = connection.execute(BOTH).fetchall()
            assert kept == direct
            reads += 1
        return reads

    writer, readers = connect(autocommit=True), [connect(autocommit=True) for _ in range(2)]
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(write, writer), *(pool.submit(read, each) for each in readers)]
        try:
            for each in (changed, tally, changed):
                assert redefine.redefine(engine, each["counts"]).changes
        finally:
            done.set()
        assert all(each.result() for each in running)
    assert not differences(writer, changed)
