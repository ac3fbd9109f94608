"""Redefine: ordered aggregates, partitioned sources, copies in a parent, and long names."""

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import BigInteger, Column, Engine, Integer, MetaData, Numeric, Table, func, select

from tallystick import RedefinitionRefused, Tally
from tallystick.maintain import source_index
from tests.conftest import Connect
from tests.objects import objects
from tests.oracle import assert_exact
from tests.order_oracle import assert_orders_exact, assert_reads, serves_buckets, small_buckets
from tests.servers import Connection

TABLES: dict[str, LiteralString] = {
    "plain": "CREATE TABLE event (id bigint PRIMARY KEY, kind integer, at integer, price numeric, chat integer)",
    "partitioned": """
        CREATE TABLE event (id bigint PRIMARY KEY, kind integer, at integer, price numeric, chat integer)
            PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF event FOR VALUES FROM (0) TO (60);
        CREATE TABLE high PARTITION OF event FOR VALUES FROM (60) TO (10000)""",
}
FILL: LiteralString = "INSERT INTO event SELECT i, i % 3, i % 17, i * 0.5, i % 5 FROM generate_series(1, 120) AS i"
WRITES: tuple[LiteralString, ...] = (
    "INSERT INTO event SELECT i, i % 4, i % 19, -i, i % 7 FROM generate_series(201, 260) AS i",
    "UPDATE event SET at = at + 5, kind = 1 WHERE id % 7 = 0; UPDATE event SET id = id + 1000 WHERE id % 9 = 0",
    "DELETE FROM event WHERE id % 4 = 1",
    "TRUNCATE event",
    "INSERT INTO event VALUES (1, 1, 1, 1, 1), (2, NULL, 2, 2, 2), (3, 1, NULL, NULL, NULL)",
)
EVENT = Table(
    "event", MetaData(), Column("id", BigInteger, primary_key=True), Column("kind", Integer), Column("at", Integer),
    Column("price", Numeric), Column("chat", Integer), schema="public",
)  # fmt: skip
E = EVENT.c
BEFORE: dict[str, Any] = {"namespace": [E.kind], "key": [E.at], "sums": {"price": E.price}}
KEEPING = {
    "sum added": BEFORE | {"sums": {"price": E.price, "chats": E.chat}},
    "where added": BEFORE | {"where": E.price > 10},
    "direction changed": BEFORE | {"key": [E.at.desc()]},
}
CHANGING = {
    "sum removed": BEFORE | {"sums": {}},
    "sum of another type": BEFORE | {"sums": {"price": E.chat}},
    "namespace removed": BEFORE | {"namespace": []},
    "namespace made key": BEFORE | {"namespace": [], "key": [E.kind, E.at]},
    "key added": BEFORE | {"key": [E.at, E.chat]},
}
MORE = {"sums": {"price": E.price, "chats": E.chat}, "where": E.price > 10}


def ordered(**parts: Any) -> Tally:
    tally = Tally()
    tally.ordered("o", EVENT, **parts)
    return tally


@pytest.fixture(params=list(TABLES.values()), ids=list(TABLES))
def app(connect: Connect, request: pytest.FixtureRequest) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(request.param)
    connection.execute(FILL)
    return connection


@pytest.fixture
def kept(app: Connection, engine: Engine) -> Tally:
    tally = ordered(**BEFORE)
    with small_buckets():
        tally.install(engine)
    tally.backfill(engine)
    return tally


@pytest.mark.parametrize("parts", (KEEPING | CHANGING).values(), ids=KEEPING | CHANGING)
def test_ordered(app: Connection, engine: Engine, kept: Tally, parts: dict[str, Any]) -> None:
    app.execute("DELETE FROM event WHERE id % 10 = 3; UPDATE event SET at = at + 1 WHERE id % 5 = 1")
    tally = ordered(**parts)
    with small_buckets():
        assert tally.redefine(engine)[0].changes
    assert serves_buckets(app, tally.orders["o"])  # at once, not from the next fold on
    assert_orders_exact(engine, tally)
    for write in WRITES:
        app.execute(write)
        assert_orders_exact(engine, tally)
        tally.fold(engine)
        assert_orders_exact(engine, tally)
    assert_reads(engine, tally.orders["o"])
    assert [finding for finding in tally.doctor(engine) if finding.level == "error"] == []
    assert indexes(app) == 1
    assert tally.uninstall(engine) == ["o"]
    assert indexes(app) == 0


class Interrupted(Exception):
    pass


def test_interrupted_before_the_old_index_goes(
    app: Connection, engine: Engine, kept: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next redefinition would give its index the same name."""

    def interrupted(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(source_index, "drop", interrupted)
        with pytest.raises(Interrupted):
            ordered(**CHANGING["key added"]).redefine(engine)
    assert indexes(app) == 2
    tally = ordered(**KEEPING["direction changed"])
    tally.redefine(engine)
    assert indexes(app) == 1
    assert_orders_exact(engine, tally)


def indexes(app: Connection) -> int:
    """Indexes that we have built on the table."""
    query = "SELECT count(*) FROM pg_index WHERE indrelid = 'event'::regclass AND NOT indisprimary"
    return app.execute(query).fetchall()[0][0]


@pytest.mark.parametrize("parts", KEEPING.values(), ids=KEEPING)
def test_grants_and_functions_of_others_stay(
    app: Connection, engine: Engine, kept: Tally, connect: Connect, make_role: Callable[[], str], parts: dict[str, Any]
) -> None:
    role = sql.Identifier(make_role())
    app.execute(sql.SQL("GRANT USAGE ON SCHEMA tally TO {}").format(role))
    app.execute(sql.SQL("GRANT EXECUTE ON FUNCTION tally.o_rank TO {}").format(role))
    app.execute("GRANT EXECUTE ON FUNCTION tally.o_count TO PUBLIC")
    app.execute("CREATE VIEW report AS SELECT tally.o_count(1) AS n")
    tally = ordered(**parts)
    tally.redefine(engine)
    reader = connect(user=role._obj[0], autocommit=True)
    condition = tally.orders["o"].shape.where or "true"
    expected = app.execute(
        sql.SQL("SELECT count(*) FROM public.event WHERE kind = 1 AND at IS NOT NULL AND {}").format(sql.SQL(condition))
    ).fetchall()
    assert reader.execute("SELECT tally.o_count(1)").fetchall() == expected
    assert app.execute("SELECT n FROM report").fetchall() == expected
    reader.execute("SELECT tally.o_rank(1, 3)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT tally.o_rank_of(1)")


@pytest.mark.parametrize("parts", CHANGING.values(), ids=CHANGING)
def test_functions_of_others_upon_parameters_that_go(
    app: Connection, engine: Engine, kept: Tally, parts: dict[str, Any]
) -> None:
    app.execute("CREATE VIEW report AS SELECT tally.o_count(1) AS n")
    before = objects(app)
    with pytest.raises(RedefinitionRefused, match=r"would change under view public\.report\."):
        ordered(**parts).redefine(engine)
    assert objects(app) == before
    assert_orders_exact(engine, kept)


def test_grouped_over_partitions(app: Connection, engine: Engine) -> None:
    tally, other = Tally(), Tally()
    tally.grouped("g", "SELECT kind, count(*) AS n, max(price) AS dearest FROM event GROUP BY kind")
    other.grouped(
        "g", "SELECT kind, count(DISTINCT at) AS ats, count(*) AS n, max(price) AS dearest FROM event GROUP BY kind"
    )
    tally.install(engine)
    tally.backfill(engine)
    for each in (other, tally):
        assert each.redefine(engine)[0].changes
        for write in (*WRITES, "TRUNCATE event", FILL):
            app.execute(write)
            assert_exact(engine, each)
            each.fold(engine)
            assert_exact(engine, each)
    assert tally.uninstall(engine) == ["g"]


PARENT = Table(
    "chat", MetaData(), Column("id", Integer, primary_key=True), Column("n", Integer), Column("total", Numeric)
)
COPIES: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {
    "same column": ({"n": PARENT.c.n}, {"n": PARENT.c.n}),
    "another column": ({"n": PARENT.c.n}, {"price": PARENT.c.total}),
    "added": (None, {"n": PARENT.c.n, "price": PARENT.c.total}),
    "removed": ({"n": PARENT.c.n}, None),
}


@pytest.mark.parametrize(("was", "now"), COPIES.values(), ids=COPIES)
def test_copies_are_written_anew(
    connect: Connect, engine: Engine, was: dict[str, Any] | None, now: dict[str, Any] | None
) -> None:
    app = connect(autocommit=True)
    app.execute(TABLES["plain"])
    app.execute(FILL)
    app.execute("CREATE TABLE chat (id integer PRIMARY KEY, n integer, total numeric)")
    app.execute("INSERT INTO chat (id) SELECT * FROM generate_series(0, 9)")
    query = select(E.chat, func.count().label("n"), func.sum(E.price).label("price")).group_by(E.chat)
    before, after = Tally(), Tally()
    before.grouped("g", query, mirror=was)
    after.grouped("g", query.where(E.kind > 0), mirror=now)
    before.install(engine)
    before.backfill(engine)
    after.redefine(engine)
    app.execute(WRITES[0])
    after.fold(engine)
    assert_exact(engine, after)
    for measure, column in (now or {}).items():
        stale = sql.SQL(
            "SELECT p.id FROM chat AS p LEFT JOIN (SELECT chat, count(*) AS n, sum(price) AS price FROM event"
            " WHERE kind > 0 GROUP BY chat) AS d ON d.chat = p.id WHERE {} IS DISTINCT FROM {}"
        ).format(
            sql.Identifier("p", column.name),
            sql.SQL("coalesce(d.n, 0)" if measure == "n" else "d.price"),
        )
        assert app.execute(stale).fetchall() == []
    after.uninstall(engine)
    assert app.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'g\\_\\_%'").fetchall() == [(0,)]


@pytest.mark.parametrize("name", ["n" * 63, 'a "quoted" naïve%s {name}', "x" * 57])
def test_names(connect: Connect, engine: Engine, name: str) -> None:
    app = connect(autocommit=True)
    app.execute(TABLES["plain"])
    app.execute(FILL)
    tally, other = Tally(schema='my "tally'), Tally(schema='my "tally')
    tally.grouped(name, "SELECT kind, count(*) AS n FROM event GROUP BY kind")
    other.grouped(name, "SELECT kind, count(*) AS n, min(at) AS least FROM event WHERE at > 3 GROUP BY kind")
    tally.install(engine)
    tally.backfill(engine)
    before = objects(app)
    for each in (other, tally):
        assert each.redefine(engine)[0].changes
        app.execute(WRITES[1])
        assert_exact(engine, each)
    assert len(objects(app)) == len(before)
