"""What "equal" means: collations, types and operators of one's own, NULLs inside of values, guards of expressions."""

from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, make_url

from tallystick import DeclarationError
from tests.integration.keeper import SETUP, Keeper, keeper

__all__ = ["keeper"]  # a fixture

WORDS: tuple[LiteralString, ...] = (
    "INSERT INTO item (g, k, l) VALUES (1, 'a', 'A'), (1, 'A', 'a'), (2, 'b', 'B'), (2, 'ä', 'Ä'), (1, NULL, 'x')",
    "INSERT INTO item (g, k, l) SELECT g + 1, upper(k::text), lower(l::text) FROM item",
    "UPDATE item SET k = upper(k::text), l = upper(l::text) WHERE id % 2 = 0",
    "DELETE FROM item WHERE id % 3 = 0",
    "UPDATE item SET k = lower(k::text)",
    "UPDATE item SET g = 1, l = k WHERE id % 4 = 1",
    "DELETE FROM item WHERE k = 'A'",
    "DELETE FROM item WHERE g = 2",
)


def test_nondeterministic_collation(keeper: Keeper) -> None:
    try:
        keeper.app.execute(
            "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
    except psycopg.errors.FeatureNotSupported as error:
        pytest.skip(f"this server has no ICU: {error.diag.message_primary}")
    keeper.app.execute("CREATE TABLE item (id serial PRIMARY KEY, g integer, k text COLLATE nocase, l text)")
    keeper.keep(
        "SELECT k, count(*) AS n, max(id) AS last, count(DISTINCT l) AS ls, min(l) AS least FROM item GROUP BY k",
        "SELECT g, count(DISTINCT k) AS ks, min(k) AS least, max(k) AS most FROM item GROUP BY g",
        'SELECT l COLLATE nocase AS l, g, count(*) AS n, max(k COLLATE "C") AS most FROM item GROUP BY 1, 2',
        "SELECT count(DISTINCT l COLLATE nocase) AS ls, count(*) FILTER (WHERE k IN ('A', 'B')) AS ab,"
        " count(*) FILTER (WHERE k IS DISTINCT FROM l) AS others FROM item",
        "SELECT upper(k) AS k, k || l AS both, count(*) AS n FROM item WHERE k <> 'b' GROUP BY 1, 2",
    )
    keeper.stay_exact(*WORDS)


def test_citext(keeper: Keeper) -> None:
    available = keeper.app.execute("SELECT FROM pg_available_extensions WHERE name = 'citext'").fetchone()
    if available is None:
        pytest.skip("this server has no extension citext")
    keeper.app.execute(
        "CREATE EXTENSION citext; CREATE TABLE item (id serial PRIMARY KEY, g integer, k citext, l citext)"
    )
    keeper.keep(
        "SELECT k, count(*) AS n, max(id) AS last, count(DISTINCT l) AS ls FROM item GROUP BY k",
        "SELECT g, l, count(DISTINCT k) AS ks, max(k::text) AS most FROM item GROUP BY g, l",
        "SELECT count(*) FILTER (WHERE k = l) AS same, count(*) FILTER (WHERE k IN ('A', 'B')) AS ab,"
        " count(*) FILTER (WHERE k LIKE 'a%') AS a, count(*) FILTER (WHERE (k, g) = (l, 1)) AS pairs FROM item",
        "SELECT ARRAY[k] AS ks, count(*) AS n, count(DISTINCT greatest(k, l)) AS d FROM item GROUP BY 1",
    )
    keeper.stay_exact(*WORDS)


PADDED: LiteralString = """
CREATE SCHEMA app; CREATE SCHEMA {ops}; CREATE TYPE app.padded;
CREATE FUNCTION app.padded_in(cstring) RETURNS app.padded IMMUTABLE STRICT LANGUAGE internal AS 'textin';
CREATE FUNCTION app.padded_out(app.padded) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'textout';
CREATE TYPE app.padded (INPUT = app.padded_in, OUTPUT = app.padded_out, LIKE = text, COLLATABLE = true);
CREATE CAST (app.padded AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (text AS app.padded) WITHOUT FUNCTION AS ASSIGNMENT;
"""
COMPARES: LiteralString = """
CREATE FUNCTION {ops}.{name}(app.padded, app.padded) RETURNS boolean IMMUTABLE STRICT LANGUAGE internal AS {internal};
CREATE OPERATOR {ops}.{sign} (LEFTARG = app.padded, RIGHTARG = app.padded, FUNCTION = {ops}.{name})
"""
CLASSES: LiteralString = """
CREATE FUNCTION {ops}.cmp(app.padded, app.padded) RETURNS integer IMMUTABLE STRICT LANGUAGE internal AS 'bpcharcmp';
CREATE FUNCTION {ops}.hash(app.padded) RETURNS integer IMMUTABLE STRICT LANGUAGE internal AS 'hashbpchar';
CREATE FUNCTION {ops}.hash(app.padded, bigint) RETURNS bigint IMMUTABLE STRICT LANGUAGE internal
    AS 'hashbpcharextended';
CREATE OPERATOR CLASS {ops}.by_order DEFAULT FOR TYPE app.padded USING btree AS OPERATOR 1 {ops}.<, OPERATOR 2 {ops}.<=,
    OPERATOR 3 {ops}.=, OPERATOR 4 {ops}.>=, OPERATOR 5 {ops}.>, FUNCTION 1 {ops}.cmp(app.padded, app.padded);
CREATE OPERATOR CLASS {ops}.by_hash DEFAULT FOR TYPE app.padded USING hash AS OPERATOR 1 {ops}.=,
    FUNCTION 1 {ops}.hash(app.padded), FUNCTION 2 {ops}.hash(app.padded, bigint);
"""
OPERATORS = {"lt": "<", "le": "<=", "eq": "=", "ge": ">=", "gt": ">"}


def make_padded(keeper: Keeper, ops: str) -> None:
    """app.padded: text whose trailing blanks do not count, its operators in a schema of their own, or beside it."""
    schema = sql.Identifier(ops)
    setup = PADDED.replace("CREATE SCHEMA {ops};", "CREATE SCHEMA IF NOT EXISTS {ops};")
    keeper.app.execute(sql.SQL(setup).format(ops=schema))
    for name, sign in OPERATORS.items():
        parts = {"name": sql.Identifier(name), "internal": sql.Literal(f"bpchar{name}"), "sign": sql.SQL(sign)}
        keeper.app.execute(sql.SQL(COMPARES).format(ops=schema, **parts))
    keeper.app.execute(sql.SQL(CLASSES).format(ops=schema))
    keeper.app.execute("CREATE TABLE item (id serial PRIMARY KEY, g integer, k app.padded, l app.padded)")


PADS: tuple[LiteralString, ...] = (
    "INSERT INTO item (g, k, l) VALUES (1, 'a', 'a '), (1, 'a ', 'b'), (2, 'a', 'a  '), (2, NULL, ' '), (1, '', NULL)",
    "INSERT INTO item (g, k, l) SELECT g, k::text || ' ', l::text || '  ' FROM item",
    "UPDATE item SET k = rtrim(k::text) WHERE id % 2 = 0",
    "DELETE FROM item WHERE id % 3 = 0",
    "UPDATE item SET l = k::text || ' ', g = 2 WHERE id % 4 = 1",
    "DELETE FROM item WHERE k::text = 'a'",
)


# "elsewhere" was once refused: `=` was looked for in the schema of the type only.
@pytest.mark.parametrize("ops", ["app", "elsewhere"])
def test_type_with_an_equality_of_its_own(keeper: Keeper, ops: str) -> None:
    make_padded(keeper, ops)
    same = sql.SQL("OPERATOR({}.=)").format(sql.Identifier(ops)).as_string(keeper.app)
    keeper.keep(
        "SELECT k, count(*) AS n, max(id) AS last, count(DISTINCT l) AS ls FROM item GROUP BY k",
        "SELECT g, count(DISTINCT k) AS ks, count(DISTINCT l) FILTER (WHERE id % 2 = 0) AS ls FROM item GROUP BY g",
        " ".join(["SELECT count(*) FILTER (WHERE k", same, "l) AS same FROM item"]),
        "SELECT ARRAY[k, l] AS both, count(*) AS n, max(id) AS last FROM item GROUP BY 1",
    )
    keeper.stay_exact(*PADS)


def test_type_that_borrows_its_operators(keeper: Keeper) -> None:
    """Once refused: as for varchar, `=` comes with the type to which values are cast without a function."""
    keeper.app.execute(sql.SQL(PADDED.replace("CREATE SCHEMA {ops};", "")).format())
    keeper.app.execute("CREATE TABLE item (id serial PRIMARY KEY, g integer, k app.padded, l app.padded)")
    keeper.keep(
        "SELECT k, count(*) AS n, max(id) AS last, count(DISTINCT l) AS ls FROM item GROUP BY k",
        "SELECT g, count(DISTINCT k) AS ks, max(k) AS most FROM item GROUP BY g",
    )
    keeper.stay_exact(*PADS)


# Once wrong: PostgreSQL prints no operator for these, so the text, read again under pg_catalog, means another.
IMPLIED: dict[str, str] = {
    "IS DISTINCT FROM": "SELECT count(*) AS n FROM item WHERE k IS DISTINCT FROM l",
    "IS NOT DISTINCT FROM": "SELECT k IS NOT DISTINCT FROM l AS same, count(*) AS n FROM item GROUP BY 1",
    "NULLIF": "SELECT g, count(nullif(k, l)) AS others FROM item GROUP BY g",
    "CASE": "SELECT CASE k WHEN l THEN 'same' ELSE 'other' END AS what, count(*) AS n FROM item GROUP BY 1",
}


@pytest.mark.parametrize("declared", IMPLIED.values(), ids=IMPLIED)
def test_operators_that_no_text_names(keeper: Keeper, declared: str) -> None:
    """Refusing the declaration would do as well as keeping its meaning; another meaning would not."""
    make_padded(keeper, "app")
    with_path(keeper)
    try:
        keeper.keep(declared)
    except DeclarationError:
        return
    keeper.stay_exact(*PADS)


def with_path(keeper: Keeper) -> None:
    """Declarations, and the oracle's reading of them, find the application's operators first."""
    url = make_url(keeper.engine.url).update_query_dict({"options": "-c search_path=app,pg_catalog,public"})
    keeper.engine.dispose()
    keeper.engine = create_engine(url)
    keeper.observer.execute("SET search_path = app, pg_catalog, public")


NAMESAKES: LiteralString = """
CREATE SCHEMA app;
CREATE FUNCTION app.same(text, text) RETURNS boolean IMMUTABLE STRICT LANGUAGE sql
    AS 'SELECT pg_catalog.lower($1) OPERATOR(pg_catalog.=) pg_catalog.lower($2)';
CREATE OPERATOR app.= (LEFTARG = text, RIGHTARG = text, FUNCTION = app.same);
CREATE FUNCTION app.mean(integer, integer) RETURNS integer IMMUTABLE STRICT LANGUAGE sql
    AS 'SELECT ($1 OPERATOR(pg_catalog.+) $2) OPERATOR(pg_catalog./) 2';
CREATE OPERATOR app.+ (LEFTARG = integer, RIGHTARG = integer, FUNCTION = app.mean);
CREATE TYPE app.money AS (units integer, cents integer);
CREATE FUNCTION app.add(app.money, app.money) RETURNS app.money IMMUTABLE STRICT LANGUAGE sql
    AS 'SELECT ROW($1.units OPERATOR(pg_catalog.+) $2.units, $1.cents OPERATOR(pg_catalog.+) $2.cents)::app.money';
CREATE OPERATOR app.+ (LEFTARG = app.money, RIGHTARG = app.money, FUNCTION = app.add);
CREATE TABLE item (id serial PRIMARY KEY, g integer, k text, l text, price app.money);
"""


def test_operators_of_the_same_name_stay_the_declared_ones(keeper: Keeper) -> None:
    """The path shadows `=` of text and `+` of integer; kept, declared and direct all mean the application's."""
    keeper.app.execute(NAMESAKES)
    with_path(keeper)
    keeper.keep(
        "SELECT k = l AS same, count(*) AS n FROM public.item GROUP BY 1",
        "SELECT g + 10 AS mean, count(*) AS n, sum(g + 1) AS total, max(g + id) AS most FROM public.item GROUP BY 1",
        "SELECT count(*) AS n, count(DISTINCT g + 3) AS d FROM public.item WHERE k = 'A' AND l = 'a'",
        "SELECT k, count(*) FILTER (WHERE k IN ('A', 'B')) AS ab, count(*) FILTER (WHERE k = ANY ('{A}')) AS a"
        " FROM public.item GROUP BY k",
        "SELECT (price + price).units AS twice, g, count(*) AS n FROM public.item GROUP BY 1, 2",
    )
    keeper.stay_exact(*WORDS[:2], "UPDATE item SET price = ROW(g, id)::app.money", *WORDS[2:])


def test_namesake_in_an_expression_that_names_no_operator(keeper: Keeper) -> None:
    """Once wrong, as above, here for PostgreSQL's own types."""
    keeper.app.execute(NAMESAKES)
    with_path(keeper)
    try:
        keeper.keep("SELECT count(*) FILTER (WHERE k IS DISTINCT FROM l) AS others FROM public.item")
    except DeclarationError:
        return
    keeper.stay_exact(*WORDS)


def test_hash_function_in_sql_is_refused(keeper: Keeper) -> None:
    """Once wrong: hash_record_extended leaves the NULL flag of the seed unset, which such a function looks at.

    It gives 0 for one row and another number for an equal one, so a group is not found again.
    """
    make_padded(keeper, "app")
    keeper.app.execute(
        "CREATE OR REPLACE FUNCTION app.hash(app.padded, bigint) RETURNS bigint IMMUTABLE STRICT LANGUAGE sql"
        " AS 'SELECT pg_catalog.hashtextextended(pg_catalog.rtrim($1::text), $2)'"
    )
    with pytest.raises(DeclarationError, match="hash"):
        keeper.keep("SELECT k, count(*) AS n FROM item GROUP BY k")


def test_field_of_a_composite(keeper: Keeper) -> None:
    """Once refused: PostgreSQL notes that the view depends on the relation of the type, beside the source."""
    keeper.app.execute(NAMESAKES)
    keeper.keep("SELECT (price).units AS units, count(*) AS n, sum((price).cents) AS cents FROM item GROUP BY 1")
    keeper.stay_exact(*WORDS[:2], "UPDATE item SET price = ROW(g, id)::app.money", *WORDS[2:])


@pytest.mark.parametrize(
    "declared",
    [
        "SELECT p, count(*) AS n FROM item GROUP BY p",
        "SELECT g, count(p) AS known FROM item GROUP BY g",
        "SELECT g, count(DISTINCT p) AS ps FROM item GROUP BY g",
    ],
)
def test_composites_are_refused(keeper: Keeper, declared: str) -> None:
    """`p IS NULL` is true of (NULL, NULL), and `p IS NOT NULL` is false of (1, NULL)."""
    keeper.app.execute(SETUP)
    keeper.app.execute("CREATE TABLE item (id serial PRIMARY KEY, g integer, p pair)")
    with pytest.raises(DeclarationError, match=r"composite type public\.pair cannot be kept"):
        keeper.keep(declared)


# Once wrong: the application's UPDATE failed on rows that the guard leaves out, and with FILTER its INSERT too.
GUARDED = {
    "WHERE": "SELECT sum((p ->> 'v')::numeric) AS total FROM item WHERE jsonb_typeof(p -> 'v') = 'number'",
    "WHERE, as a key": "SELECT 12 / g AS k, count(*) AS n FROM item WHERE g <> 0 GROUP BY 12 / g",
    "FILTER": "SELECT sum((p ->> 'v')::numeric) FILTER (WHERE jsonb_typeof(p -> 'v') = 'number') AS total FROM item",
}


@pytest.mark.parametrize("declared", GUARDED.values(), ids=GUARDED)
def test_expressions_that_fail_on_rows_left_out(keeper: Keeper, declared: str) -> None:
    keeper.app.execute("CREATE TABLE item (id serial PRIMARY KEY, g integer, p jsonb)")
    keeper.keep(declared)
    keeper.stay_exact(
        """INSERT INTO item (g, p) VALUES (1, '{"v": 1.5}'), (0, '{"v": "text"}'), (2, '{"v": null}'), (0, '{}')""",
        "UPDATE item SET g = g + 1",
        'UPDATE item SET g = 0, p = \'{"v": "more"}\' WHERE id = 1',
        "UPDATE item SET p = '{\"v\": 2}', g = 4 WHERE id = 2",
        "DELETE FROM item WHERE id IN (1, 3)",
    )


def test_a_domain_gets_another_constraint(keeper: Keeper) -> None:
    """Once wrong: values of rows that are gone stand in unfolded deltas, and were checked like the rows."""
    keeper.app.execute("CREATE DOMAIN rank AS integer; CREATE TABLE item (id serial PRIMARY KEY, rank rank)")
    keeper.keep("SELECT rank, count(*) AS n FROM item GROUP BY rank")
    keeper.stay_exact(
        "INSERT INTO item (rank) VALUES (1), (-1); DELETE FROM item WHERE rank < 0;"
        "ALTER DOMAIN rank ADD CHECK (VALUE > 0)",
        "INSERT INTO item (rank) VALUES (2)",
    )
