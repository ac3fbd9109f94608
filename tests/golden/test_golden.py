"""The SQL that each shape of declaration compiles to, whole and to the letter, in a file that a reviewer can read.

The files show what PostgreSQL 18 is given: it prints expressions in other words than older versions, so only there
they are compared. After an intended change, write them anew and read the difference:

    TALLY_UPDATE_GOLDEN=1 pytest tests/golden
    git diff tests/golden

The same declarations are installed and run on every version.
"""

import os
from pathlib import Path
from typing import LiteralString

import pytest
from sqlalchemy import Column, Engine, MetaData, Numeric, Table

from tallystick import Tally
from tests.conftest import RELEASES, Connect
from tests.oracle import assert_exact
from tests.servers import Connection, Server

FOLDER = Path(__file__).parent
UPDATE = "TALLY_UPDATE_GOLDEN"
NEWEST = max(RELEASES, key=lambda release: release.major)

SOURCE = """
CREATE SCHEMA app;
CREATE TABLE app.event (
    id bigint PRIMARY KEY, chat_id integer, kind text, at timestamptz, size integer, amount numeric,
    price numeric(10, 2), rate double precision, ok boolean, body text
);
CREATE TABLE app."The ""Lines"" of orders" ("Id" bigint PRIMARY KEY, "group" text NOT NULL, "Unit Price" integer);
CREATE TABLE app.chat (id integer PRIMARY KEY, size numeric NOT NULL);
CREATE TABLE app.sale (id bigint, region integer, cents integer) PARTITION BY RANGE (id);
CREATE TABLE app.sale_low PARTITION OF app.sale FOR VALUES FROM (minvalue) TO (20);
CREATE TABLE app.sale_high PARTITION OF app.sale FOR VALUES FROM (20) TO (maxvalue);
"""

DECLARED = {
    "count_and_sum": """
        SELECT chat_id, count(*) AS messages, sum(size) AS bytes FROM app.event GROUP BY chat_id""",
    "text_key": """
        SELECT kind, count(*) AS events FROM app.event GROUP BY kind""",
    "nullable_keys": """
        SELECT chat_id, date_trunc('day', timezone('UTC', at)) AS day, count(size) AS sized
        FROM app.event WHERE ok IS DISTINCT FROM false GROUP BY 1, 2""",
    "totals": """
        SELECT count(*) AS events, sum(size) AS bytes FROM app.event""",
    "extremes": """
        SELECT chat_id, min(at) AS first, max(size) FILTER (WHERE ok) AS largest FROM app.event GROUP BY chat_id""",
    "distinct": """
        SELECT chat_id, count(DISTINCT kind) FILTER (WHERE size > 0) AS kinds, count(*) AS events
        FROM app.event GROUP BY chat_id""",
    "floating_point": """
        SELECT chat_id, avg(rate) AS mean, stddev(rate) AS deviation FROM app.event GROUP BY chat_id""",
    "numeric": """
        SELECT chat_id, avg(amount) AS mean, sum(amount) AS total, avg(price) AS price, var_pop(size) AS variance
        FROM app.event GROUP BY chat_id""",
    "boolean": """
        SELECT chat_id, bool_and(ok) AS all_ok, bool_or(size > 10) AS any_large FROM app.event GROUP BY chat_id""",
    'Quoted "names"': '''
        SELECT "group" AS "Group By", sum("Unit Price") AS "Total in ""€"" net"
        FROM app."The ""Lines"" of orders" GROUP BY "group"''',
    "partitioned": """
        SELECT region, count(*) AS sales, max(cents) AS greatest FROM app.sale GROUP BY region""",
    "mirrored": """
        SELECT chat_id, sum(amount) AS size FROM app.event GROUP BY chat_id""",
}
MIRRORS = {"mirrored": {"size": Table("chat", MetaData(), Column("size", Numeric), schema="app").c.size}}

FILL: LiteralString = """
INSERT INTO app.event
SELECT i, nullif(i % 5, 0), 'kind ' || nullif(i % 3, 0), timestamptz '2024-01-01 UTC' + i * interval '7 hours',
       nullif(i % 11, 0), nullif(i % 7, 0)::numeric / 3, i % 13, i / 7.0, nullif(i % 4, 0) > 1, repeat('x', i)
FROM generate_series(1, 100) AS s (i);
INSERT INTO app."The ""Lines"" of orders" SELECT i, 'g' || i % 4, i FROM generate_series(1, 40) AS s (i);
INSERT INTO app.sale SELECT i, i % 3, i FROM generate_series(1, 40) AS s (i);
INSERT INTO app.chat SELECT i, 0 FROM generate_series(1, 5) AS s (i);
"""
WRITES: list[LiteralString] = [
    "INSERT INTO app.event (id, chat_id, amount, rate) VALUES (101, NULL, 'NaN', 'Infinity'), (102, 9, 1.50, -0.0)",
    "UPDATE app.event SET chat_id = 2, size = size + 1, amount = -amount WHERE id % 3 = 0",
    "UPDATE app.event SET ok = NOT ok, kind = NULL, rate = rate * 2 WHERE id % 7 = 0",
    "UPDATE app.event SET body = 'unused'",
    "DELETE FROM app.event WHERE size = (SELECT max(size) FROM app.event) OR id IN (1, 101)",
    'UPDATE app."The ""Lines"" of orders" SET "group" = \'g1\' WHERE "Unit Price" < 9',
    'DELETE FROM app."The ""Lines"" of orders" WHERE "group" = \'g2\'',
    "UPDATE app.sale SET id = 41 - id, region = 1 WHERE id % 5 = 0",
    "DELETE FROM app.sale WHERE cents > 35",
    'TRUNCATE app.event, app."The ""Lines"" of orders", app.sale',
    "INSERT INTO app.event (id, chat_id, size, amount) VALUES (1, 1, 5, 1.25), (2, NULL, NULL, NULL)",
]


@pytest.fixture
def source(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(SOURCE)
    return connection


@pytest.mark.parametrize("server", [NEWEST], indirect=True, ids=[f"pg{NEWEST.major}"])
@pytest.mark.parametrize("name", DECLARED)
def test_compiled_sql(source: Connection, engine: Engine, name: str) -> None:
    tally = Tally()
    tally.grouped(name, DECLARED[name], mirror=MIRRORS.get(name))
    (planned,) = tally.plan(engine)
    assert planned.compiled is not None
    statements = [*planned.compiled.objects, *planned.compiled.triggers]
    text = "\n".join(f"-- {statement.purpose}\n{statement.text()};\n" for statement in statements)
    file = FOLDER / f"{name.lower().replace(' ', '_').replace(chr(34), '')}.sql"
    if os.environ.get(UPDATE) == "1":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"{file.name} differs; see the top of this module"


def test_no_file_is_left_over() -> None:
    assert len(list(FOLDER.glob("*.sql"))) == len(DECLARED)


def test_every_declaration_stays_exact(source: Connection, engine: Engine, server: Server) -> None:
    source.execute(FILL)
    tally = Tally()
    for name, declared in DECLARED.items():
        tally.grouped(name, declared, mirror=MIRRORS.get(name))
    assert tally.install(engine) == list(DECLARED)
    source.execute(WRITES[0])
    tally.backfill(engine)
    for step, write in enumerate(WRITES[1:]):
        source.execute(write)
        assert_exact(engine, tally)
        if step % 3 == 1:
            tally.fold(engine)
            assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)
    assert {report.status for report in tally.verify(engine)} == {"exact"}
