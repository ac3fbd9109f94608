"""Bad input: one clear sentence with the next step, the right exit code, and nothing left in the database."""

from collections.abc import Callable, Iterator
from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool

from tallystick import (
    DeclarationError,
    InstallError,
    MissingPrivilege,
    Tally,
    TallyError,
)
from tests.conftest import Connect
from tests.objects import objects
from tests.servers import Connection, Server

SETUP: LiteralString = """
CREATE SCHEMA app;
CREATE TABLE app.event (
    id bigint PRIMARY KEY, chat_id integer, kind text, at timestamptz, size integer, total_bytes bigint,
    lasted interval, price money, doc json, spot point, bits bit(3)
);
CREATE VIEW app.v AS SELECT * FROM app.event;
CREATE MATERIALIZED VIEW app.mv AS SELECT id, size FROM app.event;
CREATE TABLE app.parted (a integer, size integer) PARTITION BY RANGE (a);
CREATE TABLE app.part PARTITION OF app.parted FOR VALUES FROM (0) TO (9);
CREATE TABLE app.parent (a integer, size integer);
CREATE TABLE app.child () INHERITS (app.parent);
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE app.distant (a integer, size integer) SERVER nowhere;
CREATE SEQUENCE app.numbers;
CREATE FUNCTION app.bump(integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';
"""
MAY_CREATE = "GRANT CREATE ON DATABASE {database} TO {role}"
MAY_ENTER = "GRANT USAGE ON SCHEMA app TO {role}"
MAY_WRITE = "GRANT SELECT, INSERT, UPDATE, DELETE ON app.event TO {role}"
PLAIN_TABLE = "Declare the aggregate over a plain table."
IMMUTABLE = (
    "Spell it so that it does not, for example date_trunc('day', timezone('UTC', created_at));"
    " what depends on the time of reading is a condition of the read."
)
NOT_IMMUTABLE = (
    " is not immutable: its value depends on more than the row, such as the time, the time zone or a setting."
)
MISSPELT = "app.event (has: id, chat_id, kind, at, size, total_bytes, lasted, price, doc, spot, bits)."


@pytest.fixture
def source(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(SETUP)
    return connection


def refused(
    engine: Engine, source: Connection, declared: str, error: type[TallyError], *, name: str = "m"
) -> TallyError:
    """What plan and install say: the same, and nothing is left behind."""
    tally = Tally()
    tally.grouped(name, declared)
    before = objects(source)
    said: list[TallyError] = []
    for operation in (tally.plan, tally.install):
        with pytest.raises(TallyError) as caught:
            operation(engine)
        assert type(caught.value) is error, caught.value
        assert objects(source) == before
        said.append(caught.value)
    assert str(said[0]) == str(said[1])
    assert said[0].message.endswith("."), said[0].message
    assert "\n" not in said[0].message
    assert said[0].hint
    assert said[0].exit_code == 2
    return said[0]


@pytest.mark.parametrize(
    ("declared", "message", "hint"),
    [
        (
            "SELECT chat, count(*) AS n FROM app.event GROUP BY chat",
            f'aggregate "m": column "chat" does not exist on {MISSPELT}',
            'Did you mean "chat_id"?',
        ),
        (
            "SELECT chat_id, sum(e.total_byte) AS n FROM app.event AS e GROUP BY chat_id",
            f'aggregate "m": column e.total_byte does not exist on {MISSPELT}',
            'Did you mean "total_bytes"?',
        ),
        (
            'SELECT chat_id, sum("Size") AS n FROM app.event GROUP BY chat_id',
            f'aggregate "m": column "Size" does not exist on {MISSPELT}',
            'Did you mean "size"?',
        ),
        (
            "SELECT count(*) AS n FROM app.event WHERE zzz",
            f'aggregate "m": column "zzz" does not exist on {MISSPELT}',
            "Correct the declaration.",
        ),
        (
            "SELECT count(*) AS n FROM app.evnt",
            'aggregate "m": relation "app.evnt" does not exist.',
            "Create the table first, or qualify its name with its schema.",
        ),
        (
            "SELECT count(*) AS n FROM event",
            'aggregate "m": relation "event" does not exist.',
            "Create the table first, or qualify its name with its schema.",
        ),
        (
            "SELECT count(*) AS n FROM nowhere.event",
            'aggregate "m": relation "nowhere.event" does not exist.',
            "Create the table first, or qualify its name with its schema.",
        ),
    ],
)
def test_unknown_names(source: Connection, engine: Engine, declared: str, message: str, hint: str) -> None:
    error = refused(engine, source, declared, DeclarationError)
    assert (error.message, error.hint) == (message, hint)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("SELECT sum(kind) AS n FROM app.event", "function sum(text) does not exist"),
        ("SELECT max(spot) AS m FROM app.event", "function max(point) does not exist"),
        ("SELECT nope(size) AS k, count(*) AS n FROM app.event GROUP BY 1", "function nope(integer) does not exist"),
        (
            "SELECT count(*) AS n FROM app.event WHERE size",
            "argument of WHERE must be type boolean, not type integer",
        ),
        ("SELECT count(*) AS n FROM app.event WHERE size = 'x'", 'invalid input syntax for type integer: "x"'),
        ("SELECT count(*) AS n FROM app.event WHERE size + = 3", 'syntax error at or near "="'),
        (
            "SELECT doc AS k, count(*) AS n FROM app.event GROUP BY 1",
            "could not identify an equality operator for type json",
        ),
        (
            "SELECT sum(size) AS n FROM app.event WHERE size > (VALUES (1))",
            "(size > ( VALUES (1))) cannot be computed from one row:"
            " cannot use subquery in column generation expression",
        ),
        (
            "SELECT generate_series(1, size) AS k, count(*) AS n FROM app.event GROUP BY 1",
            "generate_series(1, size) cannot be computed from one row:"
            " set-returning functions are not allowed in column generation expressions",
        ),
        (
            "SELECT ROW(chat_id, size) AS k, count(*) AS n FROM app.event GROUP BY 1",
            'column "k" has pseudo-type record',
        ),
    ],
)
def test_what_postgresql_does_not_take(source: Connection, engine: Engine, declared: str, said: str) -> None:
    """Its own words, in our sentence. Before version 16 it prints columns with the name of their table."""
    error = refused(engine, source, declared, DeclarationError)
    assert error.message.replace("event.", "") == f'aggregate "m": {said}.'


@pytest.mark.parametrize("column", ["lasted", "price"])
@pytest.mark.parametrize("function", ["sum", "avg"])
def test_sums_that_cannot_be_kept(source: Connection, engine: Engine, column: str, function: str) -> None:
    declared = " ".join(["SELECT chat_id,", function, "(", column, ") AS s FROM app.event GROUP BY 1"])
    error = refused(engine, source, declared, DeclarationError)
    kind = {"lasted": "interval", "price": "money"}[column]
    if (function, column) == ("avg", "price"):
        assert error.message == 'aggregate "m": function avg(money) does not exist.'
    else:
        said = error.message.replace("event.", "")
        assert said == f'aggregate "m": {function}({column}) of {kind} cannot be kept.'
        assert error.hint is not None
        assert "Sums are kept of integers, numeric and floating point" in error.hint


@pytest.mark.parametrize(
    ("declared", "expression"),
    [
        ("SELECT count(*) AS n FROM app.event WHERE at > now()", "(at > now())"),
        ("SELECT count(*) FILTER (WHERE at > now()) AS n FROM app.event", "(at > now())"),
        ("SELECT date_trunc('day', at) AS d, count(*) AS n FROM app.event GROUP BY 1", "date_trunc('day'::text, at)"),
        ("SELECT at::date AS d, count(*) AS n FROM app.event GROUP BY 1", "(at)::date"),
        ("SELECT to_char(at, 'YYYY') AS d, count(*) AS n FROM app.event GROUP BY 1", "to_char(at, 'YYYY'::text)"),
        ("SELECT count(*) AS n FROM app.event WHERE random() < 0.5", "(random() < (0.5)::double precision)"),
        ("SELECT max(app.bump(size)) AS n FROM app.event", "app.bump(size)"),
        ("SELECT count(*) AS n FROM app.event WHERE kind = current_user", "(kind = CURRENT_USER)"),
        ("SELECT count(*) AS n FROM app.event WHERE at > clock_timestamp()", "(at > clock_timestamp())"),
        ("SELECT count(*) AS n FROM app.event WHERE kind = current_setting('x.y')", None),
        ("SELECT at::text AS k, count(*) AS n FROM app.event GROUP BY 1", "(at)::text"),
    ],
)
def test_expressions_that_depend_on_more_than_the_row(
    source: Connection, engine: Engine, declared: str, expression: str | None
) -> None:
    error = refused(engine, source, declared, DeclarationError)
    assert error.message.endswith(NOT_IMMUTABLE), error.message
    if expression is not None:
        assert error.message.replace("event.", "") == f'aggregate "m": {expression}{NOT_IMMUTABLE}'
    assert error.hint == IMMUTABLE


def test_record_as_argument(source: Connection, engine: Engine) -> None:
    error = refused(engine, source, "SELECT count(DISTINCT (chat_id, size)) AS n FROM app.event", DeclarationError)
    said = error.message.replace("event.", "")
    assert said == 'aggregate "m": ROW(chat_id, size) has the type record, which no column can store.'
    assert error.hint == "Name its parts one by one."


@pytest.mark.parametrize(
    "declared",
    [
        "SELECT count(event) AS n FROM app.event",
        "SELECT chat_id, count(*) FILTER (WHERE event IS NOT NULL) AS n FROM app.event GROUP BY 1",
        "SELECT chat_id, count(*) AS n FROM app.event WHERE event::text <> '' GROUP BY 1",
    ],
)
def test_whole_rows(source: Connection, engine: Engine, declared: str) -> None:
    """Such an expression changes with every column that is added: it cannot be computed from named columns."""
    error = refused(engine, source, declared, DeclarationError)
    assert error.message == 'aggregate "m": a whole row cannot be kept.'
    assert error.hint == "Name its columns."


@pytest.mark.parametrize("column", ["tableoid", "ctid", "xmin"])
def test_system_columns(source: Connection, engine: Engine, column: str) -> None:
    declared = " ".join(["SELECT", column, "AS k, count(*) AS n FROM app.event GROUP BY 1"])
    error = refused(engine, source, declared, DeclarationError)
    assert f"{column}" in error.message
    assert error.hint == "Use expressions over the row's own columns."


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("app.v", "app.v is a view"),
        ("app.mv", "app.mv is a materialized view"),
        ("app.distant", "app.distant is a foreign table"),
        ("app.part", "app.part is part of an inheritance tree or a partition"),
        ("app.parent", "app.parent is part of an inheritance tree or a partition"),
        ("app.child", "app.child is part of an inheritance tree or a partition"),
    ],
)
def test_sources_that_are_no_plain_tables(source: Connection, engine: Engine, table: str, what: str) -> None:
    error = refused(engine, source, " ".join(["SELECT sum(size) AS s FROM", table]), DeclarationError)
    assert error.message == f'aggregate "m": {what}, whose changes cannot all be captured.'
    assert error.hint == PLAIN_TABLE


@pytest.mark.parametrize(
    ("expression", "setting"),
    [
        ("raw::text", "bytea_output"),
        ("substr(raw, 2)::text", "bytea_output"),
        ("upper((raw || raw)::text)", "bytea_output"),
        ("quote_ident(name)", "quote_all_identifiers"),
    ],
)
def test_text_that_depends_on_a_setting(source: Connection, engine: Engine, expression: str, setting: str) -> None:
    source.execute("CREATE TABLE app.setting (raw bytea, name text)")
    query = " ".join(["SELECT", expression, "AS k, count(*) AS n FROM app.setting GROUP BY", expression])
    error = refused(engine, source, query, DeclarationError)
    assert f"depends on the setting {setting} of each session" in error.message


def test_sequence_as_source(source: Connection, engine: Engine) -> None:
    error = refused(engine, source, "SELECT max(last_value) AS s FROM app.numbers", DeclarationError)
    assert error.message == 'aggregate "m": app.numbers is a sequence, whose changes cannot all be captured.'


def test_catalog_table_as_source(source: Connection, engine: Engine) -> None:
    error = refused(engine, source, "SELECT relkind, count(*) AS n FROM pg_class GROUP BY 1", DeclarationError)
    assert (
        error.message == 'aggregate "m": pg_catalog.pg_class is a system table, whose changes cannot all be captured.'
    )


@pytest.fixture
def one_session(database: URL) -> Iterator[Engine]:
    """An engine whose transactions all run in one session."""
    engine = create_engine(database, pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


def test_temporary_table(source: Connection, one_session: Engine) -> None:
    with one_session.begin() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE passing (a integer, size integer)")
    error = refused(one_session, source, "SELECT sum(size) AS s FROM passing", DeclarationError)
    assert "is a temporary table, whose changes cannot all be captured." in error.message
    assert error.hint == PLAIN_TABLE


def test_virtual_generated_column(source: Connection, engine: Engine, server: Server) -> None:
    """Version 18 has them; before, such a column is stored and can be kept."""
    virtual = sql.SQL("VIRTUAL" if server.release.major >= 18 else "STORED")
    source.execute(
        sql.SQL("CREATE TABLE app.made (a integer, b integer GENERATED ALWAYS AS (a * 2) {})").format(virtual)
    )
    declared = "SELECT sum(b) AS s FROM app.made"
    if server.release.major >= 18:
        error = refused(engine, source, declared, DeclarationError)
        assert error.message == 'aggregate "m": column "b" is a virtual generated column.'
        assert error.hint == "Write its expression in the declaration, or make the column STORED."
    else:
        tally = Tally()
        tally.grouped("m", declared)
        assert tally.install(engine) == ["m"]


def test_foreign_code(source: Connection, engine: Engine, make_role: Callable[[], str]) -> None:
    role = make_role()
    source.execute("CREATE FUNCTION app.theirs(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT $1'")
    source.execute(sql.SQL("ALTER FUNCTION app.theirs OWNER TO {}").format(sql.Identifier(role)))
    error = refused(engine, source, "SELECT sum(app.theirs(size)) AS s FROM app.event", DeclarationError)
    assert error.message == (
        f'aggregate "m": app.theirs(integer) belongs to {role}, who could redefine it and run code as the installer.'
    )


@pytest.mark.parametrize("name", ["reset_pkey", "aggregate_pkey"])
def test_name_of_an_own_index(source: Connection, engine: Engine, name: str) -> None:
    tally = Tally()
    tally.grouped(name, "SELECT count(*) AS n FROM app.event")
    before = objects(source)
    with pytest.raises(InstallError, match=f'relation "{name}" already exists'):
        tally.install(engine)
    assert objects(source) == before


def test_long_measure_name(source: Connection, engine: Engine) -> None:
    """PostgreSQL would cut it, and readers would look for a column that is not there."""
    declared = " ".join(["SELECT chat_id, count(*) AS", "n" * 64, "FROM app.event GROUP BY 1"])
    with pytest.raises(DeclarationError, match="has 64 bytes, PostgreSQL takes 63"):
        Tally().grouped("m", declared)


@pytest.mark.parametrize(
    ("grants", "denied"),
    [
        ([], "permission denied for database"),
        ([MAY_CREATE], "permission denied for schema app"),
        ([MAY_CREATE, MAY_ENTER], "permission denied for table event"),
        ([MAY_CREATE, MAY_ENTER, MAY_WRITE], "permission denied for table event"),
    ],
    ids=["create schema", "use schema", "select", "trigger"],
)
def test_missing_privilege(
    source: Connection, database: URL, make_role: Callable[[], str], grants: list[LiteralString], denied: str
) -> None:
    role = make_role()
    for grant in grants:
        names = {"role": sql.Identifier(role), "database": sql.Identifier(database.database or "")}
        source.execute(sql.SQL(grant).format(**names))
    engine = create_engine(database.set(username=role), poolclass=NullPool)
    tally = Tally()
    tally.grouped("m", "SELECT chat_id, count(*) AS n FROM app.event GROUP BY 1")
    before = objects(source)
    with pytest.raises(MissingPrivilege) as caught:
        tally.install(engine)
    assert caught.value.message.startswith(f"role {role}: {denied}")
    assert caught.value.hint == "Connect as the owner of the table and of the schema, or ask them for the right."
    assert caught.value.exit_code == 2
    assert objects(source) == before
