"""The switch is a row: it flips at once, waits for nobody, and is right in every snapshot, however old."""

from collections.abc import Callable
from typing import LiteralString, TypeVar

import pytest
from sqlalchemy import Engine

from tallystick import NotKept, Tally
from tests.isolation.stage import Beside, OpenSession, assert_exact_in, ok

_Result = TypeVar("_Result")
SNAPSHOT: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ"
COUNT: LiteralString = "SELECT messages FROM tally.counts WHERE chat = 1"
TOP: LiteralString = (
    "SELECT max(messages) FROM (SELECT messages FROM tally.counts__front UNION ALL"
    " SELECT messages FROM tally.counts__rest) AS parts"
)
TO_DIRECT: LiteralString = "UPDATE tally.aggregate SET serving = 'direct' WHERE name = 'counts'"
TO_KEPT: LiteralString = "UPDATE tally.aggregate SET serving = 'kept' WHERE name = 'counts'"


@pytest.mark.parametrize("read", [COUNT, TOP])
def test_flips_without_waiting_for_an_idle_reader(session: OpenSession, read: LiteralString) -> None:
    reader, writer, operator = session(), session(), session()
    ok(operator, "UPDATE tally.counts__state SET n = n + 100")  # so that the halves can be told apart
    assert ok(reader, "BEGIN", read) == [(102,)]
    ok(writer, "BEGIN", "INSERT INTO message (chat, size) VALUES (2, 1)")
    ok(operator, TO_DIRECT)
    assert ok(reader, read) == [(2,)]  # idle in its transaction until now, and served at once
    assert ok(writer, read) == [(2,)]
    ok(operator, TO_KEPT)
    assert ok(reader, read) == [(102,)]


def test_uncommitted_switch_holds_up_nobody(session: OpenSession, tally: Tally) -> None:
    reader, writer, operator = session(), session(), session()
    ok(operator, "BEGIN", TO_DIRECT)
    assert ok(reader, COUNT) == [(2,)]
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 1)")
    assert_exact_in(tally, reader, writer, operator)
    ok(operator, "ROLLBACK")
    assert_exact_in(tally, reader, writer, operator)


def test_old_snapshot_stays_right_across_switches_and_backfills(
    session: OpenSession, beside: Beside, tally: Tally
) -> None:
    old, writer, operator = session(), session(), session()
    ok(writer, "INSERT INTO message (chat, size, author) VALUES (1, 30, 'dan')")
    assert ok(old, SNAPSHOT, COUNT) == [(3,)]
    for statement in (TO_DIRECT, TO_KEPT):
        ok(writer, "DELETE FROM message WHERE id = (SELECT max(id) FROM message)")
        ok(operator, statement)
        assert ok(old, COUNT) == [(3,)]
        assert_exact_in(tally, old, writer)
        beside.run(tally.backfill)
        beside.run(tally.fold)
        assert ok(old, COUNT) == [(3,)]
        assert_exact_in(tally, old, writer)


def test_rollback_waits_for_no_reader_writer_or_fold(session: OpenSession, beside: Beside, tally: Tally) -> None:
    reader, writer, holder, operator = session(), session(), session(), session()
    ok(operator, "UPDATE tally.counts__state SET n = n + 100")
    assert ok(reader, "BEGIN", COUNT) == [(102,)]
    ok(writer, "BEGIN", "INSERT INTO message (chat, size) VALUES (2, 1)")
    ok(holder, "BEGIN", "SELECT FROM tally.counts__state FOR UPDATE")
    ok(operator, "INSERT INTO message (chat, size) VALUES (1, 1)")
    fold = beside.start(_counts(tally.fold)).until_settled()
    assert fold.is_waiting
    (done,) = beside.run(_counts(tally.rollback))
    assert (done.was, done.is_maintained) == ("kept", True)
    assert ok(reader, COUNT) == [(3,)]
    ok(holder, "COMMIT")
    fold.result()
    ok(writer, "COMMIT")
    assert ok(reader, COUNT) == [(3,)]


def test_rollback_prevails_over_a_backfill_under_way(session: OpenSession, beside: Beside, tally: Tally) -> None:
    holder, reader = session(), session()
    ok(holder, "BEGIN", "SELECT FROM tally.counts__state FOR UPDATE")
    backfill = beside.start(lambda engine: tally.backfill(engine, only=["counts"], force=True)).until_settled()
    assert backfill.is_waiting
    beside.run(_counts(tally.rollback))
    ok(holder, "COMMIT")
    backfill.result()
    ok(reader, "UPDATE tally.counts__state SET n = n + 100")
    assert ok(reader, COUNT) == [(2,)]


def test_rollback_prevails_over_a_resume_under_way(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """The resume has compared, and waits to switch; its snapshot does not see the second rollback."""
    holder, reader = session(), session()
    beside.run(_counts(tally.rollback))
    ok(holder, "BEGIN", "UPDATE tally.aggregate SET rolled_back = true WHERE name = 'counts'")
    resume = beside.start(_counts(tally.resume)).until_settled()
    assert resume.is_waiting
    ok(holder, "COMMIT")
    with pytest.raises(NotKept, match="was rolled back or changed by others") as caught:
        resume.result()
    assert caught.value.hint == "Run: tally resume counts"
    ok(reader, "UPDATE tally.counts__state SET n = n + 100")
    assert ok(reader, COUNT) == [(2,)]


def test_resume_beside_writers(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """Each writer ends after the resume, and has begun before it."""
    writers = [session(), session()]
    beside.run(tally.rollback)
    for chat, writer in enumerate(writers, start=1):
        assert not writer.run("BEGIN").waiting
        assert not writer.run("INSERT INTO message (chat, size, author) VALUES (%s, 70, 'eve')", [chat]).waiting
    resumed = beside.run(tally.resume)
    assert [(each.serving, each.report.status) for each in resumed] == [("kept", "exact")] * len(tally)
    assert_exact_in(tally, *writers)
    ok(writers[0], "COMMIT")
    ok(writers[1], "ROLLBACK")
    assert_exact_in(tally, *writers)
    beside.run(tally.fold)
    assert_exact_in(tally, *writers)


def test_stopped_maintenance_waits_in_no_queue(session: OpenSession, beside: Beside, tally: Tally) -> None:
    reader, writer, other = session(), session(), session()
    ok(writer, "BEGIN", "INSERT INTO message (chat, size) VALUES (1, 1)")
    stop = beside.start(lambda engine: tally.rollback(engine, only=["counts"], stop_maintenance=True)).until_pausing()
    ok(other, "INSERT INTO message (chat, size) VALUES (1, 1)")  # behind nobody
    assert ok(reader, COUNT) == [(3,)]
    ok(writer, "COMMIT")
    (done,) = stop.result()
    assert not done.is_maintained
    before = ok(reader, "SELECT count(*) FROM tally.counts__delta")
    ok(other, "INSERT INTO message (chat, size) VALUES (1, 1)")
    assert ok(reader, "SELECT count(*) FROM tally.counts__delta") == before
    assert_exact_in(tally, reader)


def _counts(operation: Callable[..., list[_Result]]) -> Callable[[Engine], list[_Result]]:
    return lambda engine: operation(engine, only=["counts"])
