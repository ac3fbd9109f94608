"""Plan, install, backfill, fold, verify, status, doctor and uninstall: what each does, and what it leaves."""

import re
from typing import LiteralString

import pytest
from sqlalchemy import Engine

from tallystick import DeclarationError, InstallError, Tally
from tests.conftest import Connect
from tests.objects import objects
from tests.oracle import assert_exact
from tests.servers import Connection

SETUP: LiteralString = """
CREATE TABLE message (id bigint PRIMARY KEY, chat_id integer, kind text, size integer, body text);
INSERT INTO message SELECT i, i % 15, 'k' || i % 2, i, 'x' FROM generate_series(1, 150) AS s (i);
"""
DECLARED = "SELECT chat_id, count(*) AS n, sum(size) AS bytes, max(size) AS largest FROM message GROUP BY chat_id"
BASE = {
    "function tally.census(numeric,boolean)",
    "function tally.shortest(double precision)",
    "relation tally.aggregate rp",
    "relation tally.epoch Sp",
    "relation tally.layout rp",
    "relation tally.reset rp",
    "schema tally",
}


@pytest.fixture
def app(connect: Connect) -> Connection:
    """A session of an application, with a table of messages."""
    connection = connect(autocommit=True)
    connection.execute(SETUP)
    return connection


@pytest.fixture
def tally() -> Tally:
    """One aggregate, `m`, over the messages of each chat."""
    tally = Tally()
    tally.grouped("m", DECLARED)
    return tally


@pytest.fixture
def kept(app: Connection, engine: Engine, tally: Tally) -> Tally:
    """The same, installed and backfilled."""
    tally.install(engine)
    tally.backfill(engine)
    return tally


def test_plan_leaves_nothing_behind(app: Connection, engine: Engine, tally: Tally) -> None:
    before = objects(app)
    (planned,) = tally.plan(engine)
    assert objects(app) == before
    assert (planned.aggregate, planned.source) == ("m", "public.message")
    assert planned.compiled is not None
    assert len([each for each in planned.compiled.triggers if each.text().startswith("CREATE TRIGGER")]) == 7


def test_plan_is_what_install_runs(app: Connection, engine: Engine, tally: Tally) -> None:
    """The base of the installation is made first; then the planned statements give what install gives."""
    other = Tally()
    other.grouped("other", "SELECT count(*) AS n FROM message")
    other.install(engine)
    (planned,) = tally.plan(engine)
    assert planned.compiled is not None
    with app.transaction(force_rollback=True):
        app.execute("SET LOCAL search_path = pg_catalog")
        for statement in (*planned.compiled.objects, *planned.compiled.triggers):
            app.execute(statement.sql)
        app.execute("RESET search_path")
        ran = _unnumbered(objects(app))
    tally.install(engine)
    assert _unnumbered(objects(app)) == ran


def _unnumbered(found: list[str]) -> list[str]:
    """Each installation has a number of its own in the conditions of its views."""
    return [re.sub(r"\bversion = \d+", "version = n", each) for each in found]


def test_plan_of_what_is_installed(kept: Tally, engine: Engine) -> None:
    (planned,) = kept.plan(engine)
    assert (planned.source, planned.compiled) == ("public.message", None)


def test_install_twice(app: Connection, engine: Engine, tally: Tally) -> None:
    assert tally.install(engine) == ["m"]
    before = objects(app)
    assert tally.install(engine) == []
    assert objects(app) == before
    assert_exact(engine, tally)


def test_install_in_the_order_of_declaration(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.grouped("a", "SELECT count(*) AS n FROM message")
    assert tally.install(engine, only=["a"]) == ["a"]
    assert tally.install(engine) == ["m"]
    assert tally.uninstall(engine) == ["m", "a"]


COLLISIONS: dict[str, LiteralString] = {
    "first object": "CREATE TABLE tally.m__direct ()",
    "view of the readers": "CREATE TABLE tally.m ()",
    "function": "CREATE FUNCTION tally.m__rebuild() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
    "trigger": (
        "CREATE TRIGGER tally_m__update AFTER UPDATE ON message EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    ),
}


@pytest.mark.parametrize("collision", COLLISIONS.values(), ids=COLLISIONS)
def test_install_is_all_or_nothing(app: Connection, engine: Engine, tally: Tally, collision: LiteralString) -> None:
    tally.grouped("earlier", "SELECT count(*) AS n FROM message")
    tally.install(engine, only=["earlier"])
    app.execute(collision)
    before = objects(app)
    with pytest.raises(InstallError, match=r'^aggregate "m": PostgreSQL refused .* already exists.*\.') as caught:
        tally.install(engine)
    assert objects(app) == before
    assert caught.value.hint == "Nothing of this aggregate was changed."
    assert caught.value.exit_code == 1
    app.execute("INSERT INTO message VALUES (0, 1)")


def test_one_refused_aggregate_does_not_undo_another(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.grouped("bad", "SELECT sum(kind) AS s FROM message")
    with pytest.raises(DeclarationError):
        tally.install(engine)
    assert [(found.name, found.phase) for found in tally.status(engine)] == [("bad", "declared"), ("m", "building")]


def test_changed_definition_is_refused(app: Connection, engine: Engine, kept: Tally) -> None:
    changed = Tally()
    changed.grouped("m", "SELECT chat_id, count(*) AS n FROM message GROUP BY chat_id")
    before = objects(app)
    with pytest.raises(DeclarationError) as caught:
        changed.install(engine)
    assert caught.value.message.startswith('aggregate "m" is installed with another definition: ')
    assert caught.value.hint == "Run: tally redefine m"
    assert objects(app) == before


def test_plan_of_a_changed_definition(app: Connection, engine: Engine, kept: Tally) -> None:
    changed = Tally()
    changed.grouped("m", "SELECT kind, count(*) AS n, sum(chat_id) AS bytes FROM message WHERE size > 1 GROUP BY kind")
    before = objects(app)
    (planned,) = changed.plan(engine)
    assert [str(change) for change in planned.changes] == [
        'key "chat_id" removed: chat_id',
        'key "kind" added: kind',
        'measure "bytes" changed: sum(size) -> sum(chat_id)',
        'measure "largest" removed: max(size)',
        "where added: size > 1",
    ]
    assert objects(app) == before


def test_backfill_twice(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("DELETE FROM message WHERE chat_id = 3")
    (again,) = kept.backfill(engine, force=True)
    assert (again.aggregate, again.groups) == ("m", 14)
    assert again.elapsed_s > 0
    assert_exact(engine, kept)
    assert kept.fold(engine)[0].deltas == 0


def test_fold(app: Connection, engine: Engine, kept: Tally) -> None:
    assert (kept.fold(engine)[0].deltas, kept.fold(engine)[0].groups) == (0, 0)
    app.execute("INSERT INTO message VALUES (1001, 1, 'k1', 5), (1002, 2, 'k1', 5), (1003, 1, 'k1', 5)")
    app.execute("UPDATE message SET body = 'unused'")
    (folded,) = kept.fold(engine)
    assert (folded.aggregate, folded.deltas, folded.groups) == ("m", 2, 2)
    assert kept.fold(engine)[0].deltas == 0
    assert_exact(engine, kept)


def test_fold_while_building(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.install(engine)
    app.execute("DELETE FROM message WHERE chat_id < 5")
    tally.fold(engine)
    assert_exact(engine, tally)
    app.execute("INSERT INTO message VALUES (1001, 1, 'k1', 5)")
    tally.backfill(engine)
    assert_exact(engine, tally)


def test_status_phases(app: Connection, engine: Engine, tally: Tally) -> None:
    def facts() -> list[tuple[object, ...]]:
        return [(s.name, s.source, s.phase, s.serving, s.backlog, s.is_current) for s in tally.status(engine)]

    assert facts() == [("m", "message", "declared", None, 0, False)]
    tally.install(engine)
    assert facts() == [("m", "public.message", "building", "direct", 0, True)]
    app.execute("INSERT INTO message VALUES (1001, 1), (1002, 2)")
    assert facts() == [("m", "public.message", "building", "direct", 2, True)]
    tally.backfill(engine)
    assert facts() == [("m", "public.message", "kept", "kept", 0, True)]
    app.execute("UPDATE tally.aggregate SET serving = 'direct'")
    assert facts() == [("m", "public.message", "kept", "direct", 0, True)]
    app.execute("ANALYZE tally.m__state")
    assert [found.groups for found in tally.status(engine)] == [15]


def test_status_beside_declarations(engine: Engine, kept: Tally) -> None:
    other = Tally()
    other.grouped("m", "SELECT count(*) AS n FROM message")
    other.grouped("b", DECLARED)
    found = [(s.name, s.phase, s.is_declared, s.is_current) for s in other.status(engine)]
    assert found == [("b", "declared", True, False), ("m", "kept", True, False)]
    found = [(s.name, s.phase, s.is_declared, s.is_current) for s in Tally().status(engine)]
    assert found == [("m", "kept", False, True)]
    assert Tally(schema="elsewhere").status(engine) == []


def own_objects(connection: Connection) -> set[str]:
    return {line for line in objects(connection) if "tally" in line or line.startswith("trigger")}


def test_uninstall_leaves_the_base_alone(app: Connection, engine: Engine, kept: Tally) -> None:
    assert kept.uninstall(engine) == ["m"]
    left = own_objects(app)
    assert left >= BASE
    assert not [line for line in left if "m__" in line or line.startswith("trigger")]
    assert app.execute("SELECT count(*) FROM tally.aggregate").fetchone() == (0,)
    app.execute("INSERT INTO message VALUES (1001, 1)")
    kept.install(engine)
    assert_exact(engine, kept)


def test_uninstall_takes_its_reset_markers(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("TRUNCATE message")
    kept.uninstall(engine)
    assert app.execute("SELECT count(*) FROM tally.reset").fetchone() == (0,)


def test_uninstall_when_the_source_is_gone(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("DROP TABLE message CASCADE")
    (found,) = kept.status(engine)
    assert (found.source, found.phase) == (None, "kept")
    assert kept.uninstall(engine) == ["m"]
    assert not [line for line in own_objects(app) if "m__" in line]


HALF_REMOVED: list[LiteralString] = [
    "DROP TRIGGER tally_m__update ON message",
    "DROP FUNCTION tally.m__change CASCADE",
    "DROP VIEW tally.m CASCADE",
    "DROP VIEW tally.m__direct CASCADE",
    "DROP FUNCTION tally.m__fold",
    "DROP FUNCTION tally.m__row CASCADE",
    "DROP TABLE tally.m__state CASCADE",
    "DROP TABLE tally.m__delta CASCADE",
]


@pytest.mark.parametrize("removal", HALF_REMOVED)
def test_half_removed(app: Connection, engine: Engine, kept: Tally, removal: LiteralString) -> None:
    """Status and doctor still answer, and uninstall takes out what is left."""
    app.execute(removal)
    assert [found.name for found in kept.status(engine)] == ["m"]
    assert "error" in {finding.level for finding in kept.doctor(engine)}
    assert kept.uninstall(engine) == ["m"]
    assert not [line for line in own_objects(app) if "m__" in line]


def test_uninstall_spares_a_view_of_the_user(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("CREATE VIEW busy AS SELECT chat_id FROM tally.m WHERE n > 5")
    before = objects(app)
    with pytest.raises(InstallError) as caught:
        kept.uninstall(engine)
    assert "view busy depends on view tally.m" in caught.value.message
    assert objects(app) == before
    assert_exact(engine, kept)


def test_two_schemas_on_one_table(app: Connection, engine: Engine) -> None:
    """The same name twice: two applications share a database and do not know of one another."""
    one, other = Tally(schema="one"), Tally(schema="other")
    for each in (one, other):
        each.grouped("m", DECLARED)
        assert each.install(engine) == ["m"]
        each.backfill(engine)
    app.execute("DELETE FROM message WHERE id % 7 = 0")
    assert_exact(engine, one)
    assert_exact(engine, other)
    one.uninstall(engine)
    app.execute("UPDATE message SET chat_id = 1 WHERE id % 5 = 0")
    other.fold(engine)
    assert_exact(engine, other)
    assert [finding for finding in other.doctor(engine) if finding.level == "error"] == []


def test_schema_with_an_odd_name(app: Connection, engine: Engine) -> None:
    tally = Tally(schema='Tally "x".y')
    tally.grouped("M m", DECLARED)
    tally.install(engine)
    tally.backfill(engine)
    app.execute("DELETE FROM message WHERE id % 7 = 0; TRUNCATE message; INSERT INTO message VALUES (1, 1, 'k', 5)")
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)
    tally.uninstall(engine)


def test_readers_follow_the_switch(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("DELETE FROM tally.m__state WHERE k1 = 1")
    count: LiteralString = "SELECT count(*) FROM tally.m"
    assert app.execute(count).fetchone() == (14,)
    app.execute("UPDATE tally.aggregate SET serving = 'direct' WHERE name = 'm'")
    assert app.execute(count).fetchone() == (15,)
    assert kept.verify(engine)[0].status == "drift"
