"""A role that puts its own operators, functions and types before PostgreSQL's misleads nobody but itself."""

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool

from tallystick import DeclarationError, Tally
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.servers import Connection

SALES = (
    "SELECT shop, count(*) AS sales, sum(cents) AS cents, max(cents) AS best, count(DISTINCT buyer) AS buyers,"
    " avg(price) AS price, stddev(price) AS spread, avg(weight) AS weight FROM public.sale GROUP BY shop"
)
TABLE = """
CREATE TABLE sale (shop text, cents integer, buyer text, price numeric, weight double precision);
INSERT INTO sale VALUES
    ('north', 100, 'ann', 1.5, 0.1), ('north', 250, 'bob', 2.25, 0.2), ('south', 70, 'ann', 7, NULL);
CREATE SCHEMA evil
"""
# Unqualified, `text` is looked up along the path; the names of the others are PostgreSQL's grammar.
TYPES: tuple[LiteralString, ...] = (
    "integer", "bigint", "numeric", "pg_catalog.text", "double precision", "boolean", "pg_catalog.record",
)  # fmt: skip
COMPARED: tuple[LiteralString, ...] = ("=", "<>", "<", "<=", ">", ">=")
COMPUTED: tuple[LiteralString, ...] = ("+", "-", "*", "/")
RAISES: LiteralString = " RETURNS {2} LANGUAGE plpgsql AS $$ BEGIN RAISE 'an impostor was called'; END $$"
UNARY: LiteralString = "CREATE FUNCTION evil.{0}({1})" + RAISES
BINARY: LiteralString = "CREATE FUNCTION evil.{0}({1}, {1})" + RAISES
HASH: LiteralString = "CREATE FUNCTION evil.{0}({1}, bigint)" + RAISES
OPERATOR: LiteralString = "CREATE OPERATOR evil.{0} (LEFTARG = {1}, RIGHTARG = {1}, FUNCTION = evil.{2})"
AGGREGATE: LiteralString = "CREATE AGGREGATE evil.{0} ({1}) (SFUNC = evil.computed, STYPE = {1})"
IMPOSTOR = "an impostor was called"


def _make_impostors(connection: Connection) -> None:
    """In schema evil, under the names of PostgreSQL's own: operators and functions that raise, and a domain."""

    def make(template: LiteralString, *parts: LiteralString) -> None:
        connection.execute(sql.SQL(template).format(*map(sql.SQL, parts)))

    for type_ in TYPES:
        make(BINARY, "compared", type_, "boolean")
        for sign in COMPARED:
            make(OPERATOR, sign, type_, "compared")
        if type_ not in ("boolean", "pg_catalog.record"):
            make(BINARY, "computed", type_, type_)
            for sign in COMPUTED:
                make(OPERATOR, sign, type_, "computed")
            for name in ("sum", "min", "max"):
                make(AGGREGATE, name, type_)
    make(BINARY, "record_eq", "record", "boolean")
    make(BINARY, "record_image_ne", "record", "boolean")
    make(HASH, "hash_record_extended", "record", "bigint")
    make(UNARY, "pg_column_size", "record", "integer")
    for name in ("scale", "trim_scale", "trunc", "sqrt"):
        make(UNARY, name, "numeric", "numeric")
    connection.execute("CREATE DOMAIN evil.text AS pg_catalog.text CHECK (value IS NULL)")


@pytest.fixture
def tally(engine: Engine, connect: Connect) -> Tally:
    """Installed by a superuser, and serving."""
    connect(autocommit=True).execute(TABLE)
    tally = Tally()
    tally.grouped("sales", SALES)
    tally.install(engine)
    tally.backfill(engine)
    return tally


@pytest.mark.parametrize("setting", ["SET extra_float_digits = 1", "SET extra_float_digits = 0"])
def test_nothing_is_taken_from_a_search_path(
    engine: Engine, tally: Tally, connect: Connect, make_role: Callable[[], str], setting: LiteralString
) -> None:
    """The role's path names its own schema before pg_catalog; what is ours was resolved when it was installed."""
    role, superuser = make_role(), connect(autocommit=True)
    grants: LiteralString = (
        "GRANT ALL ON SCHEMA evil TO {0}; GRANT USAGE ON SCHEMA tally TO {0}; GRANT SELECT ON tally.sales TO {0};"
        "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON sale TO {0}"
    )
    superuser.execute(sql.SQL(grants).format(sql.Identifier(role)))
    attacker = connect(user=role, autocommit=True)
    _make_impostors(attacker)
    attacker.execute("SET search_path = evil, pg_catalog, public")
    attacker.execute(setting)
    with pytest.raises(psycopg.errors.RaiseException, match=IMPOSTOR):
        attacker.execute("SELECT 1 = 1")
    attacker.execute("INSERT INTO sale VALUES ('north', 999, 'eve', 'NaN', 0.3), ('west', 1, 'eve', 1.000, 1)")
    attacker.execute("UPDATE sale SET cents = 7, shop = 'north' WHERE weight IS NULL")
    with attacker.transaction(force_rollback=True):
        attacker.execute("DELETE FROM sale")
        assert attacker.execute("SELECT * FROM tally.sales").fetchall() == []
    expected = _sorted(superuser.execute("SELECT * FROM tally.sales__direct").fetchall())
    for serving in ("kept", "direct", "kept"):
        superuser.execute("UPDATE tally.aggregate SET serving = %s", [serving])
        assert _sorted(attacker.execute("SELECT * FROM tally.sales").fetchall()) == expected
        assert_exact(engine, tally)
        tally.fold(engine)
    attacker.execute("TRUNCATE sale")
    assert attacker.execute("SELECT * FROM tally.sales").fetchall() == []
    assert_exact(engine, tally)


def _sorted(rows: list[tuple[Any, ...]]) -> list[str]:
    return sorted(map(str, rows))


def test_impostor_of_an_aggregate_cannot_be_declared(tally: Tally, database: URL, connect: Connect) -> None:
    """A declaration is read under the installer's own path, and PostgreSQL says whose function it found."""
    _make_impostors(connect(autocommit=True))
    options = {"options": "-c search_path=evil,pg_catalog,public"}
    engine = create_engine(database, poolclass=NullPool, connect_args=options)
    misled = Tally()
    misled.grouped("misled", "SELECT shop, sum(cents) AS cents FROM public.sale GROUP BY shop")
    with pytest.raises(DeclarationError, match=r"evil\.sum"):
        misled.plan(engine)
