"""docs/how-to/run-a-worker.md: its lines for pg_cron, run as pg_cron runs them, one simple query for each job."""

import re
from pathlib import Path

import pytest
from psycopg.pq import ExecStatus
from sqlalchemy import Column, DateTime, Engine, Integer, MetaData, Table

from tallystick import Tally
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.order_oracle import assert_orders_exact
from tests.servers import Connection

HOW_TO = Path(__file__).parents[2] / "docs/how-to/run-a-worker.md"
# What pg_cron keeps of a job.
PG_CRON = """
CREATE SCHEMA cron;
CREATE TABLE cron.job (name text, schedule text, command text);
CREATE FUNCTION cron.schedule(text, text, text) RETURNS void LANGUAGE sql
    BEGIN ATOMIC INSERT INTO cron.job VALUES ($1, $2, $3); END;
"""
TABLES = """
CREATE TABLE messages (id bigint GENERATED ALWAYS AS IDENTITY, chat_id integer);
CREATE TABLE events (id integer PRIMARY KEY, user_id integer, start_at timestamptz);
INSERT INTO messages (chat_id) SELECT i % 7 FROM generate_series(1, 100) AS i;
INSERT INTO events SELECT i, i % 3, now() + i * interval '1 minute' FROM generate_series(1, 2000) AS i;
"""
EVENTS = Table(
    "events", MetaData(), Column("id", Integer, primary_key=True), Column("user_id", Integer),
    Column("start_at", DateTime(timezone=True)), schema="public",
)  # fmt: skip


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(PG_CRON)
    connection.execute(TABLES)
    return connection


def test_lines_for_pg_cron(app: Connection, engine: Engine) -> None:
    grouped, ordered = Tally(), Tally()
    grouped.grouped("messages_by_chat", "SELECT chat_id, count(*) AS n FROM public.messages GROUP BY chat_id")
    ordered.ordered("events_by_start", EVENTS, namespace=[EVENTS.c.user_id], key=[EVENTS.c.start_at])
    for tally in (grouped, ordered):
        tally.install(engine)
        tally.backfill(engine)
    for block in re.findall(r"```sql\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), flags=re.DOTALL):
        app.execute(block)
    jobs = app.execute("SELECT command FROM cron.job").fetchall()
    assert len(jobs) == 2
    for _ in range(2):
        app.execute("INSERT INTO messages (chat_id) SELECT i FROM generate_series(1, 10) AS i")
        app.execute("DELETE FROM events WHERE id = (SELECT min(id) FROM events)")
        assert all(each.backlog for tally in (grouped, ordered) for each in tally.status(engine))
        for (command,) in jobs:
            result = app.pgconn.exec_(command.encode())
            assert result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK), result.error_message.decode()
        assert {each.backlog for tally in (grouped, ordered) for each in tally.status(engine)} == {0}
        assert_exact(engine, grouped)
        assert_orders_exact(engine, ordered)
