"""Repair beside writers, readers and folds, step by step."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from tallystick import FoldLocked, Tally
from tallystick.errors import SourceLocked
from tallystick.maintain import patience, schedule
from tallystick.maintain.audit import audit_step
from tallystick.store import events
from tallystick.store.connection import transaction
from tests.backfills import begin
from tests.isolation.stage import Beside, OpenSession, assert_exact_in, ok
from tests.isolation.test_folds import SNAPSHOT
from tests.oracle import assert_exact

DAMAGE = (
    "UPDATE tally.counts__state SET n = n + 100 WHERE k1 = 1",
    "DELETE FROM tally.authors__state WHERE k1 = 1",
    "UPDATE tally.authors__facet1 SET n = 9 WHERE k1 = 1",
    "DELETE FROM tally.totals__facet1",
    "UPDATE tally.bests__state SET m1 = 999 WHERE k1 = 1",
)


def test_beside_open_writers(session: OpenSession, beside: Beside, engine: Engine, tally: Tally) -> None:
    """What they have written and what they write later belong to the group that is repaired."""
    first, second, operator = session(), session(), session()
    ok(first, "BEGIN", "INSERT INTO message (chat, size, author) VALUES (1, 70, 'eve')")
    ok(second, "BEGIN", "DELETE FROM message WHERE chat = 1 AND author = 'bob'")
    ok(operator, *DAMAGE)
    repaired = beside.run(tally.repair)
    assert [each.groups for each in repaired] == [1, 1, 1, 1]
    assert_exact_in(tally, first, second, operator)
    ok(first, "UPDATE message SET author = 'bob' WHERE author = 'ann' AND chat = 1", "COMMIT")
    assert_exact_in(tally, first, second, operator)
    ok(second, "INSERT INTO message (chat, size, author) VALUES (1, 1, 'ann')", "COMMIT")
    assert_exact_in(tally, first, second, operator)
    beside.run(tally.fold)
    ok(first, "DELETE FROM message WHERE chat = 1")
    assert_exact_in(tally, first, second, operator)
    beside.run(tally.fold)
    assert_exact(engine, tally)


def test_writers_end_in_the_middle(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """The repair has its snapshot, and waits for a row of the state; writers and readers wait for neither."""
    holder, writer, early = session(), session(), session()
    ok(early, "BEGIN", "INSERT INTO message (chat, size, author) VALUES (1, 30, 'dan')")
    ok(writer, *DAMAGE)
    ok(holder, "BEGIN", "SELECT FROM tally.counts__state FOR UPDATE")
    repair = beside.start(lambda engine: tally.repair(engine, only=["counts"])).until_settled()
    assert repair.is_waiting
    ok(early, "COMMIT")
    ok(writer, "INSERT INTO message (chat, size) VALUES (1, 41)", "DELETE FROM message WHERE size = 10")
    ok(holder, "COMMIT")
    assert [each.groups for each in repair.result()] == [1]
    beside.run(tally.repair)
    assert_exact_in(tally, writer, early)
    beside.run(tally.fold)
    assert_exact_in(tally, writer, early)


def test_old_snapshots_stay_what_they_were(session: OpenSession, beside: Beside, tally: Tally) -> None:
    old, operator = session(), session()
    ok(operator, *DAMAGE)
    before = ok(old, SNAPSHOT, "SELECT array_agg(c ORDER BY chat)::text FROM tally.counts AS c")
    beside.run(tally.repair)
    assert ok(old, "SELECT array_agg(c ORDER BY chat)::text FROM tally.counts AS c") == before
    assert_exact_in(tally, operator)


def test_a_fold_keeps_it_away(
    session: OpenSession, beside: Beside, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LOCK_ATTEMPTS", 1)
    operator, folder = session(), session()
    ok(operator, *DAMAGE)
    ok(folder, "BEGIN", "SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.counts', 0))")
    with pytest.raises(FoldLocked):
        beside.run(lambda engine: tally.repair(engine, only=["counts"]))
    ok(folder, "COMMIT")
    beside.run(tally.repair)
    assert_exact_in(tally, operator)


def test_chunks_raise_no_false_alarm(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """Between two chunks groups change on either side of the position, and a writer is open all the time."""
    writer, other = session(), session()
    ok(writer, "BEGIN", "INSERT INTO message (chat, size, author) VALUES (1, 30, 'dan'), (9, 1, NULL), (NULL, 2, 'x')")
    for number in range(6):
        steps = beside.run(lambda engine: [audit_step(engine, "tally", each.name, budget_s=0) for each in tally])
        assert [step.report.drifted for step in steps] == [0] * len(steps)
        assert not other.run("INSERT INTO message (chat, size) VALUES (%s, 7)", [number % 3]).waiting
        ok(other, "UPDATE message SET chat = chat + 1 WHERE size = 7", "DELETE FROM message WHERE chat = 2")
        if number % 2:
            beside.run(tally.fold)
    ok(writer, "COMMIT")
    steps = beside.run(lambda engine: [audit_step(engine, "tally", each.name) for each in tally])
    assert [step.report.drifted for step in steps] == [0] * len(steps)


def _drifting(engine: Engine) -> list[str]:
    with transaction(engine, read_only=True) as cursor:
        return list(events.drifting(cursor, "tally"))


def test_a_drift_that_is_mended_before_it_is_recorded_is_no_drift(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally
) -> None:
    """A part is compared in the snapshot from before the repair, which has ended when the comparison has."""
    holder = session()
    ok(holder, "UPDATE tally.counts__state SET n = n + 100", "BEGIN", "LOCK TABLE tally.audit")
    step = beside.start(lambda engine: audit_step(engine, "tally", "counts")).until_settled()
    assert step.is_waiting
    beside.run(lambda engine: tally.repair(engine, only=["counts"]))
    ok(holder, "COMMIT")
    assert step.result().report.is_exact
    assert _drifting(engine) == []


def test_a_drift_is_told_beside_a_fold(session: OpenSession, beside: Beside, engine: Engine, tally: Tally) -> None:
    folder = session()
    ok(folder, "UPDATE tally.counts__state SET n = n + 100", "BEGIN")
    ok(folder, "SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.counts', 0))")
    assert beside.run(lambda engine: tally.verify(engine, only=["counts"], rolling=True)[0].drifted) > 0
    assert _drifting(engine) == ["counts"]


def test_a_scheduled_verification_is_done_anew_if_others_have_found_the_opposite(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally
) -> None:
    """An "exact" from before a damage would end its alarm, and a drift from before a repair would raise one."""
    holder, writer = session(), session()
    schedule.add(engine, "tally", "nightly", "0 0 * * *", "verify", "counts")

    def run(meanwhile: Callable[[], object]) -> list[str]:
        ok(writer, "UPDATE tally.schedule SET due_at = now()")
        ok(holder, "BEGIN", "SELECT pg_advisory_xact_lock(hashtextextended('tallystick drift tally.counts', 0))")
        running = beside.start(lambda engine: schedule.run_if_due(engine, "tally", "nightly")).until_settled()
        assert running.is_waiting  # it has compared, and is about to record that
        meanwhile()
        ok(holder, "COMMIT")
        done = running.result()
        assert done is not None
        return [report.status for report in done.reports]

    def damage() -> None:
        ok(writer, "UPDATE tally.counts__state SET n = n + 100")
        ok(holder, "INSERT INTO tally.event (what, aggregate) VALUES ('drift', 'counts')")

    def mend() -> None:
        ok(writer, "UPDATE tally.counts__state SET n = n - 100")
        ok(holder, "INSERT INTO tally.event (what, aggregate) VALUES ('repair', 'counts')")

    assert (run(damage), _drifting(engine)) == (["drift"], ["counts"])
    assert (run(mend), _drifting(engine)) == (["exact"], [])


def test_a_verification_that_compares_nothing_ends_no_alarm(session: OpenSession, engine: Engine, tally: Tally) -> None:
    writer = session()
    ok(writer, "UPDATE tally.counts__state SET n = n + 100")
    audit_step(engine, "tally", "counts")
    begin(engine, tally, ["counts"])
    schedule.add(engine, "tally", "nightly", "0 0 * * *", "verify", "counts")
    ok(writer, "UPDATE tally.schedule SET due_at = now()")
    done = schedule.run_if_due(engine, "tally", "nightly")
    assert done is not None
    assert [report.status for report in done.reports] == ["building"]
    assert _drifting(engine) == ["counts"]
    tally.backfill(engine)
    assert _drifting(engine) == []


def test_a_drift_is_over_when_a_repair_finds_none(session: OpenSession, engine: Engine, tally: Tally) -> None:
    writer = session()
    ok(writer, "UPDATE tally.counts__state SET n = n + 100")
    audit_step(engine, "tally", "counts")
    ok(writer, "UPDATE tally.counts__state SET n = n - 100")
    assert _drifting(engine) == ["counts"]
    assert [each.groups for each in tally.repair(engine, only=["counts"], dry_run=True)] == [0]
    assert _drifting(engine) == ["counts"]
    assert [each.groups for each in tally.repair(engine, only=["counts"])] == [0]
    assert _drifting(engine) == []


def test_verify_beside_a_rename(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """It knows the table by a name that the table has no more when it may be locked."""
    owner = session()
    ok(owner, "BEGIN", "ALTER TABLE message RENAME TO old")
    verify = beside.start(tally.verify).until_settled()
    assert verify.is_waiting
    ok(owner, "COMMIT")
    assert [report.status for report in verify.result()] == ["exact"] * len(tally)


@pytest.mark.parametrize("sample", [None, 2], ids=["all", "a sample"])
def test_verify_waits_for_a_truncate(session: OpenSession, beside: Beside, tally: Tally, sample: int | None) -> None:
    """To an older snapshot the source would be empty already, and what is kept of it would not be."""
    truncates = session()
    ok(truncates, "BEGIN", "TRUNCATE message", "INSERT INTO message (chat, size) VALUES (1, 7)")
    verify = beside.start(lambda engine: tally.verify(engine, sample=sample)).until_settled()
    assert verify.is_waiting
    ok(truncates, "COMMIT")
    assert [report.status for report in verify.result()] == ["exact"] * len(tally)


def test_resume_waits_for_a_truncate(session: OpenSession, beside: Beside, engine: Engine, tally: Tally) -> None:
    tally.rollback(engine)
    truncates = session()
    ok(truncates, "BEGIN", "TRUNCATE message", "INSERT INTO message (chat, size) VALUES (1, 7)")
    resume = beside.start(tally.resume).until_settled()
    assert resume.is_waiting
    ok(truncates, "COMMIT")
    assert [each.serving for each in resume.result()] == ["kept"] * len(tally)
    assert_exact(engine, tally)


def test_a_part_is_left_for_later_while_the_source_is_truncated(
    session: OpenSession, beside: Beside, tally: Tally
) -> None:
    truncates = session()
    ok(truncates, "BEGIN", "TRUNCATE message", "INSERT INTO message (chat, size) VALUES (1, 7)")
    with pytest.raises(SourceLocked, match="message is locked by others"):
        beside.run(lambda engine: audit_step(engine, "tally", "counts"))
    rolling = beside.start(lambda engine: tally.verify(engine, rolling=True)).until_pausing()
    ok(truncates, "COMMIT")
    assert [report.status for report in rolling.result()] == ["exact"] * len(tally)
    assert beside.run(lambda engine: audit_step(engine, "tally", "counts")).report.is_exact
