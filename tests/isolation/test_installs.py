"""Installing and removing beside readers and writers: nobody is made to wait, and every snapshot stays right."""

from typing import LiteralString

import pytest
from sqlalchemy import Engine

from tallystick import InstallError, Tally
from tests.isolation.stage import Beside, OpenSession, assert_exact_in, ok
from tests.oracle import assert_exact
from tests.stepping import Session

SNAPSHOT: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ"
COUNT: LiteralString = "SELECT messages FROM tally.counts WHERE chat = 1"
DIRECTLY: LiteralString = "SELECT count(*) FROM message WHERE chat = 1"
UNEQUAL: LiteralString = """
(TABLE tally.authors__direct EXCEPT ALL TABLE tally.authors) UNION ALL
(TABLE tally.authors EXCEPT ALL TABLE tally.authors__direct) UNION ALL
(SELECT messages, authors FROM tally.totals__direct EXCEPT ALL SELECT messages, authors FROM tally.totals)
"""
LEFT: LiteralString = (
    "SELECT (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'message'::regclass) + (SELECT count(*) FROM pg_class"
    " WHERE relnamespace = to_regnamespace('tally') AND relname LIKE 'counts%')"
)


@pytest.fixture(scope="session")
def template(with_table: str) -> str:
    """Nothing is installed yet."""
    return with_table


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installers that try for as long as a test may need, and soon again."""
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_ATTEMPTS", 1000)
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_PAUSE_S", 0.02)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installers that soon give up."""
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_ATTEMPTS", 2)
    monkeypatch.setattr("tallystick.maintain.patience.LOCK_PAUSE_S", 0.01)


def _pid(session: Session) -> int:
    return session.connection.info.backend_pid


def test_install_waits_for_a_writer_and_makes_none_wait(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally, patient: None
) -> None:
    open_writer, other = session(), session()
    ok(open_writer, "BEGIN", "INSERT INTO message (chat, size) VALUES (1, 30)")
    install = beside.start(lambda engine: tally.install(engine, only=["counts"]))
    for _ in range(3):
        install.until_pausing()
        for _ in range(5):
            ok(other, "INSERT INTO message (chat, size) VALUES (1, 1)")
            ok(other, "BEGIN", "UPDATE message SET size = 2 WHERE chat = 2", "COMMIT", DIRECTLY)
    assert ok(other, LEFT) == [(0,)]
    ok(open_writer, "COMMIT")
    assert install.result() == ["counts"]
    only = Tally()
    only.grouped("counts", tally["counts"].definition)
    assert_exact(engine, only)
    ok(other, "DELETE FROM message WHERE size = 2")
    beside.run(only.backfill)
    ok(other, "DELETE FROM message WHERE size = 30")
    assert_exact(engine, only)


def test_install_gives_up_and_names_who_is_in_the_way(
    session: OpenSession, beside: Beside, tally: Tally, impatient: None
) -> None:
    writer, reader = session(), session()
    ok(reader, "BEGIN", DIRECTLY)
    ok(writer, "BEGIN", "UPDATE message SET size = 21 WHERE size = 20")
    with pytest.raises(InstallError, match=rf"message could not be locked in 2 tries; locked by pid {_pid(writer)} "):
        beside.run(tally.install)
    assert ok(reader, "COMMIT", LEFT) == [(0,)]
    assert ok(reader, "SELECT to_regnamespace('tally') IS NULL") == [(True,)]
    ok(writer, "COMMIT")
    assert beside.run(tally.install) == ["counts", "bests", "authors", "totals"]


def test_install_gives_up_beside_an_installed_aggregate(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally, impatient: None
) -> None:
    """All or nothing is meant for each aggregate: the installed one stays, and nothing of the other is there."""
    writer = session()
    beside.run(lambda engine: tally.install(engine, only=["bests"]))
    ok(writer, "BEGIN", "INSERT INTO message (chat, size) VALUES (1, 30)")
    with pytest.raises(InstallError, match=rf"pid {_pid(writer)} "):
        beside.run(lambda engine: tally.install(engine, only=["bests", "counts"]))
    assert [status.phase for status in tally.status(engine) if status.name == "counts"] == ["declared"]
    assert ok(writer, "SELECT count(*) FROM pg_class WHERE relname LIKE 'counts%'") == [(0,)]
    assert ok(writer, "SELECT greatest FROM tally.bests WHERE chat = 1") == [(30,)]


def test_uninstall_gives_up_and_names_a_writer(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally, impatient: None
) -> None:
    beside.run(tally.install)
    beside.run(tally.backfill)
    writer = session()
    ok(writer, "BEGIN", "INSERT INTO message (chat, size) VALUES (1, 30)")
    with pytest.raises(InstallError, match=rf"locked by pid {_pid(writer)} "):
        beside.run(tally.uninstall)
    ok(writer, "COMMIT")
    assert_exact(engine, tally)
    assert beside.run(tally.uninstall) == ["counts", "bests", "authors", "totals"]
    assert ok(writer, LEFT) == [(0,)]


def test_uninstall_gives_up_and_names_an_idle_reader(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally, impatient: None
) -> None:
    """Triggers are dropped under a lock that even a reader of the table keeps away."""
    beside.run(tally.install)
    reader, other = session(), session()
    ok(reader, "BEGIN", DIRECTLY)
    with pytest.raises(InstallError, match=rf"locked by pid {_pid(reader)} "):
        beside.run(tally.uninstall)
    ok(other, "INSERT INTO message (chat, size) VALUES (1, 30)")
    assert_exact(engine, tally)


def test_uninstall_waits_for_a_reader_and_makes_none_wait(
    session: OpenSession, beside: Beside, tally: Tally, patient: None
) -> None:
    beside.run(tally.install)
    reader, other = session(), session()
    ok(reader, "BEGIN", COUNT)
    uninstall = beside.start(tally.uninstall)
    for _ in range(3):
        uninstall.until_pausing()
        ok(other, "INSERT INTO message (chat, size) VALUES (1, 1)", COUNT)
    ok(reader, "COMMIT")
    uninstall.result()
    assert ok(other, LEFT) == [(0,)]


def test_old_snapshots_stay_right_across_install_backfill_and_switch(
    session: OpenSession, beside: Beside, tally: Tally
) -> None:
    """A snapshot from before the install finds the view, and no row that tells it to use the kept half."""
    before, building, kept, writer = session(), session(), session(), session()
    assert ok(before, SNAPSHOT, DIRECTLY) == [(2,)]
    beside.run(tally.install)
    assert ok(before, DIRECTLY) == ok(before, COUNT) == [(2,)]
    ok(writer, "INSERT INTO message (chat, size, author) VALUES (1, 30, 'dan')")
    assert ok(building, SNAPSHOT, COUNT) == [(3,)]
    assert_exact_in(tally, before, building, writer)
    ok(writer, "UPDATE message SET author = 'eve' WHERE chat = 1", "DELETE FROM message WHERE id = 1")
    beside.run(tally.backfill)
    assert_exact_in(tally, before, building, writer)
    assert ok(kept, SNAPSHOT, COUNT) == [(2,)]
    ok(writer, "DELETE FROM message WHERE size = 30")
    beside.run(tally.fold)
    ok(writer, "UPDATE tally.aggregate SET serving = 'direct'")
    assert_exact_in(tally, before, building, kept, writer)
    ok(writer, "UPDATE tally.aggregate SET serving = 'kept'")
    assert [ok(each, COUNT) for each in (before, building, kept, writer)] == [[(2,)], [(3,)], [(2,)], [(1,)]]
    assert_exact_in(tally, before, building, kept, writer)


def test_old_snapshots_are_not_served_by_a_later_installation(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally
) -> None:
    """The switch that the snapshot sees is that of an installation which is gone, with its tables."""
    old, writer = session(), session()
    beside.run(tally.install)
    beside.run(tally.backfill)
    ok(old, SNAPSHOT, "SELECT count(*) FROM pg_class")
    for _ in range(2):
        ok(writer, "INSERT INTO message (chat, size) VALUES (1, 30)")
        beside.run(tally.uninstall)
        beside.run(tally.install)
        beside.run(tally.backfill)
    assert [ok(each, COUNT) for each in (old, writer)] == [ok(each, DIRECTLY) for each in (old, writer)]
    for each in (old, writer):
        assert ok(each, UNEQUAL) == []
    assert_exact_in(tally, writer)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_writer_with_a_snapshot_from_before_the_install(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally, level: str
) -> None:
    """It may have read, not written, when the triggers came; its writes are captured, and it reads them."""
    begins: dict[str, LiteralString] = {
        "REPEATABLE READ": "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "SERIALIZABLE": "BEGIN ISOLATION LEVEL SERIALIZABLE",
    }
    writer, other = session(), session()
    assert ok(writer, begins[level], DIRECTLY) == [(2,)]
    beside.run(tally.install)
    ok(other, "INSERT INTO message (chat, size) VALUES (1, 40)")
    beside.run(tally.backfill)
    ok(writer, "DELETE FROM message WHERE size = 20", "INSERT INTO message (chat, size) VALUES (1, 50), (1, 60)")
    assert ok(writer, DIRECTLY) == ok(writer, COUNT) == [(3,)]
    assert_exact(engine, tally)
    ok(writer, "COMMIT")
    assert_exact(engine, tally)
    beside.run(tally.fold)
    assert_exact(engine, tally)


def test_two_installers_at_once(
    session: OpenSession, beside: Beside, engine: Engine, tally: Tally, patient: None
) -> None:
    writer = session()
    ok(writer, "BEGIN", "INSERT INTO message (chat, size) VALUES (1, 30)")
    operations = [beside.start(tally.install) for _ in range(2)]
    for operation in operations:
        operation.until(lambda: operation.is_pausing)  # noqa: B023 (called at once)
    ok(writer, "COMMIT")
    installed = [name for operation in operations for name in operation.result()]
    assert sorted(installed) == ["authors", "bests", "counts", "totals"]
    tally.backfill(engine)
    assert_exact(engine, tally)
