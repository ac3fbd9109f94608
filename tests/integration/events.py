"""Partitioned events with aggregates over them, which tests of partitions share."""

from typing import LiteralString

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from tallystick import Tally
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.servers import Connection, Server

TABLES = """
CREATE TABLE event (id bigint, day date, k integer, n numeric, label text) PARTITION BY RANGE (day);
CREATE TABLE january PARTITION OF event FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE february PARTITION OF event FOR VALUES FROM ('2024-02-01') TO ('2024-03-01') PARTITION BY LIST (k);
CREATE TABLE february_low PARTITION OF february FOR VALUES IN (0, 1, 2);
CREATE TABLE february_rest PARTITION OF february DEFAULT;
INSERT INTO event SELECT i, date '2024-01-01' + i % 55, i % 5, i * 1.5, 'l' || i % 7 FROM generate_series(1, 300) AS i;
"""
# Its columns stand in another order, with a gap.
OTHER: LiteralString = """
CREATE TABLE april (label text, gap integer, n numeric, k integer, day date, id bigint);
ALTER TABLE april DROP COLUMN gap;
INSERT INTO april (id, day, k, n, label) SELECT i, '2024-04-05', i % 3, -i, 'l' || i FROM generate_series(1, 20) AS i
"""
ATTACH: LiteralString = "ALTER TABLE event ATTACH PARTITION april FOR VALUES FROM ('2024-04-01') TO ('2024-05-01')"
MARCH: LiteralString = "CREATE TABLE march PARTITION OF event FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')"
DECLARED = {
    "by_k": """
        SELECT k, count(*) AS events, avg(n) AS mean, min(n) AS least, count(DISTINCT label) AS labels,
               max(label) FILTER (WHERE label LIKE '%1') AS last
        FROM event WHERE n > -15 GROUP BY k""",
    "rows": "SELECT count(*) AS events FROM event",
}


def declared() -> Tally:
    tally = Tally()
    for name, query in DECLARED.items():
        tally.grouped(name, query)
    return tally


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """Name of a template database with the tables and their aggregates, serving their kept half."""

    def build(connection: Connection) -> None:
        connection.execute(TABLES)
        connection.commit()
        engine = create_engine(server.url(connection.info.dbname), poolclass=NullPool)
        tally = declared()
        tally.install(engine)
        tally.backfill(engine)

    return server.template("kept partitions", build)


@pytest.fixture
def app(connect: Connect) -> Connection:
    return connect(autocommit=True)


@pytest.fixture
def tally(app: Connection, engine: Engine) -> Tally:
    return declared()


def serving(tally: Tally, engine: Engine) -> set[str | None]:
    return {found.serving for found in tally.status(engine)}


def uncounted(tally: Tally, engine: Engine) -> set[str]:
    return {why for found in tally.status(engine) for why in found.uncounted}


def assert_kept(tally: Tally, engine: Engine) -> None:
    """Readers are served the kept half, it is exact before and after a fold, and nothing is amiss."""
    assert serving(tally, engine) == {"kept"}
    assert_exact(engine, tally)
    tally.fold(engine)
    assert serving(tally, engine) == {"kept"}
    assert_exact(engine, tally)
    assert all(report.is_exact for report in tally.verify(engine))
    assert not [finding for finding in tally.doctor(engine) if finding.level == "error"]


def assert_served_by_source(tally: Tally, engine: Engine, why: str) -> None:
    """Exact all the same; status and doctor say why, and the doctor what to do."""
    assert serving(tally, engine) == {"direct"}
    assert uncounted(tally, engine) == {why}
    assert_exact(engine, tally)
    found = [finding for finding in tally.doctor(engine) if finding.what.startswith("serves from its source")]
    assert {finding.what for finding in found} == {f"serves from its source: {why}"}
    assert {finding.level for finding in found} == {"advice" if "not counted" in why else "error"}
    assert [finding.remedy.split()[1] for finding in found] == ["fold" if "not counted" in why else "backfill"] * 2
