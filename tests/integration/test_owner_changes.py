"""The source gets another owner: who may still write, read, fold and backfill, and what doctor says."""

from collections.abc import Callable
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool

from tallystick import MissingPrivilege, Tally
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.servers import Connection

MakeRole = Callable[[], str]
TABLE: LiteralString = """
CREATE TABLE message (chat integer, size integer);
INSERT INTO message SELECT i % 5, i FROM generate_series(1, 40) AS s (i);
GRANT ALL ON message TO {writer};
"""
WRITES: tuple[LiteralString, ...] = (
    "INSERT INTO message SELECT i % 7, i FROM generate_series(1, 20) AS s (i)",
    "UPDATE message SET chat = chat + 1, size = size + 1 WHERE size % 3 = 0",
    "DELETE FROM message WHERE size % 5 = 0 OR size > 18",
    "TRUNCATE message",
    "INSERT INTO message VALUES (1, 1), (1, 9), (2, 2)",
    "DELETE FROM message WHERE size = 9",
)


@pytest.fixture
def superuser(connect: Connect) -> Connection:
    return connect(autocommit=True)


@pytest.fixture
def writer(superuser: Connection, connect: Connect, make_role: MakeRole) -> Connection:
    """A role that may write to the table, whoever owns it, and no more."""
    role = make_role()
    superuser.execute(sql.SQL(TABLE).format(writer=sql.Identifier(role)))
    return connect(user=role, autocommit=True)


@pytest.fixture
def heir(superuser: Connection, writer: Connection, make_role: MakeRole) -> str:
    """Who will own the table."""
    return make_role()


def _give_to(superuser: Connection, role: str) -> None:
    superuser.execute(sql.SQL("ALTER TABLE message OWNER TO {}").format(sql.Identifier(role)))


def _install(engine: Engine, schema: str) -> Tally:
    tally = Tally(schema=schema)
    tally.grouped("counts", "SELECT chat, count(*) AS n, sum(size) AS bytes FROM message GROUP BY chat")
    tally.grouped("bests", "SELECT chat, max(size) AS largest, count(DISTINCT size) AS d FROM message GROUP BY chat")
    tally.install(engine)
    tally.backfill(engine)
    return tally


def _write(connection: Connection) -> None:
    for statement in WRITES:
        connection.execute(statement)


def _errors(engine: Engine, tally: Tally) -> set[str]:
    return {finding.subject for finding in tally.doctor(engine) if finding.level == "error"}


def test_installed_by_a_superuser(
    superuser: Connection, writer: Connection, heir: str, engine: Engine, connect: Connect
) -> None:
    """Nothing changes, whoever owns the table and whoever writes."""
    tally = _install(engine, "tally")
    _give_to(superuser, heir)
    for connection in (connect(user=heir, autocommit=True), writer):
        _write(connection)
        assert_exact(engine, tally)
        tally.fold(engine)
        assert_exact(engine, tally)
    tally.backfill(engine, force=True)
    assert_exact(engine, tally)
    assert _errors(engine, tally) == set()


@pytest.fixture
def installer(superuser: Connection, writer: Connection, database: URL, make_role: MakeRole) -> str:
    """An ordinary role that owns the table for the time being."""
    role = make_role()
    names = sql.Identifier(role), sql.Identifier(str(database.database))
    superuser.execute(sql.SQL("GRANT CREATE ON DATABASE {1} TO {0}").format(*names))
    _give_to(superuser, role)
    return role


@pytest.fixture
def lost(
    superuser: Connection, writer: Connection, heir: str, installer: str, database: URL, connect: Connect
) -> tuple[Engine, Tally]:
    """Aggregates of a role that has lost all rights on the source; heir and writer have written since."""
    engine = create_engine(database.set(username=installer), poolclass=NullPool)
    tally = _install(engine, "theirs")
    _give_to(superuser, heir)
    for connection in (connect(user=heir, autocommit=True), writer):
        _write(connection)
    return engine, tally


def test_installer_may_read_again(
    superuser: Connection, writer: Connection, installer: str, lost: tuple[Engine, Tally], engine: Engine
) -> None:
    """Nothing that was written in between has been missed."""
    own, tally = lost
    superuser.execute(sql.SQL("GRANT SELECT ON message TO {}").format(sql.Identifier(installer)))
    assert_exact(engine, tally)
    tally.fold(own)
    assert_exact(engine, tally)
    _write(writer)
    assert_exact(engine, tally)
    tally.backfill(own, force=True)
    assert_exact(engine, tally)
    assert _errors(own, tally) == set()


def test_installer_may_not_read(superuser: Connection, installer: str, lost: tuple[Engine, Tally]) -> None:
    """What has to read the table is refused; what has not goes on."""
    own, tally = lost
    assert [result.deltas > 0 for result in tally.fold(own, only=["counts"])] == [True]
    refused: list[Callable[[], object]] = [
        lambda: tally.fold(own, only=["bests"]),
        lambda: tally.backfill(own, force=True),
        lambda: tally.verify(own),
    ]
    for operation in refused:
        with pytest.raises(MissingPrivilege, match=f"role {installer}: permission denied for table message"):
            operation()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table message"):
        superuser.execute("SELECT FROM theirs.counts")


def test_doctor_tells_why_readers_are_refused(lost: tuple[Engine, Tally]) -> None:
    own, tally = lost
    assert _errors(own, tally) == {"counts", "bests"}
