"""The switch is a row: it flips at once, waits for nobody, and is right in every snapshot, however old."""

from typing import LiteralString

import pytest

from tallystick import Tally
from tests.isolation.stage import Beside, OpenSession, assert_exact_in, ok

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
