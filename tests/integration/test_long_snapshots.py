"""A snapshot that stays open keeps folded deltas as dead rows; readers of the hot group do not walk over them."""

from statistics import median
from time import perf_counter
from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import Engine

from tallystick import Tally
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.servers import Connection

TABLE = """
CREATE TABLE message (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chat_id integer, label text, size integer);
INSERT INTO message (chat_id, label, size) SELECT i % 50, 'l' || i % 50, i FROM generate_series(1, 500) AS i;
"""
DECLARED = {
    "by_chat": "SELECT chat_id, count(*) AS messages, max(size) AS greatest FROM message GROUP BY chat_id",
    "by_label": "SELECT label, count(*) AS messages FROM message GROUP BY label",
    "totals": "SELECT count(*) AS messages, sum(size) AS bytes FROM message",
}
# Statements of one row each leave one delta each; a function spares the round trips.
HOT: LiteralString = """
DO $$ BEGIN FOR i IN 1..{n} LOOP INSERT INTO message (chat_id, label, size) VALUES (1, 'l1', i); END LOOP; END $$
"""
READS: list[LiteralString] = [
    "SELECT * FROM tally.by_chat WHERE chat_id = 1",
    "SELECT * FROM tally.by_label WHERE label = 'l1'",
    "SELECT * FROM tally.totals",
]
FOLDS, DELTAS = 8, 50_000


def kept(app: Connection, engine: Engine) -> Tally:
    """The table with its aggregates, serving their kept half."""
    app.execute(TABLE)
    tally = Tally()
    for name, query in DECLARED.items():
        tally.grouped(name, query)
    tally.install(engine)
    tally.backfill(engine)
    return tally


@pytest.mark.slow
def test_the_hot_group_stays_quick(engine: Engine, connect: Connect) -> None:
    """400,000 deltas are folded while a snapshot is open: a read stays under 3 ms at the median, vacuumed or not."""
    app, old = connect(autocommit=True), connect()
    tally = kept(app, engine)
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    before = [old.execute(read).fetchall() for read in READS]
    for _ in range(FOLDS):
        app.execute(sql.SQL(HOT).format(n=sql.Literal(DELTAS)))
        assert [result.deltas for result in tally.fold(engine)] == [DELTAS] * 3
    app.execute("INSERT INTO message (chat_id, label, size) VALUES (1, 'l1', -1)")
    for vacuum in ("", "VACUUM (ANALYZE) tally.by_chat__delta, tally.by_label__delta, tally.totals__delta"):
        if vacuum:
            app.execute(vacuum)
        for read in READS:
            times_s = []
            for _ in range(50):
                started = perf_counter()
                app.execute(read, prepare=True).fetchall()
                times_s.append(perf_counter() - started)
            assert median(times_s[10:]) < 0.003, (vacuum, read)
    assert [old.execute(read).fetchall() for read in READS] == before
    assert_exact(engine, tally)
    old.rollback()


def test_a_long_transaction_commits_late(engine: Engine, connect: Connect) -> None:
    """Deltas that were written long ago and are seen only now are younger than the floor of every fold since."""
    app, late, later = connect(autocommit=True), connect(), connect()
    tally = kept(app, engine)
    late.execute("INSERT INTO message (chat_id, label, size) VALUES (1, 'l1', 9000)")
    later.execute("SAVEPOINT s")
    later.execute("DELETE FROM message WHERE id = 7")
    for number in range(20):
        app.execute("INSERT INTO message (chat_id, label, size) VALUES (%s, 'l1', 1)", [number % 3])
        tally.fold(engine)
        assert_exact(engine, tally)
    floor = "SELECT floor::text::bigint FROM tally.watermark WHERE aggregate = 'by_chat'"
    (held,) = app.execute(floor).fetchone() or (0,)
    for writer in (late, later):
        writer.commit()
        assert_exact(engine, tally)
        tally.fold(engine)
        assert_exact(engine, tally)
    (raised,) = app.execute(floor).fetchone() or (0,)
    assert 0 < held < raised


def test_a_floor_of_another_cluster_is_ignored(engine: Engine, connect: Connect) -> None:
    """As a restore leaves it: a floor far above every transaction id there is, in a row that no folder wrote."""
    app = connect(autocommit=True)
    tally = kept(app, engine)
    app.execute("UPDATE tally.watermark SET floor = '1000000000', folder = '1000000000'")
    app.execute("INSERT INTO message (chat_id, label, size) VALUES (1, 'l1', 1), (777, 'new', 1)")
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)
    assert app.execute("SELECT bool_and(floor < '1000000000') FROM tally.watermark").fetchone() == (True,)
