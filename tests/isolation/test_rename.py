"""An aggregate takes another name under its readers and writers, with its state and its grants."""

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import BigInteger, Column, Engine, Integer, MetaData, Table

from tallystick import NotInstalled, RedefinitionRefused, Tally, UsageError
from tallystick.maintain import install, schedule
from tallystick.maintain.audit import audit_step
from tallystick.store import backlog
from tallystick.store.aggregates import Version
from tallystick.store.connection import transaction
from tests.conftest import Connect
from tests.isolation.stage import DECLARED, Beside, OpenSession, assert_exact_in, ok
from tests.objects import objects
from tests.oracle import assert_exact
from tests.order_oracle import assert_orders_exact, serves_buckets, small_buckets

SNAPSHOT: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ"
READ: LiteralString = "SELECT messages FROM tally.counts WHERE chat = 1"
READ_AFTER: LiteralString = "SELECT messages FROM tally.per_chat WHERE chat = 1"
HALVES: LiteralString = "TABLE tally.per_chat EXCEPT ALL TABLE tally.per_chat__direct"
# Only aggregates over partitioned tables have rows in `partition`.
NAMING_AGGREGATES: LiteralString = """
SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'aggregate'
WHERE relnamespace = 'tally'::regnamespace AND relkind = 'r' AND relname NOT IN ('event', 'partition') ORDER BY 1
"""
WRITE: LiteralString = "INSERT INTO message (chat, size, author) VALUES (1, 40, 'eve'), (3, 1, NULL)"


@pytest.fixture
def renamed() -> Tally:
    """All aggregates under other names; `counts` is `per_chat`."""
    tally = Tally()
    for name, query in DECLARED.items():
        tally.grouped({"counts": "per_chat"}.get(name, f"the_{name}"), query)
    return tally


def test_takes_all_along(engine: Engine, tally: Tally, renamed: Tally, connect: Connect) -> None:
    app = connect(autocommit=True)
    app.execute(WRITE)
    kept = app.execute("TABLE tally.counts__state").fetchall()
    for old, new in zip(tally, renamed, strict=True):
        renamed.rename(engine, old.name, new.name)
    assert app.execute("TABLE tally.per_chat__state").fetchall() == kept  # not built anew
    for write in (
        WRITE,
        "UPDATE message SET size = size + 1",
        "DELETE FROM message WHERE id % 3 = 0",
        "TRUNCATE message",
    ):
        assert_exact(engine, renamed)
        app.execute(write)
        renamed.fold(engine)
    assert_exact(engine, renamed)
    assert {each.serving for each in renamed.status(engine)} == {"kept"}
    assert [finding for finding in renamed.doctor(engine) if finding.level == "error"] == []
    assert not [line for line in objects(app) for old in tally if f"tally.{old.name}_" in line and " ip" not in line]
    assert app.execute("SELECT detail FROM tally.event WHERE aggregate = 'per_chat'").fetchall()[-2:] == [
        ({"was": "counts"},)
    ]


def test_rows_of_the_installation_follow(engine: Engine, tally: Tally, renamed: Tally, connect: Connect) -> None:
    """Whatever table names the aggregate, but the log, which says what was."""
    app = connect(autocommit=True)
    tables = [sql.Identifier("tally", table) for (table,) in app.execute(NAMING_AGGREGATES).fetchall()]

    def of(name: str) -> list[Any]:
        query = sql.SQL("SELECT to_jsonb(t) - 'aggregate' - 'folder' FROM {} AS t WHERE aggregate = {}")
        return [app.execute(query.format(table, sql.Literal(name))).fetchall() for table in tables]

    app.execute("INSERT INTO message (chat, size) SELECT i, i FROM generate_series(1, 2000) AS i")
    tally.fold(engine)
    audit_step(engine, "tally", "counts", budget_s=0)
    schedule.add(engine, "tally", "nightly", "0 0 * * *", "verify", "counts")
    app.execute("TRUNCATE message")
    app.execute(WRITE)
    with transaction(engine) as cursor:
        backlog.note(cursor, "tally", backlog.look(cursor, "tally", 10))
    rows = of("counts")
    assert all(rows)
    renamed.rename(engine, "counts", "per_chat")
    assert of("per_chat") == rows
    assert not any(of("counts"))
    app.execute("UPDATE tally.schedule SET due_at = now()")
    done = schedule.run_if_due(engine, "tally", "nightly")
    assert done is not None
    assert [(report.aggregate, report.status) for report in done.reports] == [("per_chat", "exact")]


def test_under_readers_and_writers(session: OpenSession, beside: Beside, renamed: Tally, connect: Connect) -> None:
    reader, writer, old = session(), session(), session()
    ok(old, SNAPSHOT, "SELECT count(*) FROM pg_class")
    ok(reader, "BEGIN", READ)
    operation = beside.start(lambda engine: renamed.rename(engine, "counts", "per_chat")).until_pausing()
    ok(writer, WRITE)
    assert ok(reader, READ) == [(3,)]
    ok(reader, "COMMIT")
    operation.result()
    assert [ok(each, READ_AFTER) for each in (old, reader)] == [[(2,)], [(3,)]]
    with pytest.raises(psycopg.errors.UndefinedTable):
        reader.run(READ).result()
    ok(writer, WRITE)
    for each in (old, reader, writer):
        assert ok(each, HALVES) == []


def test_grants_and_views_of_others_stay(
    engine: Engine, renamed: Tally, connect: Connect, make_role: Callable[[], str]
) -> None:
    app, role = connect(autocommit=True), make_role()
    app.execute(sql.SQL("GRANT USAGE ON SCHEMA tally TO {}").format(sql.Identifier(role)))
    app.execute(sql.SQL("GRANT SELECT ON tally.counts TO {}").format(sql.Identifier(role)))
    app.execute("CREATE VIEW report AS SELECT chat, messages FROM tally.counts")
    renamed.rename(engine, "counts", "per_chat")
    app.execute(WRITE)
    expected = app.execute("SELECT chat, count(*) FROM message GROUP BY chat ORDER BY chat").fetchall()
    reader = connect(user=role, autocommit=True)
    assert reader.execute("SELECT chat, messages FROM tally.per_chat ORDER BY chat").fetchall() == expected
    assert app.execute("SELECT chat, messages FROM report ORDER BY chat").fetchall() == expected


def test_ordered(engine: Engine, connect: Connect) -> None:
    app = connect(autocommit=True)
    table = Table(
        "message",
        MetaData(),
        Column("id", BigInteger, primary_key=True),
        Column("chat", Integer),
        Column("size", Integer),
    )
    before, after = Tally(), Tally()
    for tally, name in ((before, "o"), (after, "by_size")):
        tally.ordered(name, table, namespace=[table.c.chat], key=[table.c.size], sums={"bytes": table.c.size})
    with small_buckets():
        before.install(engine)
        before.backfill(engine)
        app.execute(WRITE)
        after.rename(engine, "o", "by_size")
    app.execute("INSERT INTO message (chat, size) SELECT i % 3, i FROM generate_series(1, 60) AS i")
    assert_orders_exact(engine, after)
    after.fold(engine)
    assert serves_buckets(app, after.orders["by_size"])
    assert_orders_exact(engine, after)
    again = Tally()
    again.ordered("o", table, key=[table.c.size])  # the name of its index is taken
    again.install(engine)
    again.backfill(engine)
    assert_orders_exact(engine, again)
    again.uninstall(engine)
    assert_orders_exact(engine, after)
    after.uninstall(engine)
    assert not [line for line in objects(app) if "by_size" in line or "tally_o_" in line]


def test_refused(engine: Engine, tally: Tally, renamed: Tally, connect: Connect) -> None:
    other = Tally()
    other.grouped("bests", DECLARED["bests"])
    other.grouped("news", DECLARED["bests"])
    other.counter("visits")
    before = objects(connect(autocommit=True))
    with pytest.raises(NotInstalled, match='"nothing" is not installed'):
        renamed.rename(engine, "nothing", "per_chat")
    with pytest.raises(UsageError, match='"nothing" is not declared'):
        renamed.rename(engine, "counts", "nothing")
    with pytest.raises(UsageError, match='counter "visits": counters cannot be renamed'):
        other.rename(engine, "counts", "visits")
    with pytest.raises(RedefinitionRefused, match='"bests" is installed already'):
        other.rename(engine, "counts", "bests")
    with pytest.raises(RedefinitionRefused, match='"news" is declared otherwise: measure "messages" removed'):
        other.rename(engine, "counts", "news")
    assert objects(connect(autocommit=True)) == before


def test_not_while_it_is_redefined(session: OpenSession, engine: Engine, tally: Tally, renamed: Tally) -> None:
    changed = Tally()
    changed.grouped("counts", "SELECT chat, count(*) AS messages FROM message GROUP BY chat")
    install.install(engine, changed["counts"], version=Version("counts__next", 2, "counts"))
    with pytest.raises(RedefinitionRefused, match="a redefinition of it is under way"):
        renamed.rename(engine, "counts", "per_chat")
    assert_exact_in(tally, session())
