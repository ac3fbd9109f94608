"""Rollback and resume: which half readers get after each, on every kind of aggregate, by Python and by the command."""

from collections.abc import Callable
from pathlib import Path
from typing import LiteralString

import pytest
from sqlalchemy import URL, BigInteger, Column, Engine, Integer, MetaData, Table

from tallystick import InstallError, NotKept, Tally, UsageError
from tallystick.maintain.backfill import Progress
from tests.commands import Ran, ran
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.order_oracle import assert_orders_exact
from tests.servers import Connection

SETUP: LiteralString = """
CREATE TABLE item (id bigint PRIMARY KEY, place integer, size integer);
INSERT INTO item SELECT i, i % 5, i % 17 FROM generate_series(1, 2000) AS i;
"""
DAMAGE: LiteralString = (
    "UPDATE tally.by_place__state SET n = n + 1 WHERE k1 = 3; UPDATE tally.sizes__bucket SET n = n + 1"
)
MEND: LiteralString = (
    "UPDATE tally.by_place__state SET n = n - 1 WHERE k1 = 3; UPDATE tally.sizes__bucket SET n = n - 1"
)
READ: LiteralString = "SELECT (SELECT sum(items) FROM tally.by_place), tally.sizes_count()"
ITEM = Table("item", MetaData(), Column("id", BigInteger, primary_key=True), Column("size", Integer))
Run = Callable[..., Ran]


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(SETUP)
    return connection


@pytest.fixture
def tally(app: Connection, engine: Engine) -> Tally:
    """A grouped and an ordered aggregate, kept, and a counter."""
    tally = Tally()
    tally.grouped("by_place", "SELECT place, count(*) AS items, max(size) AS most FROM item GROUP BY place")
    tally.ordered("sizes", ITEM, key=[ITEM.c.size])
    tally.counter("visits")
    tally.install(engine)
    tally.backfill(engine)
    return tally


def test_readers_are_on_the_source_until_resume(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute(DAMAGE)
    assert app.execute(READ).fetchone() != (2000, 2000)
    assert [(each.aggregate, each.was) for each in tally.rollback(engine)] == [("by_place", "kept"), ("sizes", "kept")]
    assert app.execute(READ).fetchone() == (2000, 2000)
    resumed = tally.resume(engine)
    assert [(each.serving, each.report.status) for each in resumed] == [("direct", "drift")] * 2
    assert app.execute(READ).fetchone() == (2000, 2000)
    app.execute(MEND)
    app.execute("INSERT INTO item VALUES (3000, 3, 3)")
    tally.fold(engine)  # went on underneath
    assert [(each.serving, each.report.status) for each in tally.resume(engine)] == [("kept", "exact")] * 2
    app.execute(DAMAGE)
    assert app.execute(READ).fetchone() != (2001, 2001)


def test_neither_backfill_nor_install_brings_readers_back(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.rollback(engine, only=["by_place", "sizes"])
    tally.install(engine)
    tally.backfill(engine, only=["by_place", "sizes"], force=True)
    tally.fold(engine)
    assert {each.name: (each.serving, each.rolled_back) for each in tally.status(engine) if each.name != "visits"} == {
        "by_place": ("direct", True),
        "sizes": ("direct", True),
    }


def test_rollback_of_what_is_not_backfilled_yet(app: Connection, engine: Engine) -> None:
    tally = Tally()
    tally.grouped("g", "SELECT place, count(*) AS items FROM item GROUP BY place")
    tally.install(engine)
    assert [each.was for each in tally.rollback(engine)] == ["direct"]
    with pytest.raises(NotKept, match="is not backfilled") as caught:
        tally.resume(engine)
    assert caught.value.hint == "Run: tally backfill g && tally resume g"
    tally.backfill(engine)
    assert [each.serving for each in tally.status(engine)] == ["direct"]
    assert [each.serving for each in tally.resume(engine)] == ["kept"]
    assert_exact(engine, tally)


def test_resume_of_what_was_never_rolled_back(engine: Engine, tally: Tally) -> None:
    assert [(each.serving, each.report.status) for each in tally.resume(engine)] == [("kept", "exact")] * 2


def test_stopped_maintenance(app: Connection, engine: Engine, tally: Tally) -> None:
    """The way back is an install, a backfill and a resume; what is done without them is refused by name."""
    stopped = tally.rollback(engine, stop_maintenance=True)
    assert [each.is_maintained for each in stopped] == [False, False]
    assert app.execute("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'item'::regclass").fetchone() == (0,)
    app.execute("INSERT INTO item VALUES (3000, 3, 3); DELETE FROM item WHERE id = 8")
    assert app.execute(READ).fetchone() == (2000, 2000)
    for refused in (tally.backfill, tally.resume):
        with pytest.raises(InstallError, match="its triggers are off") as caught:
            refused(engine, only=["by_place"])
        assert caught.value.hint == "Run: tally install by_place && tally backfill by_place"
    assert tally.install(engine) == ["by_place", "sizes"]
    assert tally.install(engine) == []
    app.execute("INSERT INTO item VALUES (3001, 3, 3)")
    tally.backfill(engine, only=["by_place", "sizes"])
    app.execute("DELETE FROM item WHERE id = 9")
    assert [(each.serving, each.report.status) for each in tally.resume(engine)] == [("kept", "exact")] * 2
    assert_exact(engine, tally)
    assert_orders_exact(engine, tally)


def test_stopped_in_the_middle_of_a_backfill(app: Connection, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that were counted before do not know of what was written while no trigger was there."""
    tally = Tally()
    tally.grouped("g", "SELECT place, count(*) AS items FROM item GROUP BY place")
    tally.install(engine)
    counted: list[int] = []

    def interrupt(progress: Progress) -> None:
        counted.append(progress.done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tally.backfill(engine, chunk_rows=100, told=interrupt)
    assert 0 < counted[0] < 2000
    tally.rollback(engine, stop_maintenance=True)
    app.execute("DELETE FROM item WHERE id < 50; INSERT INTO item VALUES (0, 0, 0)")
    tally.install(engine)
    tally.backfill(engine)
    assert [each.serving for each in tally.resume(engine)] == ["kept"]
    assert_exact(engine, tally)


def test_stopped_maintenance_of_a_partitioned_source(app: Connection, engine: Engine) -> None:
    app.execute(
        "CREATE TABLE event (id bigint, k integer) PARTITION BY LIST (k);"
        " CREATE TABLE event1 PARTITION OF event FOR VALUES IN (1); CREATE TABLE event2 PARTITION OF event DEFAULT;"
        " INSERT INTO event SELECT i, i % 3 FROM generate_series(1, 30) AS i"
    )
    tally = Tally()
    tally.grouped("events", "SELECT k, count(*) AS n FROM event GROUP BY k")
    tally.install(engine)
    tally.backfill(engine)
    tally.rollback(engine, stop_maintenance=True)
    assert app.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (0,)
    app.execute("TRUNCATE event1; INSERT INTO event VALUES (1, 1)")
    tally.install(engine)
    tally.backfill(engine)
    tally.resume(engine)
    app.execute("INSERT INTO event VALUES (2, 1), (3, 2)")
    assert_exact(engine, tally)


def test_counters_are_refused_by_name_alone(app: Connection, engine: Engine, tally: Tally) -> None:
    for operation in (tally.rollback, tally.resume):
        with pytest.raises(UsageError, match='counter "visits" has no switch'):
            operation(engine, only=["by_place", "visits"])
    assert {each.serving for each in tally.status(engine)} == {"kept"}


def test_who_rolled_back_is_told(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.rollback(engine, only=["by_place"])
    tally.rollback(engine, only=["by_place"], stop_maintenance=True)
    found = app.execute(
        "SELECT what, detail ->> 'was' FROM tally.event WHERE aggregate = 'by_place'"
        " AND what IN ('rollback', 'stop maintenance') ORDER BY id"
    ).fetchall()
    assert found == [
        ("rollback", "kept"), ("rollback", "direct"), ("stop maintenance", None),
    ]  # fmt: skip


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: URL) -> Run:
    monkeypatch.setenv("TALLY_DSN", database.render_as_string(hide_password=False))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: ran(capsys, *arguments)


def test_commands(app: Connection, engine: Engine, tally: Tally, command: Run) -> None:
    assert (command("rollback").code, command("rollback", "sizes", "--all").code) == (2, 2)
    named = command("rollback", "visits")
    assert named.code == 2
    assert 'counter "visits" has no switch' in named.err
    shown = command("rollback", "--all")
    assert shown.code == 0
    assert "by_place: readers are on the source" in shown.out
    assert "Passed over: visits." in shown.err
    assert "To go back: tally resume by_place sizes" in shown.err
    assert "rolled back; tally resume sizes" in command("status").out
    app.execute("UPDATE tally.by_place__state SET n = n + 1 WHERE k1 = 3")
    drifting = command("resume", "--all")
    assert drifting.code == 1
    assert "by_place: DRIFT in 1 of 5 groups; readers stay as they are" in drifting.out
    assert "Not resumed: by_place. Run: tally repair by_place" in drifting.err
    assert "sizes: exact" in drifting.out
    app.execute("UPDATE tally.by_place__state SET n = n - 1 WHERE k1 = 3")
    found = command("resume", "by_place", "--json")
    assert found.code == 0
    (resumed,) = found.json["aggregates"]
    assert (resumed["name"], resumed["serving"], resumed["report"]["status"]) == ("by_place", "kept", "exact")
    stopped = command("rollback", "by_place", "--stop-maintenance")
    assert "by_place: readers are on the source; its triggers are off, and what was kept is given up" in stopped.out
    way_back = "tally install by_place && tally backfill by_place && tally resume by_place"
    assert f"To go back: {way_back}" in stopped.err
    assert "its triggers are off: see tally doctor" in command("status").out
    examined = command("doctor", "--json")
    assert examined.code == 0
    assert [(each["level"], each["remedy"]) for each in examined.json["findings"] if each["subject"] == "by_place"] == [
        ("advice", way_back)
    ]
    backfill = command("backfill", "by_place")
    assert backfill.code == 1
    assert "Run: tally install by_place && tally backfill by_place" in backfill.err
