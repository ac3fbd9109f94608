"""A fold waits for nobody, nobody waits for it, and no reader sees that it was there."""

from collections.abc import Callable
from typing import LiteralString

import pytest
from sqlalchemy import Engine

from tallystick import FoldLocked, Tally
from tests.backfills import begin
from tests.isolation.stage import Beside, OpenSession, assert_exact_in, ok
from tests.oracle import assert_exact

SNAPSHOT: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ"
COUNT: LiteralString = "SELECT messages FROM tally.counts WHERE chat = 1"
GREATEST: LiteralString = "SELECT greatest FROM tally.bests WHERE chat = 1"
AUTHORS: LiteralString = "SELECT authors FROM tally.authors WHERE chat = 1"


def _only(name: str) -> Callable[[Tally], Callable[[Engine], int]]:
    return lambda tally: lambda engine: tally.fold(engine, only=[name])[0].deltas


def test_reader_between_a_delete_and_its_fold(session: OpenSession, beside: Beside, tally: Tally) -> None:
    writer, old, between = session(), session(), session()
    assert ok(old, SNAPSHOT, GREATEST) == [(20,)]
    ok(writer, "DELETE FROM message WHERE size = 20")
    assert ok(between, SNAPSHOT, GREATEST) == [(10,)]
    beside.run(tally.fold)
    assert ok(old, GREATEST) == [(20,)]
    assert ok(between, GREATEST) == [(10,)]
    assert_exact_in(tally, writer, old, between)
    ok(writer, "DELETE FROM message WHERE chat = 1")
    beside.run(tally.fold)
    assert (ok(old, COUNT), ok(between, COUNT), ok(writer, COUNT)) == ([(2,)], [(1,)], [])
    assert_exact_in(tally, writer, old, between)


def test_fold_beside_an_uncommitted_long_transaction(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """The long one has the lowest transaction id and commits last; its deltas must not be passed over."""
    long, short = session(), session()
    ok(long, "BEGIN", "INSERT INTO message (chat, size, author) VALUES (1, 50, 'eve')")
    ok(short, "INSERT INTO message (chat, size, author) VALUES (1, 40, 'dan')")
    assert beside.run(_only("counts")(tally)) == 1
    beside.run(tally.fold)
    assert_exact_in(tally, long, short)
    ok(long, "DELETE FROM message WHERE size = 40")
    assert_exact_in(tally, long, short)
    assert beside.run(_only("counts")(tally)) == 0
    ok(long, "COMMIT")
    assert_exact_in(tally, long, short)
    assert beside.run(_only("counts")(tally)) == 2
    beside.run(tally.fold)
    assert_exact_in(tally, long, short)


def test_two_folds_at_once(session: OpenSession, beside: Beside, tally: Tally) -> None:
    holder, writer, reader = session(), session(), session()
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 40)")
    ok(holder, "BEGIN", "SELECT FROM tally.counts__state FOR UPDATE")  # catches the first fold half-way
    first = beside.start(_only("counts")(tally)).until_settled()
    assert first.is_waiting
    with pytest.raises(FoldLocked, match="counts"):
        beside.run(_only("counts")(tally))
    assert beside.run(_only("bests")(tally)) == 1  # another aggregate's fold is not in the way
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 41)")  # commits in the middle of the first fold
    assert_exact_in(tally, writer, reader)
    ok(holder, "COMMIT")
    assert first.result() == 1
    assert_exact_in(tally, writer, reader)
    assert beside.run(_only("counts")(tally)) == 1
    assert_exact_in(tally, writer, reader)


def test_backfill_beside_a_fold(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """It waits for the fold before it takes its snapshot; writers and readers wait for neither."""
    holder, writer = session(), session()
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 40)")
    ok(holder, "BEGIN", "SELECT FROM tally.counts__state FOR UPDATE")
    fold = beside.start(_only("counts")(tally)).until_settled()
    backfill = beside.start(lambda engine: tally.backfill(engine, only=["counts"], force=True)).until_settled()
    assert backfill.is_waiting
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 41)")
    assert_exact_in(tally, writer)
    ok(holder, "COMMIT")
    assert fold.result() == 1
    assert [result.groups for result in backfill.result()] == [2]
    assert_exact_in(tally, writer)


def test_backfill_beside_a_rewrite_of_the_source(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """A snapshot from before the rewrite would find the table empty, and readers a kept answer without groups."""
    owner, reader = session(), session()
    ok(owner, "BEGIN", "ALTER TABLE message ADD rewritten float DEFAULT random()")
    backfill = beside.start(lambda engine: tally.backfill(engine, force=True)).until_settled()
    assert backfill.is_waiting
    ok(owner, "COMMIT")
    assert [result.groups > 0 for result in backfill.result()] == [True] * len(tally)
    assert_exact_in(tally, reader)


def test_fold_between_two_reads_of_one_transaction(session: OpenSession, beside: Beside, tally: Tally) -> None:
    writer, reader = session(), session()
    ok(writer, "INSERT INTO message (chat, size, author) VALUES (1, 40, 'dan'), (3, 1, NULL)")
    ok(writer, "UPDATE message SET chat = 3, author = 'eve' WHERE id = 1", "DELETE FROM message WHERE chat = 2")
    ok(reader, SNAPSHOT)
    before = ok(reader, "SELECT array_agg(c ORDER BY chat)::text FROM tally.counts AS c")
    assert_exact_in(tally, reader)
    beside.run(tally.fold)
    ok(writer, "DELETE FROM message")
    beside.run(tally.fold)
    assert ok(reader, "SELECT array_agg(c ORDER BY chat)::text FROM tally.counts AS c") == before
    assert_exact_in(tally, reader, writer)


def test_one_snapshot_over_many_folds(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """Every group changes, goes and comes again; the old reader's truth is that of its snapshot throughout."""
    writer, old = session(), session()
    ok(
        writer,
        "INSERT INTO message (chat, size, author) SELECT i % 5, i, 'a' || i % 3 FROM generate_series(1, 20) AS i",
    )
    ok(old, SNAPSHOT)
    contents: list[LiteralString] = [
        "SELECT array_agg(v ORDER BY v)::text FROM tally.counts AS v",
        "SELECT array_agg(v ORDER BY v)::text FROM tally.bests AS v",
        "SELECT array_agg(v ORDER BY v)::text FROM tally.authors AS v",
        "SELECT v::text FROM tally.totals AS v",
    ]
    before = [ok(old, content) for content in contents]
    for _ in range(12):
        ok(writer, "DELETE FROM message WHERE chat = (SELECT min(chat) FROM message)")
        ok(writer, "INSERT INTO message (chat, size, author) SELECT chat + 5, size + 1, 'new' FROM message LIMIT 5")
        beside.run(tally.fold)
        assert [ok(old, content) for content in contents] == before
    assert_exact_in(tally, old, writer)
    beside.run(lambda engine: tally.backfill(engine, force=True))
    assert [ok(old, content) for content in contents] == before
    assert_exact_in(tally, old, writer)


def test_greatest_is_deleted_while_a_greater_comes(session: OpenSession, beside: Beside, tally: Tally) -> None:
    deletes, inserts = session(), session()
    ok(deletes, "BEGIN", "DELETE FROM message WHERE size = 20")
    ok(inserts, "BEGIN", "INSERT INTO message (chat, size) VALUES (1, 30)")
    assert (ok(deletes, GREATEST), ok(inserts, GREATEST)) == ([(10,)], [(30,)])
    beside.run(tally.fold)
    assert_exact_in(tally, deletes, inserts)
    ok(inserts, "COMMIT")
    assert ok(deletes, GREATEST) == [(30,)]
    beside.run(tally.fold)
    assert_exact_in(tally, deletes, inserts)
    ok(deletes, "COMMIT")
    beside.run(tally.fold)
    assert ok(inserts, GREATEST) == [(30,)]
    assert_exact_in(tally, deletes, inserts)


def test_greatest_that_others_delete_meanwhile(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """The fold reads the source again, beside a writer who has taken away what it is about to find there."""
    writer, open_writer = session(), session()
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 15)")
    ok(open_writer, "BEGIN", "DELETE FROM message WHERE size = 15", "INSERT INTO message (chat, size) VALUES (1, 12)")
    ok(writer, "DELETE FROM message WHERE size = 20")
    beside.run(tally.fold)
    assert (ok(writer, GREATEST), ok(open_writer, GREATEST)) == ([(15,)], [(12,)])
    assert_exact_in(tally, writer, open_writer)
    ok(open_writer, "COMMIT")
    assert ok(writer, GREATEST) == [(12,)]
    beside.run(tally.fold)
    assert ok(writer, GREATEST) == [(12,)]
    assert_exact_in(tally, writer, open_writer)


def test_distinct_values_move(session: OpenSession, beside: Beside, tally: Tally) -> None:
    first, second = session(), session()
    ok(first, "BEGIN", "UPDATE message SET author = 'bob' WHERE chat = 1")
    ok(second, "BEGIN", "INSERT INTO message (chat, author) VALUES (1, 'ann'), (1, 'bob'), (1, NULL), (2, 'cat')")
    assert (ok(first, AUTHORS), ok(second, AUTHORS)) == ([(1,)], [(2,)])
    beside.run(tally.fold)
    assert_exact_in(tally, first, second)
    ok(second, "COMMIT")
    beside.run(tally.fold)
    assert_exact_in(tally, first, second)
    ok(first, "DELETE FROM message WHERE author = 'ann'")
    assert ok(first, AUTHORS) == [(1,)]
    assert ok(second, AUTHORS) == [(2,)]
    ok(first, "COMMIT")
    assert ok(second, AUTHORS) == [(1,)]
    beside.run(tally.fold)
    assert ok(second, AUTHORS) == [(1,)]
    assert_exact_in(tally, first, second)


def test_fold_and_writes_beside_an_open_truncate(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """The fold of an aggregate without extremes does not read the table that is locked; others wait as a read does."""
    truncates, writer = session(), session()
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 40)")
    ok(truncates, "BEGIN", "TRUNCATE message", "INSERT INTO message (chat, size, author) VALUES (1, 7, 'ann')")
    assert ok(truncates, COUNT) == [(1,)]
    assert_exact_in(tally, truncates)
    assert beside.run(_only("counts")(tally)) == 1
    reading = beside.start(_only("bests")(tally)).until_settled()
    blocked = writer.run("INSERT INTO message (chat, size) VALUES (1, 41)")
    assert blocked.waiting  # for the table itself, as without us
    assert_exact_in(tally, truncates)
    ok(truncates, "INSERT INTO message (chat, size) VALUES (4, 8)", "COMMIT")
    blocked.result()
    reading.result()
    assert ok(writer, COUNT) == [(2,)]
    assert_exact_in(tally, truncates, writer)
    beside.run(tally.fold)
    assert_exact_in(tally, truncates, writer)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_truncate_between_savepoints_beside_a_fold(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally, end: LiteralString
) -> None:
    truncates, writer = session(), session()
    ok(truncates, "BEGIN", "INSERT INTO message (chat, size) VALUES (1, 6)", "SAVEPOINT s", "TRUNCATE message")
    ok(truncates, "ROLLBACK TO SAVEPOINT s", "INSERT INTO message (chat, size) VALUES (1, 7)")
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 41)")
    beside.run(tally.fold)
    assert_exact_in(tally, truncates, writer)
    ok(truncates, "RELEASE SAVEPOINT s", "DELETE FROM message WHERE size = 41", end)
    assert_exact(engine, tally)
    beside.run(tally.fold)
    assert_exact(engine, tally)


def test_backfill_beside_writers(session: OpenSession, beside: Beside, engine: Engine, tally: Tally) -> None:
    """Deltas that its snapshots do not see stay, whether their writers commit in its middle or later."""
    holder, early, late, old = session(), session(), session(), session()
    ok(old, SNAPSHOT, COUNT)
    begin(engine, tally)
    ok(early, "BEGIN", "INSERT INTO message (chat, size, author) VALUES (1, 30, 'dan')")
    ok(late, "BEGIN", "UPDATE message SET chat = 2 WHERE id = 2")
    ok(holder, "BEGIN", "LOCK TABLE tally.counts__chunk IN ROW EXCLUSIVE MODE")  # as one who counts a chunk
    backfill = beside.start(lambda engine: tally.backfill(engine)).until_settled()
    assert backfill.is_waiting
    ok(early, "COMMIT")
    ok(holder, "COMMIT")
    backfill.result()
    assert_exact_in(tally, early, late, old)
    ok(late, "COMMIT")
    assert_exact_in(tally, early, late, old)
    beside.run(tally.fold)
    assert_exact_in(tally, early, late, old)


def test_truncate_in_the_middle_of_a_backfill(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally
) -> None:
    holder, truncates = session(), session()
    begin(engine, tally, ["authors"])
    ok(holder, "BEGIN", "LOCK TABLE tally.authors__chunk IN ROW EXCLUSIVE MODE")
    backfill = beside.start(lambda engine: tally.backfill(engine, only=["authors"])).until_settled()
    assert backfill.is_waiting
    truncate = truncates.run("TRUNCATE message")  # may have to wait for the backfill, as for any reader
    ok(holder, "COMMIT")
    backfill.result()
    truncate.result()
    ok(truncates, "INSERT INTO message (chat, author) VALUES (1, 'ann')")
    assert_exact_in(tally, truncates)
    beside.run(tally.fold)
    assert_exact_in(tally, truncates)
