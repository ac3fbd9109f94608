"""What doctor finds around an installation, each time with a command that mends it: run here, as one would copy it."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import URL, BigInteger, Column, Engine, Integer, MetaData, Table, create_engine
from sqlalchemy.pool import NullPool

from tallystick import Tally
from tallystick.maintain.checks.dead_rows import MANY_DEAD
from tallystick.maintain.doctor import Finding
from tests.commands import ran
from tests.conftest import Connect
from tests.servers import Connection, Server

SETUP: LiteralString = """
CREATE TABLE message (id bigint PRIMARY KEY, chat_id integer, size integer);
INSERT INTO message SELECT i, i % 15, 10 FROM generate_series(1, 150) AS s (i);
"""
DECLARED = "SELECT chat_id, count(*) AS n, sum(size) AS bytes, max(size) AS most FROM message GROUP BY chat_id"
DEADLINE_S = 60
message = Table(
    "message", MetaData(),
    Column("id", BigInteger, primary_key=True), Column("chat_id", Integer), Column("size", Integer),
)  # fmt: skip


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(SETUP)
    return connection


@pytest.fixture
def kept(app: Connection, engine: Engine) -> Tally:
    tally = Tally()
    tally.grouped("m", DECLARED)
    tally.ordered("by_size", message, namespace=[message.c.chat_id], key=[message.c.size])
    tally.install(engine)
    tally.backfill(engine)
    return tally


def kept_by(role: str, app: Connection, database: URL) -> tuple[Tally, Engine]:
    """An aggregate of a role that owns the table and the installation, and an engine of that role."""
    app.execute(f"ALTER TABLE message OWNER TO {role}; CREATE SCHEMA tally AUTHORIZATION {role}".encode())
    tally = Tally()
    tally.grouped("m", DECLARED)
    as_owner = create_engine(database.set(username=role), poolclass=NullPool)
    tally.install(as_owner)
    tally.backfill(as_owner)
    return tally, as_owner


def findings(engine: Engine, tally: Tally) -> list[Finding]:
    """What doctor says, beside advice about the server's own settings."""
    return [finding for finding in tally.doctor(engine) if finding.subject != "jit"]


def mended(app: Connection, finding: Finding) -> None:
    """Run the statements that a finding names."""
    for statement in finding.remedy.split("; "):
        app.execute(sql.SQL(statement))


def awaited(engine: Engine, tally: Tally, is_right: Callable[[list[Finding]], bool]) -> list[Finding]:
    """Findings of PostgreSQL's statistics, which a session tells a moment after its commit."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_right(found := findings(engine, tally)):
        assert time.monotonic() < deadline, found
    return found


def test_nothing_is_found_where_all_is_well(engine: Engine, kept: Tally) -> None:
    assert findings(engine, kept) == []


# Sessions that replay changes


@pytest.mark.parametrize("whose", ["database", "role", "role in database"])
def test_replica_sessions(
    app: Connection, engine: Engine, kept: Tally, make_role: Callable[[], str], whose: str
) -> None:
    role, database = make_role(), app.info.dbname
    names = {
        "database": f"DATABASE {database}",
        "role": f"ROLE {role}",
        "role in database": f"ROLE {role} IN DATABASE {database}",
    }
    app.execute(f"ALTER {names[whose]} SET session_replication_role = replica".encode())
    (found,) = findings(engine, kept)
    assert (found.level, found.subject) == ("advice", "session_replication_role")
    assert found.what.startswith(f"is replica for {names[whose].lower()}: ")
    assert found.remedy == f"ALTER {names[whose]} RESET session_replication_role"
    mended(app, found)
    assert findings(engine, kept) == []


def test_a_replica_setting_of_another_database_is_none_of_ours(
    app: Connection, server: Server, engine: Engine, kept: Tally
) -> None:
    other = server.create_database(server.template("empty"))
    app.execute(f"ALTER DATABASE {other} SET session_replication_role = replica".encode())
    assert findings(engine, kept) == []
    server.drop_database(other)


# Versions


def test_a_later_version_has_installed_it(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("UPDATE tally.layout SET tallystick = '99.10.1'")
    (found,) = findings(engine, kept)
    assert (found.level, found.subject) == ("error", "tally")
    assert "was installed or upgraded by tallystick 99.10.1, this is " in found.what
    assert found.remedy == "pip install 'tallystick>=99.10.1'"
    app.execute("UPDATE tally.layout SET tallystick = '0.0.1'")
    assert findings(engine, kept) == []


def test_another_major_version_of_postgresql(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("UPDATE tally.watermark SET major = major - 1")
    found = findings(engine, kept)
    assert {(each.level, each.subject, each.remedy) for each in found} == {
        ("advice", "m", "tally fold m"),
        ("advice", "by_size", "tally fold by_size"),
    }
    kept.fold(engine)
    assert findings(engine, kept) == []


# The source's index


def test_an_index_that_is_not_valid(app: Connection, engine: Engine, kept: Tally) -> None:
    app.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tally_by_size__order'::regclass")
    (found,) = findings(engine, kept)
    assert (found.level, found.subject) == ("error", "by_size")
    assert found.what.startswith("its index public.tally_by_size__order is not valid")
    mended(app, found)
    assert findings(engine, kept) == []


# Dead rows


Holding = Callable[[Connect], AbstractContextManager[tuple[str, str]]]


@contextmanager
def held_by_session(connect: Connect) -> Iterator[tuple[str, str]]:
    old = connect()
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT 1")
    yield f"pid {old.info.backend_pid} (postgres, idle in transaction, for ", "SELECT pg_terminate_backend("


@contextmanager
def held_by_prepared(connect: Connect) -> Iterator[tuple[str, str]]:
    old = connect(autocommit=True)
    old.execute("BEGIN; CREATE TABLE prepared (); PREPARE TRANSACTION 'it''s old'")
    try:
        yield "the prepared transaction 'it''s old' of postgres, ", "ROLLBACK PREPARED 'it''s old'"
    finally:
        # A failed test leaves it, and with it a database that cannot be dropped.
        for (gid,) in old.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()").fetchall():
            old.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))


@pytest.mark.parametrize("held", [held_by_session, held_by_prepared])
def test_dead_rows_that_somebody_holds(
    app: Connection, connect: Connect, engine: Engine, kept: Tally, held: Holding
) -> None:
    with held(connect) as (who, remedy):
        app.execute("INSERT INTO message SELECT i, i, 1 FROM generate_series(1001, %s) AS s (i)", [1000 + MANY_DEAD])
        kept.fold(engine)
        said = f"{MANY_DEAD:,} dead rows, over which reads walk; VACUUM has to leave them to {who}"

        def is_told(found: list[Finding]) -> bool:
            """A session is named when it has lasted a while; VACUUM, in vain, counts the dead rows anew."""
            for table in ("m__delta", "by_size__delta"):
                app.execute(sql.SQL("VACUUM tally.{}").format(sql.Identifier(table)))
            return [each.subject for each in found if said in each.what] == ["by_size__delta", "m__delta"]

        found = awaited(engine, kept, is_told)
        for each in found:
            assert each.level == "advice"
            assert each.remedy.startswith(remedy)
        mended(app, found[0])

    def is_mended(found: list[Finding]) -> bool:
        for each in found:
            mended(app, each)  # VACUUM by now, or once more the session that is about to end
        return not found

    awaited(engine, kept, is_mended)


def test_a_transaction_of_a_moment_is_not_to_be_ended(
    app: Connection, connect: Connect, engine: Engine, kept: Tally
) -> None:
    for table in ("m__delta", "by_size__delta"):  # autovacuum would take the dead rows before doctor has seen them
        app.execute(sql.SQL("ALTER TABLE tally.{} SET (autovacuum_enabled = off)").format(sql.Identifier(table)))
    app.execute("INSERT INTO message SELECT i, i, 1 FROM generate_series(1001, %s) AS s (i)", [1000 + MANY_DEAD])
    kept.fold(engine)
    brief = connect()
    brief.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT")

    def is_told(found: list[Finding]) -> bool:
        brief.rollback()
        brief.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT")
        return {(each.subject, each.remedy) for each in found} == {
            (table, f'VACUUM "tally"."{table}"') for table in ("m__delta", "by_size__delta")
        }

    awaited(engine, kept, is_told)


def test_dead_rows_that_somebody_holds_whom_the_owner_may_not_see(
    app: Connection, connect: Connect, database: URL, make_role: Callable[[], str]
) -> None:
    role = make_role()
    tally, as_owner = kept_by(role, app, database)
    app.execute("ALTER TABLE tally.m__delta SET (autovacuum_enabled = off)")
    app.execute("INSERT INTO message SELECT i, i, 1 FROM generate_series(1001, %s) AS s (i)", [1000 + MANY_DEAD])
    with held_by_session(connect) as (_, remedy):
        tally.fold(as_owner)
        grant = f'GRANT pg_read_all_stats TO "{role}"'
        (found,) = awaited(as_owner, tally, lambda found: [each.subject for each in found] == ["m__delta"])
        assert found.what.endswith("or has to leave them to somebody whom this role cannot see")
        assert found.remedy == grant
        mended(app, found)
        awaited(as_owner, tally, lambda found: [each.remedy[: len(remedy)] for each in found] == [remedy])


# Rights


LOST: dict[str, LiteralString] = {
    "INSERT on tally.m__delta": "REVOKE INSERT ON tally.m__delta FROM",
    "INSERT on tally.reset": "REVOKE INSERT ON tally.reset FROM",
    "SELECT on tally.m__state": "REVOKE SELECT ON tally.m__state FROM",
    "SELECT on tally.aggregate": "REVOKE SELECT ON tally.aggregate FROM",
    "USAGE on SEQUENCE tally.epoch": "REVOKE ALL ON SEQUENCE tally.epoch FROM",
    "USAGE on SCHEMA tally": "REVOKE USAGE ON SCHEMA tally FROM",
}


@pytest.mark.parametrize(("right", "revoke"), LOST.items(), ids=LOST)
def test_an_owner_has_lost_a_right(
    app: Connection, database: URL, make_role: Callable[[], str], engine: Engine, right: str, revoke: LiteralString
) -> None:
    role = make_role()
    tally, as_owner = kept_by(role, app, database)
    assert findings(engine, tally) == []
    app.execute(f"{revoke} {role}".encode())
    (found,) = findings(engine, tally)
    assert (found.level, found.subject) == ("error", "m")
    assert found.what.startswith(f"{role}, who owns a part of it, lacks {right}: ")
    mended(app, found)
    assert findings(engine, tally) == []
    app.execute("INSERT INTO message VALUES (999, 1, 5)")
    tally.fold(as_owner)
    assert tally.verify(as_owner)[0].is_exact


GRANTED: dict[str, tuple[LiteralString, str, LiteralString]] = {
    "the schema": ("SELECT ON tally.m", "m", "USAGE on the schema"),
    "functions": ("SELECT ON tally.by_size", "by_size", "EXECUTE on its functions"),
}


@pytest.mark.parametrize(("granted", "subject", "lacking"), GRANTED.values(), ids=GRANTED)
def test_a_reader_lacks(
    app: Connection,
    make_role: Callable[[], str],
    engine: Engine,
    kept: Tally,
    granted: LiteralString,
    subject: str,
    lacking: str,
) -> None:
    role = make_role()
    app.execute(f"GRANT {granted} TO {role}".encode())
    if lacking != "USAGE on the schema":
        app.execute(f"GRANT USAGE ON SCHEMA tally TO {role}".encode())
    (found,) = findings(engine, kept)
    assert found == Finding("advice", subject, f"{role} was granted reading it, and lacks {lacking}", found.remedy)
    mended(app, found)
    assert findings(engine, kept) == []


def test_the_public_has_lost_functions_of_views(
    app: Connection, make_role: Callable[[], str], engine: Engine, kept: Tally
) -> None:
    role = make_role()
    app.execute(f"GRANT SELECT ON tally.m TO {role}; GRANT USAGE ON SCHEMA tally TO {role}".encode())
    app.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA tally FROM PUBLIC")
    (found,) = findings(engine, kept)
    assert found.what == f"{role} was granted reading it, and lacks EXECUTE on functions of views"
    mended(app, found)
    assert findings(engine, kept) == []


# The command


def test_the_command_exits_with_1_where_something_is_wrong(
    app: Connection, database: URL, kept: Tally, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TALLY_DSN", database.render_as_string(hide_password=False))
    well = ran(capsys, "doctor", "--json")
    assert (well.code, [each for each in well.json["findings"] if each["subject"] != "jit"]) == (0, [])
    app.execute("DROP INDEX tally_by_size__order")
    wrong = ran(capsys, "doctor", "--json")
    assert wrong.code == 1
    (found,) = [each for each in wrong.json["findings"] if each["subject"] != "jit"]
    assert (found["level"], found["subject"], found["remedy"]) == ("error", "by_size", "tally install by_size")
