"""What verify and doctor find when someone has tampered with an aggregate."""

from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import Engine

from tallystick import Tally
from tallystick.maintain.doctor import Finding
from tallystick.maintain.verify import Drift
from tests.conftest import Connect
from tests.servers import Connection

SETUP: LiteralString = """
CREATE TABLE message (id bigint PRIMARY KEY, chat_id integer, size integer);
INSERT INTO message SELECT i, nullif(i % 15, 0), 10 FROM generate_series(1, 150) AS s (i);
"""
DECLARED = "SELECT chat_id, count(*) AS n, sum(size) AS bytes FROM message GROUP BY chat_id"
REBUILD = "tally uninstall m && tally install m && tally backfill m"


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(SETUP)
    return connection


@pytest.fixture
def kept(app: Connection, engine: Engine) -> Tally:
    tally = Tally()
    tally.grouped("m", DECLARED)
    tally.install(engine)
    tally.backfill(engine)
    return tally


def group(n: int) -> dict[str, int]:
    return {"n": n, "bytes": 10 * n}


TAMPERED: dict[str, tuple[LiteralString, Drift]] = {
    "state changed": (
        "UPDATE tally.m__state SET n = 41 WHERE k1 = 7",
        Drift({"chat_id": 7}, {"n": 41, "bytes": 100}, group(10)),
    ),
    "group missing": ("DELETE FROM tally.m__state WHERE k1 = 7", Drift({"chat_id": 7}, None, group(10))),
    "group of NULL missing": (
        "DELETE FROM tally.m__state WHERE k1 IS NULL",
        Drift({"chat_id": None}, None, group(10)),
    ),
    "group too many": (
        "INSERT INTO tally.m__state (k1, n, a1, a2) SELECT 99, n, a1, a2 FROM tally.m__state WHERE k1 = 7",
        Drift({"chat_id": 99}, group(10), None),
    ),
    "delta removed": (
        "INSERT INTO message VALUES (151, 7, 10); DELETE FROM tally.m__delta",
        Drift({"chat_id": 7}, group(10), group(11)),
    ),
    "trigger disabled": (
        "ALTER TABLE message DISABLE TRIGGER tally_m__delete; DELETE FROM message WHERE chat_id = 7",
        Drift({"chat_id": 7}, group(10), None),
    ),
}


@pytest.mark.parametrize(("tampering", "drift"), TAMPERED.values(), ids=TAMPERED)
def test_verify_finds(app: Connection, engine: Engine, kept: Tally, tampering: LiteralString, drift: Drift) -> None:
    assert (kept.verify(engine)[0].status, kept.verify(engine)[0].groups) == ("exact", 15)
    app.execute(tampering)
    (report,) = kept.verify(engine)
    assert (report.aggregate, report.drifted, report.first) == ("m", 1, (drift,))
    assert (report.status, report.is_exact) == ("drift", False)
    assert app.execute("SELECT count(DISTINCT coalesce(chat_id, 0)) FROM message").fetchone() == (report.groups,)
    kept.backfill(engine, force=True)
    assert kept.verify(engine)[0].is_exact


def test_verify_names_the_first_ten(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("UPDATE tally.m__state SET n = n + 1 WHERE k1 <= 12; DELETE FROM tally.m__state WHERE k1 = 13")
    (report,) = kept.verify(engine)
    assert (report.drifted, len(report.first)) == (13, 10)
    assert [drift.group["chat_id"] for drift in report.first] == list(range(1, 11))


def test_verify_while_building(engine: Engine, app: Connection) -> None:
    tally = Tally()
    tally.grouped("m", DECLARED)
    tally.install(engine)
    (report,) = tally.verify(engine)
    assert (report.status, report.drifted, report.first, report.is_exact) == ("building", 0, (), False)


@pytest.mark.parametrize("name", ["half", "k", "kept", "g", "m", "side", "n", "h", "k1"])
def test_columns_may_have_any_name(app: Connection, engine: Engine, name: str) -> None:
    """As a group key and as a measure: none of our own names gets in the way."""
    tally = Tally()
    for aggregate, declared in (
        ("by_key", ["SELECT chat_id AS", name, ", count(*) AS n1, max(size) AS m1 FROM message GROUP BY 1"]),
        ("measured", ["SELECT chat_id, sum(size) AS", name, ", min(size) AS m1 FROM message GROUP BY 1"]),
    ):
        tally.grouped(aggregate, " ".join(declared))
    tally.install(engine)
    tally.backfill(engine)
    assert [report.status for report in tally.verify(engine)] == ["exact", "exact"]
    app.execute("DELETE FROM message WHERE chat_id = 3; UPDATE message SET size = 3 WHERE id % 9 = 0")
    assert [report.status for report in tally.verify(engine)] == ["exact", "exact"]
    tally.fold(engine)
    assert [report.status for report in tally.verify(engine)] == ["exact", "exact"]
    app.execute("DELETE FROM tally.by_key__state WHERE k1 = 7; DELETE FROM tally.measured__state WHERE k1 = 7")
    by_key, measured = tally.verify(engine)
    assert [(drift.group, drift.kept) for drift in by_key.first] == [({name: 7}, None)]
    assert [(drift.group, drift.kept) for drift in measured.first] == [({"chat_id": 7}, None)]
    assert measured.first[0].direct is not None
    assert measured.first[0].direct.keys() == {name, "m1"}
    with engine.connect() as connection:
        for measure in ("n1", "m1"):
            top = tally["by_key"].top(measure, 3)
            assert len(connection.execute(top).all()) == 3


def findings(engine: Engine, tally: Tally) -> list[Finding]:
    """What doctor says, beside advice about the server's own settings."""
    return [finding for finding in tally.doctor(engine) if finding.subject != "jit"]


def test_doctor_of_a_healthy_installation(engine: Engine, kept: Tally) -> None:
    assert findings(engine, kept) == []


def test_doctor_before_anything_is_installed(engine: Engine, app: Connection) -> None:
    tally = Tally()
    assert findings(engine, tally) == [
        Finding("advice", "tally", 'nothing is installed in schema "tally"', "tally install")
    ]
    tally.grouped("m", DECLARED)
    assert Finding("advice", "m", "declared and not installed", "tally install m") in findings(engine, tally)


def test_doctor_while_building(engine: Engine, app: Connection) -> None:
    tally = Tally()
    tally.grouped("m", DECLARED)
    tally.install(engine)
    assert findings(engine, tally) == [
        Finding("advice", "m", "serves from its source until it is backfilled", "tally backfill m")
    ]


@pytest.mark.parametrize("event", ["insert", "update", "delete", "truncate"])
def test_doctor_misses_a_trigger(app: Connection, engine: Engine, kept: Tally, event: LiteralString) -> None:
    disable: LiteralString = "ALTER TABLE message DISABLE TRIGGER tally_m__"
    app.execute(disable + event)
    always = "ALWAYS " if event in ("update", "truncate") else ""
    repair = f'ALTER TABLE public.message ENABLE {always}TRIGGER "tally_m__{event}"; then: tally backfill m --force'
    disabled = f'trigger "tally_m__{event}" on public.message is disabled'
    assert findings(engine, kept) == [Finding("error", "m", disabled, repair)]
    drop: LiteralString = "DROP TRIGGER tally_m__"
    app.execute(drop + event + " ON message")
    missing = f'trigger "tally_m__{event}" is missing on public.message'
    assert findings(engine, kept) == [Finding("error", "m", missing, REBUILD)]


def test_doctor_and_replica_triggers(app: Connection, engine: Engine, kept: Tally) -> None:
    """Statement triggers are for ordinary sessions, row triggers of INSERT and DELETE for those that replay changes."""
    changes: list[LiteralString] = [
        "ALTER TABLE message ENABLE REPLICA TRIGGER tally_m__insert",
        "ALTER TABLE message ENABLE ALWAYS TRIGGER tally_m__insert",
        "ALTER TABLE message ENABLE TRIGGER tally_m__insert_row",
        "ALTER TABLE message ENABLE TRIGGER tally_m__update",
    ]
    for change in changes:
        app.execute(change)
        (found,) = findings(engine, kept)
        assert (found.level, found.subject) == ("error", "m")
        app.execute(sql.SQL(found.remedy.partition(";")[0]))  # as one would copy it
        assert findings(engine, kept) == []


def test_doctor_and_another_definition(engine: Engine, kept: Tally) -> None:
    changed = Tally()
    changed.grouped("m", "SELECT count(*) AS n FROM message")
    (finding,) = findings(engine, changed)
    assert (finding.level, finding.subject, finding.remedy) == ("error", "m", "tally redefine m")
    assert 'measure "bytes" removed: sum(size)' in finding.what


def test_doctor_without_a_primary_key(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("ALTER TABLE message DROP CONSTRAINT message_pkey")
    (finding,) = findings(engine, kept)
    assert (finding.level, finding.subject) == ("advice", "m")
    assert finding.what.startswith("public.message has no primary key")
    assert finding.remedy == "ALTER TABLE public.message ADD PRIMARY KEY (…)"


def test_doctor_without_the_source(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("DROP TABLE message CASCADE")
    assert findings(engine, kept) == [Finding("error", "m", "its source table has been dropped", "tally uninstall m")]


def test_doctor_and_a_long_backlog(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("INSERT INTO message SELECT i, i, 1 FROM generate_series(1001, 101001) AS s (i)")
    assert findings(engine, kept) == [
        Finding("advice", "m", "100,001 deltas wait to be folded; reads are slow", "tally fold m")
    ]
