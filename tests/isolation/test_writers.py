"""Writers append: they wait for nobody, deadlock with nobody, and see their own writes and no one else's."""

from typing import LiteralString

import psycopg
import pytest
from sqlalchemy import Engine

from tallystick import Tally
from tests.isolation.stage import Beside, OpenSession, assert_exact_in, ok
from tests.oracle import assert_exact
from tests.stepping import Session

LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
BEGINS: dict[str, LiteralString] = {
    "READ COMMITTED": "BEGIN ISOLATION LEVEL READ COMMITTED",
    "REPEATABLE READ": "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "SERIALIZABLE": "BEGIN ISOLATION LEVEL SERIALIZABLE",
}
COUNT: LiteralString = "SELECT messages FROM tally.counts WHERE chat = 1"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("writers", [2, 3])
def test_writers_of_one_group(session: OpenSession, engine: Engine, tally: Tally, writers: int, level: str) -> None:
    sessions = [session() for _ in range(writers)]
    for each in sessions:
        ok(each, BEGINS[level], "INSERT INTO message (chat, size, author) VALUES (1, 30, 'cat')")
    for number, each in enumerate(sessions, start=4):
        each.run("UPDATE message SET size = size + 1 WHERE id = %s", [number]).result()
        ok(each, "INSERT INTO message (chat, size) SELECT 1, n FROM generate_series(1, 5) AS n")
    for each in sessions:
        ok(each, "COMMIT")
    reader = session()
    assert ok(reader, COUNT) == [(2 + 6 * writers,)]
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)


@pytest.mark.parametrize("level", LEVELS)
def test_groups_in_opposite_order(session: OpenSession, engine: Engine, tally: Tally, level: str) -> None:
    first, second = session(), session()
    to_one: LiteralString = "INSERT INTO message (chat, size) VALUES (1, 1)"
    to_two: LiteralString = "INSERT INTO message (chat, size) VALUES (2, 2)"
    ok(first, BEGINS[level], to_one)
    ok(second, BEGINS[level], to_two)
    ok(first, to_two)
    ok(second, to_one, "COMMIT")
    ok(first, "COMMIT")
    assert_exact(engine, tally)


def test_rows_move_between_groups_in_opposite_order(session: OpenSession, engine: Engine, tally: Tally) -> None:
    first, second = session(), session()
    ok(first, "BEGIN", "UPDATE message SET chat = 2 WHERE id = 1")
    ok(second, "BEGIN", "UPDATE message SET chat = 1 WHERE id = 3")
    ok(first, "DELETE FROM message WHERE id = 2")
    ok(second, "INSERT INTO message (chat, size) VALUES (2, 1)", "COMMIT")
    ok(first, "COMMIT")
    assert_exact(engine, tally)


def test_own_writes_are_read_and_others_are_not(session: OpenSession, tally: Tally) -> None:
    writer, other = session(), session()
    ok(writer, "BEGIN", "INSERT INTO message (chat, size, author) VALUES (1, 99, 'zoe')")
    assert ok(writer, COUNT) == [(3,)]
    assert ok(writer, "SELECT greatest FROM tally.bests WHERE chat = 1") == [(99,)]
    assert ok(other, COUNT) == [(2,)]
    assert ok(other, "SELECT greatest FROM tally.bests WHERE chat = 1") == [(20,)]
    assert_exact_in(tally, writer, other)
    ok(writer, "SAVEPOINT s", "DELETE FROM message")
    assert ok(writer, COUNT) == []
    assert_exact_in(tally, writer, other)
    ok(writer, "ROLLBACK TO SAVEPOINT s")
    assert ok(writer, COUNT) == [(3,)]
    assert_exact_in(tally, writer, other)
    ok(writer, "ROLLBACK")
    assert ok(writer, COUNT) == [(2,)]
    assert_exact_in(tally, writer, other)


@pytest.mark.parametrize("level", LEVELS)
def test_prepared_transaction_keeps_its_deltas(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally, level: str
) -> None:
    writer = session()
    ok(writer, BEGINS[level], "DELETE FROM message WHERE size = 20", "PREPARE TRANSACTION 'deletes'")
    assert_exact(engine, tally)
    assert [result.deltas for result in beside.run(tally.fold)] == [0, 0, 0, 0]
    assert_exact(engine, tally)
    ok(writer, "COMMIT PREPARED 'deletes'")
    assert_exact(engine, tally)
    beside.run(tally.fold)
    assert_exact(engine, tally)


def _insert_below_limit(writer: Session) -> None:
    """What an application does that allows three messages: it counts, and writes if there are fewer."""
    assert ok(writer, "BEGIN ISOLATION LEVEL SERIALIZABLE", COUNT) == [(2,)]


@pytest.mark.parametrize("folds", [False, True])
def test_serializable_readers_of_the_kept_answer_conflict(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally, folds: bool
) -> None:
    """A count that is read is protected as rows that are read are: no two may act upon the same one."""
    first, second = session(), session()
    _insert_below_limit(first)
    _insert_below_limit(second)
    ok(first, "INSERT INTO message (chat, size) VALUES (1, 1)", "COMMIT")
    if folds:
        beside.run(tally.fold)
    with pytest.raises(psycopg.errors.SerializationFailure):
        ok(second, "INSERT INTO message (chat, size) VALUES (1, 1)", "COMMIT")
    ok(second, "ROLLBACK")
    assert ok(second, COUNT) == [(3,)]
    assert_exact(engine, tally)


def test_repeatable_read_writer_does_not_conflict_with_a_fold(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally
) -> None:
    writer, other = session(), session()
    ok(other, "INSERT INTO message (chat, size) VALUES (1, 40)")
    ok(writer, "BEGIN ISOLATION LEVEL REPEATABLE READ", COUNT)
    assert [result.deltas > 0 for result in beside.run(tally.fold)] == [True] * 4
    ok(writer, "UPDATE message SET size = 1 WHERE size = 40", "DELETE FROM message WHERE id = 1")
    assert_exact_in(tally, writer, other)
    ok(writer, "COMMIT")
    assert_exact(engine, tally)
