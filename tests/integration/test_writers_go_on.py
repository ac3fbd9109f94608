"""A user's write neither fails nor waits because of us: beside folds, after crashes, over ruins, in odd sessions."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool

from tallystick import Tally, TallyError
from tests.backfills import begin
from tests.conftest import Connect
from tests.isolation.stage import DECLARED, TABLE, Beside, OpenSession, assert_exact_in, ok
from tests.oracle import assert_exact, differences
from tests.servers import Connection, Server
from tests.stepping import Session

SAMPLE: LiteralString = """
CREATE TABLE sample (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, raw bytea, name text, ratio float8, gap interval, at timestamptz
);
INSERT INTO sample (raw, name, ratio, gap, at) VALUES ('a', 'a', 0.1, '1 day', '2024-05-01 00:00+00')
"""
# Text of values: what depends on settings, though PostgreSQL calls it immutable, is refused or fixed.
SAMPLED = {
    "raws": "SELECT encode(raw, 'escape') AS raw, count(DISTINCT raw) AS n FROM sample GROUP BY encode(raw, 'escape')",
    "names": "SELECT count(DISTINCT quote_literal(name)) AS names, max(quote_literal(name)) AS last FROM sample",
    "ratios": "SELECT ratio::text AS ratio, count(*) AS n, sum(ratio) AS total FROM sample GROUP BY ratio::text",
    "days": "SELECT date_trunc('day', timezone('UTC', at)) AS day, max(at) AS last, count(DISTINCT gap) AS gaps"
    " FROM sample GROUP BY 1",
}
WRITES: dict[str, LiteralString] = {
    "INSERT": "INSERT INTO message (chat, size, author) VALUES (1, 40, 'cat'), (3, 1, NULL)",
    "INSERT SELECT": "INSERT INTO message (chat, size) SELECT i % 3, i FROM generate_series(1, 20) AS s (i)",
    "upsert": "INSERT INTO message (id, chat, size) OVERRIDING SYSTEM VALUE VALUES (2, 1, 9), (1000, 1, 9)"
    " ON CONFLICT (id) DO UPDATE SET size = message.size + excluded.size",
    "UPDATE": "UPDATE message SET size = size + 1, author = 'dan' WHERE size > 5",
    "UPDATE that moves": "UPDATE message SET chat = chat + 1 WHERE chat < 3",
    "MERGE": "MERGE INTO message AS m USING (VALUES (1, 3), (77, 4)) AS v (id, size) ON m.id = v.id"
    " WHEN MATCHED AND m.size > 20 THEN DELETE WHEN MATCHED THEN UPDATE SET size = v.size"
    " WHEN NOT MATCHED THEN INSERT (chat, size) VALUES (1, v.size)",
    "DELETE": "WITH gone AS (DELETE FROM message WHERE size % 4 = 1 RETURNING size) SELECT sum(size) FROM gone",
}
COPY = "COPY message (chat, size, author) FROM STDIN"
SAMPLES: tuple[LiteralString, ...] = (
    r"INSERT INTO sample (raw, name, ratio, gap, at) VALUES ('\x0161', 'a', 0.1::float8 + 0.2, '36:00', now()),"
    r" ('\x61', 'b', 1e20, '1 mon', '2024-05-01 23:30:00+00'), ('\x62', 'A b', 0.1, NULL, '2024-05-02')",
    r"UPDATE sample SET raw = '\x02', name = 'c', ratio = ratio / 3, at = at + interval '1 hour' WHERE name = 'a'",
    "DELETE FROM sample WHERE name = 'b'",
)
QUALIFIED: tuple[LiteralString, ...] = (
    "INSERT INTO public.message (chat, size, author) VALUES (1, 2, 'a'), (8, 2, 'b')",
    "UPDATE public.message SET chat = 9, author = 'c' WHERE chat = 1",
    "DELETE FROM public.message WHERE size = 5",
    "TRUNCATE public.message",
)
PATIENCE: LiteralString = "SET lock_timeout = '1ms'"  # whoever waits for a lock fails
NAMES = tuple(DECLARED)


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """Name of a template database with both tables and kept aggregates over them."""

    def build(connection: Connection) -> None:
        connection.execute(TABLE + ";" + SAMPLE)
        connection.commit()
        engine = create_engine(server.url(connection.info.dbname), poolclass=NullPool)
        _tally(DECLARED | SAMPLED).install(engine)
        _tally(DECLARED | SAMPLED).backfill(engine)

    return server.template("writers go on", build)


def _tally(declared: dict[str, str]) -> Tally:
    tally = Tally()
    for name, query in declared.items():
        tally.grouped(name, query)
    return tally


@pytest.fixture
def tally() -> Tally:
    """All aggregates."""
    return _tally(DECLARED | SAMPLED)


@pytest.fixture
def messages() -> Tally:
    """The aggregates over `message`."""
    return _tally(DECLARED)


@pytest.fixture
def superuser(connect: Connect) -> Connection:
    return connect(autocommit=True)


@pytest.fixture
def user(superuser: Connection, connect: Connect, make_role: Callable[[], str]) -> Connection:
    """A session of a role that has rights on the two tables, and none on our schema."""
    role = make_role()
    superuser.execute(sql.SQL("GRANT ALL ON message, sample TO {}").format(sql.Identifier(role)))
    return connect(user=role, autocommit=True)


@pytest.fixture
def beside(database: URL, session: OpenSession, connect: Connect) -> Iterator[Beside]:
    """Operations of ours in threads, ended after the test."""
    with ExitStack() as opened:
        beside = Beside(database, connect(autocommit=True), opened)
        yield beside
        beside.end_all()


def write(user: Connection, *, truncates: bool = True) -> dict[str, str]:
    """Write in every way, each by itself; what failed, with PostgreSQL's words."""
    failed: dict[str, str] = {}

    def attempt(what: str, run: Callable[[], object]) -> None:
        try:
            run()
        except psycopg.Error as error:
            failed[what] = f"{type(error).__name__}: {error.diag.message_primary}"

    def copy() -> None:
        with user.cursor().copy(COPY) as stream:
            stream.write_row((1, 99, "eve"))

    for what, statement in WRITES.items():
        attempt(what, lambda: user.execute(statement))  # noqa: B023 (called at once)
    attempt("COPY", copy)
    if truncates:
        attempt("TRUNCATE", lambda: user.execute("TRUNCATE message"))
        attempt("INSERT after TRUNCATE", lambda: user.execute(WRITES["INSERT"]))
    return failed


def assert_goes_on(user: Connection, engine: Engine, tally: Tally) -> None:
    """Writes succeed and are counted, before and after a fold."""
    assert write(user, truncates=False) == {}
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)
    assert write(user) == {}
    assert_exact(engine, tally)


# Beside our own work


def _fold_and_hold(session: Session, *names: str) -> None:
    session.run("BEGIN").result()
    for name in names:
        step = session.run(sql.SQL("SELECT {}()").format(sql.Identifier("tally", f"{name}__fold")))
        assert not step.waiting
        assert step.rows


def test_fold_in_an_open_transaction(session: OpenSession, user: Connection, engine: Engine, messages: Tally) -> None:
    folder, reader = session(), session()
    user.execute(PATIENCE)
    assert write(user, truncates=False) == {}
    _fold_and_hold(folder, *NAMES)
    for _ in range(2):
        assert write(user, truncates=False) == {}
        assert_exact_in(messages, folder, reader)
    ok(folder, "COMMIT")
    assert_goes_on(user, engine, messages)


def test_truncate_beside_an_open_fold(session: OpenSession, user: Connection, engine: Engine, messages: Tally) -> None:
    """Only a fold of extremes reads the source, and makes a TRUNCATE wait as every query does."""
    folder = session()
    user.execute(PATIENCE)
    assert write(user, truncates=False) == {}
    _fold_and_hold(folder, "counts", "authors")
    assert write(user) == {}
    ok(folder, "COMMIT")
    assert_goes_on(user, engine, messages)


@pytest.mark.parametrize("end", ["pg_terminate_backend", "pg_cancel_backend"])
@pytest.mark.parametrize("operation", ["fold", "backfill"])
def test_stopped_half_way(
    session: OpenSession, beside: Beside, user: Connection, engine: Engine, messages: Tally, operation: str, end: str
) -> None:
    """Its first aggregates are done, `authors` is half done and rolled back."""
    holder, reader = session(), session()
    user.execute(PATIENCE)
    assert write(user, truncates=False) == {}
    if operation == "backfill":
        begin(engine, messages)
    ok(holder, "BEGIN", "LOCK TABLE tally.authors__chunk IN ROW EXCLUSIVE MODE")
    ok(holder, "SELECT FROM tally.authors__state FOR UPDATE")
    running = beside.start(messages.fold if operation == "fold" else messages.backfill).until_settled()
    assert running.is_waiting
    assert write(user, truncates=False) == {}
    kill = sql.SQL("SELECT {}(pid) FROM pg_stat_activity WHERE application_name = {}")
    assert reader.run(kill.format(sql.SQL(end), running.application)).rows == [(True,)]
    with pytest.raises((psycopg.errors.AdminShutdown, psycopg.errors.QueryCanceled)):
        running.result()
    assert write(user, truncates=False) == {}
    assert_exact_in(messages, holder, reader)
    ok(holder, "COMMIT")
    assert_goes_on(user, engine, messages)


def test_fold_that_times_out(session: OpenSession, user: Connection, engine: Engine, messages: Tally) -> None:
    """Ours lifts the time-out; somebody may call the function."""
    holder, folder = session(), session()
    assert write(user, truncates=False) == {}
    ok(holder, "BEGIN", "SELECT FROM tally.counts__state FOR UPDATE")
    ok(folder, "SET statement_timeout = '100ms'")
    fold = folder.run("SELECT tally.counts__fold()")
    assert fold.waiting
    with pytest.raises(psycopg.errors.QueryCanceled):
        fold.result()
    assert_exact_in(messages, holder, folder)
    ok(holder, "COMMIT")
    assert_goes_on(user, engine, messages)


def test_tables_locked_by_somebody(session: OpenSession, user: Connection, engine: Engine, messages: Tally) -> None:
    """Writers touch the deltas and, with TRUNCATE, the reset markers; all other tables may be locked."""
    holder = session()
    user.execute(PATIENCE)
    ok(holder, "BEGIN", "LOCK TABLE tally.aggregate, tally.layout IN ACCESS EXCLUSIVE MODE")
    for name in NAMES:
        lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier("tally", f"{name}__state"))
        assert not holder.run(lock).waiting
    assert write(user) == {}
    assert_exact_in(messages, holder)
    ok(holder, "COMMIT")
    assert_goes_on(user, engine, messages)


# Over ruins

RUINS: dict[str, LiteralString] = {
    "delta": "DROP TABLE tally.authors__delta CASCADE",
    "state": "DROP TABLE tally.authors__state CASCADE",
    "distinct values": "DROP TABLE tally.authors__facet1 CASCADE",
    "row": "DROP FUNCTION tally.authors__row CASCADE",
    "source": "DROP FUNCTION tally.authors__source CASCADE",
    "capture of INSERT": "DROP FUNCTION tally.authors__insert CASCADE",
    "direct view": "DROP VIEW tally.authors__direct CASCADE",
    "guard": "DROP FUNCTION tally.authors__guard CASCADE",
    "its row": "DELETE FROM tally.aggregate WHERE name = 'authors'",
}
ALL_RUINED: dict[str, LiteralString] = {
    "reset": "DROP TABLE tally.reset CASCADE",
    "epoch": "DROP SEQUENCE tally.epoch CASCADE",
    "aggregate and layout": "DROP TABLE tally.aggregate, tally.layout CASCADE",
    "schema": "DROP SCHEMA tally CASCADE",
    "schema renamed": "ALTER SCHEMA tally RENAME TO elsewhere",
}


def _break_and_write(superuser: Connection, user: Connection, connect: Connect, ruin: LiteralString) -> None:
    """Write in a session that has plans from before, and in one that has none."""
    assert write(user) == {}
    superuser.execute(ruin)
    assert write(user) == {}
    assert write(connect(user=user.info.user, autocommit=True)) == {}


@pytest.mark.parametrize("what", RUINS)
def test_one_aggregate_in_ruins(
    superuser: Connection, user: Connection, connect: Connect, engine: Engine, what: str
) -> None:
    """Its siblings count on."""
    _break_and_write(superuser, user, connect, RUINS[what])
    siblings = _tally({name: query for name, query in DECLARED.items() if name != "authors"})
    assert_goes_on(user, engine, siblings)


@pytest.mark.parametrize("what", ALL_RUINED)
def test_all_in_ruins(superuser: Connection, user: Connection, connect: Connect, what: str) -> None:
    _break_and_write(superuser, user, connect, ALL_RUINED[what])
    assert superuser.execute("SELECT count(*) FROM message").fetchone() == (2,)


OPERATIONS = ("plan", "install", "backfill", "fold", "verify", "status", "doctor", "uninstall")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_layout_of_a_newer_version(
    superuser: Connection, user: Connection, engine: Engine, messages: Tally, operation: str
) -> None:
    """We may not touch what we do not know; it works by itself, for readers and writers alike."""
    superuser.execute("UPDATE tally.layout SET version = 99")
    assert write(user) == {}
    assert_exact(engine, messages)
    try:
        said = str(getattr(messages, operation)(engine))  # doctor may well tell instead
    except TallyError as error:
        said = str(error)
    assert "has layout 99" in said
    assert write(user) == {}
    assert_exact(engine, messages)


# In odd sessions. Just-in-time compilation is off where it would take seconds: what is not allowed costs a lot.

SETTINGS: dict[str, LiteralString] = {
    "no search path": "SET search_path = ''",
    "path to temporary tables": "SET search_path = pg_temp, public; CREATE TEMP TABLE reset (a text)",
    "extra_float_digits": "SET extra_float_digits = -15",
    "bytea_output": "SET bytea_output = 'escape'",
    "quote_all_identifiers": "SET quote_all_identifiers = on",
    "dates": "SET DateStyle = 'German, DMY'; SET IntervalStyle = 'sql_standard'; SET TimeZone = 'Pacific/Chatham'",
    "row_security": "SET row_security = off",
    "strings": "SET standard_conforming_strings = off; SET backslash_quote = on; SET client_encoding = 'LATIN1'",
    "nulls": "SET transform_null_equals = on; SET array_nulls = off; SET check_function_bodies = off",
    "PL/pgSQL": "SET plpgsql.extra_errors = 'all'; SET plpgsql.print_strict_params = on",
    "generic plans": "SET plan_cache_mode = force_generic_plan",
    "no scans": "SET enable_seqscan = off; SET enable_indexscan = off; SET enable_bitmapscan = off; SET jit = off",
    "no joins, no sorts": "SET enable_hashjoin = off; SET enable_nestloop = off; SET enable_mergejoin = off;"
    " SET enable_hashagg = off; SET enable_sort = off; SET jit = off",
    "costs": "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
    "little memory": "SET work_mem = '64kB'; SET hash_mem_multiplier = 1",
    "time-outs": "SET statement_timeout = '30s'; SET lock_timeout = '1ms'",
    "strict": "SET default_transaction_isolation = 'serializable'; SET default_transaction_deferrable = on",
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_a_user(
    superuser: Connection, user: Connection, engine: Engine, tally: Tally, messages: Tally, name: str
) -> None:
    user.execute(SETTINGS[name])
    if "path" not in name:  # the oracle's declared text needs one
        superuser.execute(SETTINGS[name])
        superuser.execute("SET jit = off")
    if name == "no search path":
        for statement in QUALIFIED:
            user.execute(statement)
        assert_exact(engine, tally)
        user.execute("SET search_path = public")
    assert write(user, truncates=False) == {}
    for statement in SAMPLES:
        user.execute(statement)
    assert_exact(engine, tally)
    assert differences(superuser, messages) == []
    tally.fold(engine)
    assert_exact(engine, tally)
    assert write(user) == {}
    assert_exact(engine, tally)
    assert differences(superuser, messages) == []


def test_prepared_statements(user: Connection, engine: Engine, messages: Tally) -> None:
    """More than five times, so that PostgreSQL makes a plan for good; then many in one round trip."""
    user.prepare_threshold = 0

    def write_prepared(number: int) -> None:
        user.execute("INSERT INTO message (chat, size, author) VALUES (%s, %s, %s)", [number % 3, number, "ann"])
        user.execute("UPDATE message SET size = size + %s, chat = 2 WHERE size = %s", [100, number - 1])
        user.execute("DELETE FROM message WHERE size = %s", [100 + number - 3])

    for number in range(30, 40):
        write_prepared(number)
    assert_exact(engine, messages)
    messages.fold(engine)
    with user.pipeline():
        for number in range(40, 50):
            write_prepared(number)
    assert_exact(engine, messages)


READ_ONLY: dict[str, LiteralString] = {
    "default": "SET default_transaction_read_only = on",
    "transaction": "BEGIN READ ONLY",
    "deferrable": "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
}


@pytest.mark.parametrize("how", READ_ONLY)
def test_reads_where_nothing_may_be_written(superuser: Connection, user: Connection, tally: Tally, how: str) -> None:
    """Also those that look for an extreme in the source again."""
    user.execute("DELETE FROM message WHERE size = 20")
    superuser.execute(READ_ONLY[how])
    assert superuser.execute("SELECT greatest FROM tally.bests WHERE chat = 1").fetchall() == [(10,)]
    assert differences(superuser, tally) == []
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        superuser.execute("DELETE FROM message")


@pytest.mark.parametrize("rows", [10, 100])
def test_little_room_for_temporary_files(superuser: Connection, engine: Engine, messages: Tally, rows: int) -> None:
    """A statement that needs no temporary file without us must need none with us."""
    superuser.execute("CREATE TABLE bulk (chat integer, size integer, author text); CREATE TABLE plain (LIKE bulk)")
    superuser.execute("INSERT INTO bulk SELECT mod(i, 3), i, 'a' FROM generate_series(1, %s::integer) AS s (i)", [rows])
    superuser.execute("SET work_mem = '64kB'; SET temp_file_limit = 0")
    superuser.execute("INSERT INTO plain SELECT * FROM bulk")
    superuser.execute("INSERT INTO message (chat, size, author) SELECT * FROM bulk")
    superuser.execute("UPDATE message SET size = size + 1")
    superuser.execute("DELETE FROM message WHERE chat = 1")
    assert_exact(engine, messages)
