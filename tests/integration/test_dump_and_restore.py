"""Aggregates that were dumped and restored, or upgraded, are exact at once, and after whatever is written and folded.

Enum values have other hashes in the restored database, its transaction ids may be far lower than the dumped ones, and
partitions are attached by other transactions than those that are listed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import LiteralString, cast

import pytest
from psycopg import sql
from sqlalchemy import Engine, NullPool, create_engine

from tallystick import Tally
from tallystick.embedded import Cluster, programs
from tallystick.errors import NotWhole
from tests.backfills import begin
from tests.conftest import RELEASES
from tests.oracle import Oracle, assert_exact, told
from tests.servers import Connection, Server, Servers

SOURCE: LiteralString = """
CREATE TYPE mood AS ENUM ('sad', 'glad', 'odd');
CREATE TABLE item (id bigint PRIMARY KEY, mood mood, label text, size integer, amount numeric);
CREATE TABLE log (id bigint PRIMARY KEY, mood mood, size integer);
CREATE FUNCTION label(i integer) RETURNS text IMMUTABLE LANGUAGE sql
    RETURN CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN (SELECT string_agg(md5(i % 3 || ' ' || j), '')
           FROM generate_series(1, 100) AS s (j)) ELSE 'label ' || i % 5 END;
CREATE FUNCTION mood(i integer) RETURNS mood IMMUTABLE LANGUAGE sql
    RETURN CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN 'sad'::mood WHEN 2 THEN 'glad' ELSE 'odd' END;
INSERT INTO item SELECT i, mood(i), label(i), i % 31, i * 0.125 FROM generate_series(1, 200) AS s (i);
INSERT INTO log SELECT i, mood(i), i % 7 FROM generate_series(1, 50) AS s (i);
"""
FOLDED: LiteralString = """
INSERT INTO item SELECT i, mood(i), label(i), i % 37, 1.50 FROM generate_series(201, 250) AS s (i);
DELETE FROM item WHERE size = 30;
UPDATE item SET mood = 'odd' WHERE id % 10 = 3;
"""
UNFOLDED: LiteralString = """
INSERT INTO item SELECT i, mood(i), label(i), 50 + i % 3, NULL FROM generate_series(251, 270) AS s (i);
DELETE FROM item WHERE size >= 29 AND size < 40;
UPDATE item SET label = label(id::integer + 1), mood = 'sad' WHERE id % 10 = 7;
INSERT INTO log SELECT i, 'glad', 70 FROM generate_series(51, 60) AS s (i);
TRUNCATE log;
INSERT INTO log VALUES (1, 'sad', 3), (2, 'sad', 4), (3, NULL, 3);
"""
LATER: tuple[LiteralString, ...] = (
    "INSERT INTO item SELECT i, mood(i), label(i), 50 + i % 5, 2.25 FROM generate_series(301, 330) AS s (i)",
    "UPDATE item SET mood = 'glad', size = size - 1 WHERE id % 9 = 4",
    "UPDATE item SET label = 'label 2' WHERE id % 10 = 1",
    "DELETE FROM item WHERE size >= 50 OR size = 0",
    "INSERT INTO log VALUES (11, 'odd', 3), (12, 'sad', 4)",
    "DELETE FROM log WHERE id = 1",
)
AT_LAST: LiteralString = "TRUNCATE log; INSERT INTO log VALUES (21, 'odd', 9); DELETE FROM item WHERE id % 3 = 0"
PARTITIONED: LiteralString = """
CREATE TABLE item (id bigint PRIMARY KEY, mood text, size integer) PARTITION BY RANGE (id);
CREATE TABLE item_low PARTITION OF item FOR VALUES FROM (MINVALUE) TO (100);
CREATE TABLE item_rest PARTITION OF item DEFAULT PARTITION BY LIST (id);
CREATE TABLE item_high PARTITION OF item_rest DEFAULT;
INSERT INTO item SELECT i, 'mood ' || i % 3, i % 31 FROM generate_series(1, 200) AS s (i);
"""
BURN: LiteralString = "DO $$ BEGIN FOR i IN 1..{} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
NEXT_ID: LiteralString = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


def declared() -> Tally:
    tally = Tally()
    tally.grouped(
        "by_mood",
        "SELECT mood, count(*) AS n, min(size) AS least, max(size) AS most, count(DISTINCT label) AS labels"
        " FROM item GROUP BY mood",
    )
    tally.grouped(
        "by_label",
        "SELECT label, count(*) AS n, sum(amount) AS total, max(size) AS most, count(DISTINCT mood) AS moods"
        " FROM item GROUP BY label",
    )
    tally.grouped("plain", "SELECT mood, label, count(*) AS n, avg(amount) AS mean FROM item GROUP BY mood, label")
    tally.grouped("whole", "SELECT count(*) AS n, min(label) AS first, max(amount) AS most FROM item")
    tally.grouped(
        "logged", "SELECT mood, count(*) AS n, max(size) AS most, count(DISTINCT size) AS sizes FROM log GROUP BY mood"
    )
    return tally


def raw(engine: Engine, stack: ExitStack) -> Connection:
    """An open connection in autocommit mode, closed with the stack."""
    borrowed = stack.enter_context(engine.execution_options(isolation_level="AUTOCOMMIT").connect())
    return cast(Connection, borrowed.connection.driver_connection)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


Make = Callable[[Server], Engine]


@pytest.fixture
def make(stack: ExitStack) -> Make:
    """Make a database on a server; it is dropped at the end."""

    def new(server: Server) -> Engine:
        name = server.create_database("template1")
        stack.callback(server.drop_database, name)
        engine = create_engine(server.url(name), poolclass=NullPool)
        stack.callback(engine.dispose)
        return engine

    return new


@pytest.fixture(scope="session")
def fresh(server: Server) -> Iterator[Server]:
    """A new cluster of the same version, on which few transactions have run."""
    running = Servers()
    try:
        yield running.get(server.release)
    finally:
        running.close()


def populate(engine: Engine, stack: ExitStack) -> Tally:
    """Aggregates with state, a floor, unfolded deltas, keys too wide for a B-tree and a marker of TRUNCATE."""
    tally = declared()
    connection = raw(engine, stack)
    connection.execute(SOURCE)
    tally.install(engine)
    tally.backfill(engine)
    connection.execute(FOLDED)
    tally.fold(engine)
    for statement in UNFOLDED.split(";\n"):
        connection.execute(statement.encode())
    wide, marked = connection.execute(
        "SELECT (SELECT count(*) FROM tally.by_label__state WHERE NOT narrow), (SELECT count(*) FROM tally.reset)"
    ).fetchall()[0]
    assert (wide > 0, marked) == (True, 1)
    assert all(status.backlog > 0 for status in tally.status(engine))
    return tally


def run(server: Server, program: str, engine: Engine, *options: str, given: bytes = b"") -> bytes:
    """Run one of the server's programs on the database of the engine, wherever that is."""
    host = str(engine.url.query["host"])
    command = [str(server.cluster.programs / program), "-h", host, "-p", "5432", "-U", "postgres", *options]
    done = subprocess.run([*command, "-d", str(engine.url.database)], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def copied(server: Server, source: Engine, target: Engine, *options: str) -> None:
    """Dump as SQL and restore, by the programs of the server that is restored into."""
    script = run(server, "pg_dump", source, *options)
    run(server, "psql", target, "-X", "-q", "-v", "ON_ERROR_STOP=1", given=script)


def serves_kept(connection: Connection, name: str) -> bool:
    """Readers of an aggregate see its state: a change of it that is rolled back shows."""
    view, state = sql.Identifier("tally", name), sql.Identifier("tally", f"{name}__state")
    total = sql.SQL("SELECT sum(n) FROM {}").format(view)
    with connection.transaction(force_rollback=True):
        before = connection.execute(total).fetchone()
        connection.execute(sql.SQL("UPDATE {} SET n = n + 1000").format(state))
        return connection.execute(total).fetchone() != before


def errors(engine: Engine, tally: Tally) -> list[str]:
    return [finding.what for finding in tally.doctor(engine) if finding.level == "error"]


def check_and_write(engine: Engine, tally: Tally, stack: ExitStack) -> None:
    """Exact from the first moment, through writes, a fold, and writes again."""
    connection = raw(engine, stack)
    oracle = Oracle(raw(engine, stack), tally)
    for statement in ("SELECT", *LATER):
        connection.execute(statement.encode())
        found = oracle.differences()
        assert not found, told(found)
    assert all(result.deltas > 0 for result in tally.fold(engine))
    assert_exact(engine, tally)
    assert all(report.is_exact for report in tally.verify(engine))
    assert {serves_kept(connection, aggregate.name) for aggregate in tally} == {True}
    connection.execute(AT_LAST)
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)
    assert all(report.is_exact for report in tally.verify(engine))


@pytest.mark.parametrize("format_", ["plain", "custom"])
def test_into_another_database(server: Server, make: Make, stack: ExitStack, format_: str) -> None:
    source, target = make(server), make(server)
    tally = populate(source, stack)
    if format_ == "plain":
        copied(server, source, target)
    else:
        archive = run(server, "pg_dump", source, "--format=custom")
        run(server, "pg_restore", target, "--exit-on-error", given=archive)
    assert errors(target, tally) == []
    assert {status.serving for status in tally.status(target)} == {"kept"}
    check_and_write(target, tally, stack)


def carried_over(
    server: Server, source: Engine, target: Engine, tally: Tally, stack: ExitStack
) -> tuple[Connection, Connection]:
    """Dumped in the middle of backfills and restored, with writes before and after; sessions here and there."""
    here, there = raw(source, stack), raw(target, stack)
    begin(source, tally)
    here.execute(LATER[0])
    copied(server, source, target)
    for statement in LATER[1:]:
        there.execute(statement)
    return here, there


def why_begun(connection: Connection, name: str) -> str:
    """The reason of the last backfill that began."""
    query = "SELECT detail ->> 'why' FROM tally.event WHERE what = 'backfill begins' AND aggregate = %s ORDER BY id"
    return [str(why) for (why,) in connection.execute(query, [name]).fetchall()][-1]


@pytest.mark.parametrize("where", ["the same cluster", "a new cluster"])
def test_in_the_middle_of_a_backfill(server: Server, fresh: Server, make: Make, stack: ExitStack, where: str) -> None:
    """What was counted is told by transaction ids, which mean nothing there: it begins anew."""
    source, target = make(server), make(server if where == "the same cluster" else fresh)
    tally = populate(source, stack)
    here, there = carried_over(server, source, target, tally, stack)
    assert_exact(target, tally)
    tally.backfill(target, chunk_rows=50)
    assert why_begun(there, "plain") == "the database was restored"
    assert all(serves_kept(there, aggregate.name) for aggregate in tally)
    assert_exact(target, tally)
    tally.backfill(source)  # that of the dumped database goes on
    assert why_begun(here, "plain") == "it was asked for"
    assert_exact(source, tally)


def test_a_schema_alone(server: Server, make: Make, stack: ExitStack) -> None:
    """Nothing is registered, so readers are served by the source; writers are not disturbed."""
    source, target = make(server), make(server)
    tally = populate(source, stack)
    copied(server, source, target, "--schema-only")
    restored = raw(target, stack)
    assert restored.execute("SELECT count(*) FROM tally.aggregate").fetchall() == [(0,)]
    for statement in LATER:
        restored.execute(statement)
        assert_exact(target, tally)


def test_a_schema_and_then_its_data(server: Server, make: Make, stack: ExitStack) -> None:
    """pg_dump's --disable-triggers enables them for ordinary sessions only; doctor says how they should be."""
    source, target = make(server), make(server)
    tally = populate(source, stack)
    copied(server, source, target, "--schema-only")
    copied(server, source, target, "--data-only", "--disable-triggers")
    assert_exact(target, tally)
    restored = raw(target, stack)
    restored.execute("INSERT INTO item VALUES (1001, 'odd', 'x', 99, 1); DELETE FROM item WHERE id = 1")
    assert_exact(target, tally)
    found = [finding for finding in tally.doctor(target) if finding.level == "error"]
    assert len(found) == 4 * len(list(tally))
    for finding in found:
        assert "does not fire for replicated changes" in finding.what
        restored.execute(finding.remedy.partition("; then: ")[0].encode())
    assert errors(target, tally) == []
    restored.execute("SET session_replication_role = replica; DELETE FROM item WHERE id = 1001")
    check_and_write(target, tally, stack)


def test_into_a_newer_version(servers: Servers, make: Make, stack: ExitStack) -> None:
    """Counts of distinct values are served by the source until a fold has seen to the hashes."""
    newest, oldest = (servers.get(release) for release in RELEASES)
    source, target = make(oldest), make(newest)
    tally = populate(source, stack)
    copied(newest, source, target)
    assert errors(target, tally) == []
    restored = raw(target, stack)
    assert {a.name for a in tally if serves_kept(restored, a.name)} == {"plain", "whole"}
    check_and_write(target, tally, stack)


@pytest.mark.parametrize("folded", [False, True], ids=["unfolded", "folded"])
def test_where_transaction_ids_are_lower(
    server: Server, fresh: Server, make: Make, stack: ExitStack, folded: bool
) -> None:
    """What is written below the dumped floor counts, up to the floor and past it."""
    source, target = make(server), make(fresh)
    burner, writer = raw(source, stack), raw(target, stack)
    ahead = 2000 + _number(writer, NEXT_ID) - _number(burner, NEXT_ID)
    burner.execute(sql.SQL(BURN).format(sql.Literal(max(ahead, 0))))
    tally = populate(source, stack)
    floor = _number(burner, "SELECT max(floor::text::bigint) FROM tally.watermark")
    copied(server, source, target)
    assert _number(writer, NEXT_ID) + 500 < floor
    oracle = Oracle(raw(target, stack), tally)
    if folded:
        writer.execute("UPDATE item SET size = 60, mood = 'sad' WHERE id IN (4, 5)")
        tally.fold(target)
    number = passed = 0
    while passed < 5:
        left = floor - _number(writer, NEXT_ID)
        if left > 5:
            writer.execute(sql.SQL(BURN).format(sql.Literal(min(300, left - 5))))
        passed += left < 0
        number += 1
        writer.execute("INSERT INTO item VALUES (%s, mood(%s), label(%s), %s, 1)", [5000 + number] + [number] * 3)
        writer.execute("DELETE FROM item WHERE id = (SELECT max(id) FROM item WHERE id < 300)")
        writer.execute("INSERT INTO log VALUES (%s, 'odd', %s)", [5000 + number, number])
        found = oracle.differences()
        assert not found, told(found)
    check_and_write(target, tally, stack)


def test_a_floor_of_another_epoch(server: Server, make: Make, stack: ExitStack) -> None:
    """The dumped folder's id may have the low half of the restoring transaction's, and a higher epoch."""
    source, target = make(server), make(server)
    tally = populate(source, stack)
    copied(server, source, target)
    restored = raw(target, stack)
    restored.execute(
        "UPDATE tally.watermark SET (floor, folder) = (SELECT x, x FROM"
        " (SELECT (pg_current_xact_id()::text::bigint + 4294967296)::text::xid8) AS later (x))"
    )
    check_and_write(target, tally, stack)


def partitioned(engine: Engine, stack: ExitStack) -> Tally:
    tally = Tally()
    tally.grouped("by_mood", "SELECT mood, count(*) AS n, max(size) AS most FROM item GROUP BY mood")
    tally.grouped("whole", "SELECT count(*) AS n, count(DISTINCT mood) AS moods FROM item")
    connection = raw(engine, stack)
    connection.execute(PARTITIONED)
    tally.install(engine)
    tally.backfill(engine)
    connection.execute("DELETE FROM item WHERE size = 30; INSERT INTO item VALUES (1000, 'new', 5)")
    return tally


def check_partitioned(engine: Engine, tally: Tally, stack: ExitStack) -> None:
    """Exact though served by the source, which status tells; kept again after a backfill."""
    connection = raw(engine, stack)
    for status in tally.status(engine):
        assert (status.phase, status.serving, status.uncounted != ()) == ("kept", "direct", True)
        assert not serves_kept(connection, status.name)
    assert_exact(engine, tally)
    connection.execute("INSERT INTO item VALUES (1001, 'new', 50), (-1, NULL, NULL); DELETE FROM item WHERE size = 29")
    with pytest.raises(NotWhole):
        tally.fold(engine)
    tally.backfill(engine)
    assert {status.serving for status in tally.status(engine)} == {"kept"}
    assert errors(engine, tally) == []
    connection.execute("UPDATE item SET id = -id WHERE id > 990; DELETE FROM item WHERE mood = 'mood 1'")
    connection.execute("SET session_replication_role = replica; DELETE FROM item WHERE id = 5; RESET ALL")
    assert_exact(engine, tally)
    assert all(result.deltas > 0 for result in tally.fold(engine))
    assert_exact(engine, tally)
    assert all(report.is_exact for report in tally.verify(engine))
    assert {serves_kept(connection, aggregate.name) for aggregate in tally} == {True}


def test_a_partitioned_source(server: Server, make: Make, stack: ExitStack) -> None:
    """Which rows the state counts cannot be told of partitions that came by a restore: the source serves."""
    source, target = make(server), make(server)
    tally = partitioned(source, stack)
    copied(server, source, target)
    check_partitioned(target, tally, stack)


@pytest.mark.slow
def test_pg_upgrade(stack: ExitStack) -> None:
    """State, facets and deltas stay as they are on disk; partitions are attached anew."""
    newest, oldest = RELEASES
    running = Servers()
    stack.callback(running.close)
    old = running.get(oldest)
    home, account = old.cluster.data.parent, old.cluster.account
    new = Cluster(home / str(newest.major), programs(newest.major, account=account, copies=home), account)
    if not (new.programs / "pg_upgrade").exists():
        pytest.skip(f"no pg_upgrade in {new.programs}")
    engines = [create_engine(old.url(old.create_database("template1")), poolclass=NullPool) for _ in range(2)]
    with ExitStack() as opened:
        tallies = populate(engines[0], opened), partitioned(engines[1], opened)
    old.cluster.halt()
    new.create(["--no-sync", "--no-data-checksums"])
    (home / "work").mkdir()
    os.chown(home / "work", account.pw_uid, account.pw_gid)
    done = subprocess.run(
        [str(new.programs / "pg_upgrade"), "-U", "postgres", "--no-sync", "-b", old.cluster.programs,
         "-B", new.programs, "-d", old.cluster.data, "-D", new.data],
        cwd=home / "work", user=account.pw_uid, group=account.pw_gid, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode()[-2000:]
    new.ensure()
    stack.callback(new.halt)
    with ExitStack() as opened:
        upgraded = [create_engine(Server(newest, new).url(str(e.url.database)), poolclass=NullPool) for e in engines]
        connection = raw(upgraded[0], opened)
        assert {a.name for a in tallies[0] if serves_kept(connection, a.name)} == {"plain", "whole"}
        check_and_write(upgraded[0], tallies[0], opened)
        check_partitioned(upgraded[1], tallies[1], opened)


def test_hashes_of_another_major_version(server: Server, make: Make, stack: ExitStack) -> None:
    """pg_upgrade takes tables as they are. Whether they are looked up by a hash decides who serves until the fold."""
    engine = make(server)
    tally = populate(engine, stack)
    connection = raw(engine, stack)
    connection.execute("UPDATE tally.watermark SET major = major - 1")
    assert {a.name for a in tally if serves_kept(connection, a.name)} == {"plain", "whole"}
    assert_exact(engine, tally)
    rows: LiteralString = "SELECT ctid::text, xmin::text FROM tally.by_mood__facet1"
    before = set(connection.execute(rows).fetchall())
    check_and_write(engine, tally, stack)
    assert before.isdisjoint(connection.execute(rows).fetchall())  # each was written, and so hashed, again
    connection.execute("UPDATE tally.watermark SET major = major - 1")
    assert not serves_kept(connection, "by_mood")
    tally.fold(engine)
    assert all(result.deltas == 0 for result in tally.fold(engine))
    assert serves_kept(connection, "by_mood")
    assert_exact(engine, tally)


def _number(connection: Connection, query: LiteralString) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])
