"""What PostgreSQL does for a read, taken from EXPLAIN: looks up groups by index and leaves the source alone."""

from collections.abc import Iterator
from typing import Any, LiteralString

import pytest
from psycopg import ClientCursor
from sqlalchemy import Column, Engine, Integer, MetaData, Select, Table, make_url, select, true

from tallystick import Tally
from tests.conftest import Connect
from tests.servers import Connection

SETUP: LiteralString = """
CREATE TABLE chat (id integer PRIMARY KEY);
CREATE TABLE message
    (id bigint PRIMARY KEY, chat_id integer, kind text, size integer, at timestamptz, rate numeric(8, 2));
INSERT INTO chat SELECT generate_series(1, 5000);
INSERT INTO message
SELECT i, i % 5000, 'k' || i % 4000, i % 97, now() - i * interval '1 s', i / 7.0
FROM generate_series(1, 20000) AS s (i);
"""
Node = dict[str, Any]
INDEXED = {"Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Bitmap Index Scan"}

chat = Table("chat", MetaData(), Column("id", Integer))
tally = Tally()
by_chat = tally.grouped(
    "by_chat",
    "SELECT chat_id, count(*) AS n, sum(size) AS bytes, max(at) AS last, avg(rate) AS rate"
    " FROM message GROUP BY chat_id",
)
by_kind = tally.grouped(
    "by_kind", "SELECT kind, count(*) AS n, count(DISTINCT size) AS sizes FROM message GROUP BY kind"
)
pairs = tally.grouped("pairs", "SELECT chat_id, kind, count(*) AS n FROM message GROUP BY chat_id, kind")


def page() -> Select[Any]:
    found = by_chat.lateral(chat_id=chat.c.id)
    return select(chat.c.id, found).join(found, true()).where(chat.c.id.between(100, 149)).order_by(chat.c.id)


def correlated() -> Select[Any]:
    return select(chat.c.id, by_chat.value("n", chat_id=chat.c.id)).where(chat.c.id.between(100, 149))


LOOKUPS: dict[str, Select[Any]] = {
    "get": by_chat.get(chat_id=7),
    "get by text": by_kind.get(kind="k7"),
    "get by two": pairs.get(chat_id=7, kind="k7"),
    "value": select(by_chat.value("bytes", chat_id=7)),
    "lateral": page(),
    "correlated value": correlated(),
}
TOPS: dict[str, Select[Any]] = {
    "count": by_chat.top("n", 10),
    "sum": by_chat.top("bytes", 10),
    "time": by_chat.top("last", 10),
    "average": by_chat.top("rate", 10),
    "text key": by_kind.top("n", 10),
    "distinct": by_kind.top("sizes", 10),
    "two keys": pairs.top("n", 10),
}


@pytest.fixture
def app(connect: Connect, engine: Engine) -> Connection:
    """Thousands of groups, folded, and a few changed since."""
    connection = connect(autocommit=True)
    connection.execute(SETUP)
    tally.install(engine)
    tally.backfill(engine)
    connection.execute(
        "INSERT INTO message SELECT i, i % 50, 'k' || i % 50, 1 FROM generate_series(30001, 30100) AS s (i)"
    )
    tally.fold(engine)
    connection.execute("VACUUM ANALYZE")
    connection.execute("SET jit = off")
    return connection


def executed(app: Connection, statement: Select[Any]) -> list[Node]:
    """The nodes of the plan that ran, each with its kind, relation and index."""
    compiled = statement.compile(dialect=make_url("postgresql+psycopg://").get_dialect()())
    explain = " ".join(["EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON)", str(compiled)])
    row = ClientCursor(app).execute(explain, compiled.params).fetchone()
    assert row is not None
    return [node for node in walk(row[0][0]["Plan"]) if node["Actual Loops"] > 0]


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", []):
        yield from walk(child)


def scans(nodes: list[Node], suffix: str) -> list[Node]:
    return [node for node in nodes if str(node.get("Relation Name", "")).endswith(suffix)]


@pytest.mark.parametrize("unfolded", [False, True], ids=["folded", "unfolded"])
def test_lookups_use_indexes_and_leave_the_source_alone(app: Connection, unfolded: bool) -> None:
    if unfolded:  # more deltas than a sequential scan would be cheaper for
        app.execute("UPDATE message SET size = size + 1, kind = kind || '+' WHERE chat_id % 2 = 1")
        app.execute("ANALYZE")
    for name, statement in LOOKUPS.items():
        nodes = executed(app, statement)
        assert scans(nodes, "message") == [], name
        assert scans(nodes, "__state"), name
        for node in [*scans(nodes, "__state"), *(scans(nodes, "__delta") if unfolded else [])]:
            assert node["Node Type"] in INDEXED, (name, node["Node Type"], node["Relation Name"])


@pytest.mark.parametrize("unfolded", [False, True], ids=["folded", "unfolded"])
def test_top_reads_the_settled_groups_in_order(app: Connection, unfolded: bool) -> None:
    if unfolded:
        app.execute("UPDATE message SET size = size + 1, kind = kind || '+' WHERE chat_id < 50")
        app.execute("ANALYZE")
    ranking = "SELECT indexname FROM pg_indexes WHERE schemaname = 'tally' AND indexdef LIKE '%DESC NULLS LAST%'"
    ordered = {name for (name,) in app.execute(ranking).fetchall()}
    for name, statement in TOPS.items():
        nodes = executed(app, statement)
        assert scans(nodes, "message") == [], name
        used = {node["Index Name"] for node in nodes if "Index Name" in node}
        assert used & ordered, (name, used)


def test_extremes_that_went_are_read_by_an_index_of_the_source(app: Connection) -> None:
    """Only the group that lost its maximum is read again."""
    app.execute("CREATE INDEX ON message (chat_id)")
    app.execute("DELETE FROM message WHERE id = (SELECT min(id) FROM message WHERE chat_id = 7)")
    app.execute("ANALYZE")
    nodes = executed(app, by_chat.get(chat_id=7))
    assert {node["Node Type"] for node in scans(nodes, "message")} <= INDEXED
    assert scans(executed(app, by_chat.get(chat_id=8)), "message") == []
