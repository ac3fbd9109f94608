"""Faults that a reading of the code found, each as the case that showed it."""

from __future__ import annotations

from typing import LiteralString

import pytest
from sqlalchemy import URL, Engine, NullPool, create_engine

from tallystick import DeclarationError, InstallError, Tally
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.servers import Connection

SOURCE: LiteralString = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE item (id bigint PRIMARY KEY, mood mood, size integer, unused integer);
INSERT INTO item SELECT i, CASE WHEN i % 3 > 0 THEN 'glad'::mood ELSE 'sad' END, i FROM generate_series(1, 30) AS s (i);
"""
WRITES: LiteralString = """
INSERT INTO item VALUES (101, 'glad', 100), (102, NULL, 1);
DELETE FROM item WHERE size IN (29, 30, 100);
UPDATE item SET mood = 'sad' WHERE id = 1;
"""


def declared() -> Tally:
    tally = Tally()
    tally.grouped(
        "m", "SELECT mood, count(*) AS n, max(size) AS most, count(DISTINCT size) AS d FROM item GROUP BY mood"
    )
    return tally


@pytest.fixture
def item(connect: Connect) -> Connection:
    connection: Connection = connect(autocommit=True)
    connection.execute(SOURCE)
    return connection


@pytest.fixture
def kept(item: Connection, engine: Engine) -> Tally:
    tally = declared()
    tally.install(engine)
    tally.backfill(engine)
    return tally


def test_a_fold_does_not_take_the_default_isolation(item: Connection, kept: Tally, database: URL) -> None:
    strict = create_engine(
        database, poolclass=NullPool, connect_args={"options": "-c default_transaction_isolation=repeatable\\ read"}
    )
    item.execute(WRITES)
    assert [result.deltas > 0 for result in kept.fold(strict)] == [True]
    assert_exact(strict, kept)
    strict.dispose()


def test_a_schema_of_the_application_is_left_alone(item: Connection, engine: Engine) -> None:
    item.execute("CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    tally = Tally(schema="public")
    tally.grouped("m", "SELECT count(*) AS n FROM item")
    with pytest.raises(
        InstallError, match=r'schema "public" is not empty and not of tallystick: it has item, item_pkey|it has'
    ):
        tally.install(engine)
    acl = item.execute("SELECT proacl IS NULL FROM pg_proc WHERE proname = 'mine'").fetchall()
    assert acl == [(True,)]


def test_a_function_with_unqualified_names_inside(item: Connection, engine: Engine) -> None:
    """In a trigger, and under its fixed search path, it would fail the user's write."""
    item.execute(
        "CREATE FUNCTION half(x integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN x / 2; END'"
    )
    item.execute(
        "CREATE FUNCTION norm(x integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN half(x); END'"
    )
    tally = Tally()
    tally.grouped("m", "SELECT norm(size) AS k, count(*) AS n FROM item GROUP BY 1")
    with pytest.raises(DeclarationError, match=r"function half\(integer\) does not exist") as caught:
        tally.install(engine)
    assert caught.value.hint is not None
    assert "SET search_path" in caught.value.hint
    item.execute("ALTER FUNCTION norm SET search_path = public")
    tally.install(engine)
    tally.backfill(engine)
    item.execute(WRITES)
    assert_exact(engine, tally)


def test_a_key_of_a_domain_that_takes_no_null(item: Connection, engine: Engine) -> None:
    item.execute("CREATE DOMAIN share AS integer NOT NULL CHECK (VALUE >= 0)")
    item.execute(
        "CREATE TABLE part (id integer PRIMARY KEY, share share); INSERT INTO part VALUES (1, 1), (2, 1), (3, 0)"
    )
    tally = Tally()
    tally.grouped("m", "SELECT share, count(*) AS n FROM part GROUP BY share")
    tally.install(engine)
    tally.backfill(engine)
    item.execute("DELETE FROM part WHERE id = 1; INSERT INTO part VALUES (4, 7)")
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("CREATE TABLE child () INHERITS (item)", "is part of an inheritance tree"),
        ("ALTER TABLE item SET UNLOGGED", "are not both logged"),
    ],
)
def test_doctor_sees_what_the_source_has_become(
    item: Connection, engine: Engine, kept: Tally, change: LiteralString, found: str
) -> None:
    item.execute(change)
    errors = [finding.what for finding in kept.doctor(engine) if finding.level == "error"]
    assert len(errors) == 1
    assert found in errors[0]
