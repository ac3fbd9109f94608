"""Repair: whatever was damaged in what is kept, answers and all that later answers come from are right again.

Groups that were right are not written: their rows stay where they are.
"""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString

import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import URL, BigInteger, Column, Engine, Integer, MetaData, Numeric, Table

from tallystick import NotKept, Ordered, Tally, UsageError
from tallystick.errors import NotWhole
from tests.commands import ran
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.order_oracle import assert_orders_exact, serves_buckets, small_buckets
from tests.servers import Connection

SETUP: LiteralString = """
CREATE TABLE item (id bigint PRIMARY KEY, place integer, kind text, size integer, price numeric, rate float8);
INSERT INTO item SELECT i, nullif(i % 5, 0), 'k' || nullif(i % 3, 0), i % 7, nullif(i, 9) * 0.25, i / 3.0
FROM generate_series(1, 60) AS i;
"""
DECLARED = {
    "g": "SELECT place, count(*) AS items, sum(price) AS price, avg(rate) AS rate, min(size) AS least,"
    " max(size) FILTER (WHERE price > 2) AS most, count(DISTINCT kind) AS kinds FROM item GROUP BY place",
    "t": "SELECT count(*) AS items, max(size) AS most, count(DISTINCT place) AS places FROM item",
}
# Before the fold of some of them; of the groups 1, 2 and NULL, so that 3 and 4 are right and settled.
WRITES: tuple[LiteralString, ...] = (
    "INSERT INTO item SELECT i, 1 + i % 2, 'x', i % 7, i, i FROM generate_series(101, 110) AS i",
    "DELETE FROM item WHERE id IN (6, 7); UPDATE item SET place = NULL, kind = 'y' WHERE id IN (11, 12)",
)
DAMAGES: dict[str, LiteralString] = {
    "number of rows": "UPDATE tally.g__state SET n = n + 1 WHERE k1 = 1",
    "sum": "UPDATE tally.g__state SET a1 = a1 + 0.5, a2 = 3 WHERE k1 = 2 OR k1 IS NULL",
    "least": "UPDATE tally.g__state SET m1 = -5 WHERE k1 IS NULL; UPDATE tally.g__state SET m2 = NULL WHERE k1 = 1",
    "distinct": "UPDATE tally.g__state SET c1 = 9 WHERE k1 = 1",
    "lost group": "DELETE FROM tally.g__state WHERE k1 IS NULL OR k1 = 2",
    "group of nothing": "UPDATE tally.g__state SET k1 = 99 WHERE k1 = 1",
    "lost delta": "DELETE FROM tally.g__delta WHERE k1 = 1",
    "delta of nothing": "UPDATE tally.g__delta SET k1 = 77 WHERE k1 IS NULL",
    "values lost": "DELETE FROM tally.g__facet1 WHERE k1 = 2",
    "values counted wrongly": "UPDATE tally.g__facet1 SET n = n + 5 WHERE k1 = 1",
    "all of it": "DELETE FROM tally.g__state WHERE k1 < 3; DELETE FROM tally.g__facet1 WHERE k1 < 3 OR k1 IS NULL;"
    " DELETE FROM tally.g__delta WHERE k1 < 3",
    "total": "UPDATE tally.t__state SET n = 3, m1 = 1; DELETE FROM tally.t__facet1 WHERE v1 = 3",
    "no total": "DELETE FROM tally.t__state; DELETE FROM tally.t__delta",
}
AFTERWARDS: tuple[LiteralString, ...] = (
    "DELETE FROM item WHERE kind = 'x' OR place = 3",
    "UPDATE item SET kind = 'z', size = size + 1 WHERE place = 1",
    "DELETE FROM item",
)
UNTOUCHED: LiteralString = (
    "SELECT tableoid::regclass, ctid, xmin FROM tally.g__state WHERE k1 IN (3, 4)"
    " UNION ALL SELECT tableoid::regclass, ctid, xmin FROM tally.g__facet1 WHERE k1 IN (3, 4) ORDER BY 1, 2"
)
ITEM = Table(
    "item", MetaData(), Column("id", BigInteger, primary_key=True), Column("place", Integer), Column("size", Integer),
    Column("price", Numeric),
)  # fmt: skip


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(SETUP)
    return connection


@pytest.fixture
def tally(app: Connection, engine: Engine) -> Tally:
    """Kept, with folded and unfolded changes."""
    tally = Tally()
    for name, query in DECLARED.items():
        tally.grouped(name, query)
    tally.install(engine)
    tally.backfill(engine)
    app.execute(WRITES[0])
    tally.fold(engine)
    app.execute(WRITES[1])
    return tally


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage(app: Connection, engine: Engine, tally: Tally, damage: LiteralString) -> None:
    untouched = app.execute(UNTOUCHED).fetchall()
    assert len(untouched) > 4
    app.execute(damage)
    damaged = _everything(app)
    told = tally.repair(engine, dry_run=True)
    assert _everything(app) == damaged
    done = tally.repair(engine)
    assert [(each.groups, each.changes) for each in told] == [(each.groups, each.changes) for each in done]
    assert sum(each.groups for each in done) > 0
    assert_exact(engine, tally)
    assert app.execute(UNTOUCHED).fetchall() == untouched
    assert [(each.groups, each.changes) for each in tally.repair(engine)] == [(0, ()), (0, ())]
    for write in AFTERWARDS:
        app.execute(write)
        assert_exact(engine, tally)
        tally.fold(engine)
        assert_exact(engine, tally)
    assert [each.groups for each in tally.repair(engine)] == [0, 0]


def test_changes_are_told(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute("UPDATE tally.g__state SET n = n + 7 WHERE k1 = 3; DELETE FROM tally.g__state WHERE k1 = 4")
    (found,) = tally.repair(engine, only=["g"])
    rows = app.execute("SELECT place, count(*), min(size) FROM item WHERE place > 2 GROUP BY place").fetchall()
    direct = {place: (items, least) for place, items, least in rows}
    changes = [(each.group, each.measure, each.was, each.is_) for each in found.changes]
    assert found.groups == 2
    assert ({"place": 3}, "items", direct[3][0] + 7, direct[3][0]) in changes
    assert ({"place": 4}, "items", None, direct[4][0]) in changes
    assert ({"place": 4}, "least", None, direct[4][1]) in changes
    assert {group["place"] for group, *_ in changes} == {3, 4}
    what = app.execute("SELECT detail FROM tally.event WHERE what = 'repair'").fetchall()
    assert what == [({"groups": 2, "drifted": 2},)]


def test_rolled_back_stays_rolled_back(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.rollback(engine)
    app.execute("UPDATE tally.g__state SET n = n + 7 WHERE k1 = 3")
    tally.repair(engine)
    assert {each.serving for each in tally.status(engine)} == {"direct"}
    assert {each.serving for each in tally.resume(engine)} == {"kept"}
    assert_exact(engine, tally)


def test_what_must_come_before(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute("TRUNCATE item")
    with pytest.raises(NotKept, match="has not been folded yet") as caught:
        tally.repair(engine)
    assert caught.value.hint == "Run: tally fold g && tally repair g"
    tally.fold(engine)
    assert [each.groups for each in tally.repair(engine)] == [0, 0]
    other = Tally()
    other.grouped("late", "SELECT kind, count(*) AS n FROM item GROUP BY kind")
    other.counter("visits")
    other.install(engine)
    with pytest.raises(NotKept, match="is not backfilled"):
        other.repair(engine)
    with pytest.raises(UsageError, match="is written by hand"):
        other.repair(engine, only=["visits"])


def test_partitions(app: Connection, engine: Engine) -> None:
    app.execute(
        "CREATE TABLE event (id bigint, k integer) PARTITION BY LIST (k);"
        " CREATE TABLE event1 PARTITION OF event FOR VALUES IN (1); CREATE TABLE event2 PARTITION OF event DEFAULT;"
        " INSERT INTO event SELECT i, i % 3 FROM generate_series(1, 30) AS i"
    )
    tally = Tally()
    tally.grouped("g", "SELECT k, count(*) AS n, count(DISTINCT id) AS ids, max(id) AS last FROM event GROUP BY k")
    tally.install(engine)
    tally.backfill(engine)
    app.execute("INSERT INTO event VALUES (40, 1), (41, 2), (42, NULL)")
    app.execute("UPDATE tally.g__state SET n = 5; DELETE FROM tally.g__delta WHERE k1 = 1")
    assert [each.groups for each in tally.repair(engine)] == [3]
    assert_exact(engine, tally)
    app.execute("CREATE TABLE event7 PARTITION OF event FOR VALUES IN (7)")
    with pytest.raises(NotWhole) as caught:
        tally.repair(engine)
    assert caught.value.hint == "Run: tally fold g && tally repair g"


def test_mirror(app: Connection, engine: Engine) -> None:
    app.execute(
        "CREATE TABLE place (id integer PRIMARY KEY, items bigint); INSERT INTO place SELECT generate_series(1, 4)"
    )
    place = Table("place", MetaData(), Column("id", Integer, primary_key=True), Column("items", BigInteger))
    tally = Tally()
    query = "SELECT place, count(*) AS items FROM item WHERE place IS NOT NULL GROUP BY place"
    tally.grouped("g", query, mirror={"items": place.c["items"]})
    tally.install(engine)
    tally.backfill(engine)
    app.execute("UPDATE tally.g__state SET n = 0 WHERE k1 = 2; UPDATE place SET items = 0 WHERE id = 2")
    tally.repair(engine)
    counted = app.execute("SELECT place, count(*) FROM item WHERE place IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall()
    assert app.execute("SELECT id, items FROM place ORDER BY 1").fetchall() == counted


@pytest.fixture
def ordered(app: Connection, engine: Engine) -> Iterator[Tally]:
    tally = Tally()
    tally.ordered("o", ITEM, namespace=[ITEM.c.place], key=[ITEM.c.size.desc()], sums={"worth": ITEM.c.price})
    with small_buckets():
        tally.install(engine)
        tally.backfill(engine)
        app.execute(WRITES[0])
        tally.fold(engine)
        app.execute(WRITES[1])
        yield tally


BUCKETS: dict[str, LiteralString] = {
    "lowest": "UPDATE tally.o__bucket SET n = n + 1 WHERE level = 1 AND k1 = 1",
    "above": "UPDATE tally.o__bucket SET n = n - 1, a2 = a2 + 0.5 WHERE level = 2 AND k1 < 3",
    "every": "UPDATE tally.o__bucket SET n = level, a1 = 7 WHERE k1 < 3",
    "lost delta": "DELETE FROM tally.o__delta",
    "lost place": "DELETE FROM tally.o__bucket AS b WHERE level = 1 AND NOT EXISTS (SELECT FROM tally.o__bucket AS u"
    " WHERE u.level = 2 AND (u.k1, u.k2, u.k3) = (b.k1, b.k2, b.k3)) AND b.k1 = 2",
}
BEYOND_REPAIR: dict[str, LiteralString] = {
    "no number that is added makes it right": "UPDATE tally.o__bucket SET a2 = 'NaN' WHERE k1 = 2 AND level = 1",
    "places that stand in a higher level alone": "DELETE FROM tally.o__bucket AS b USING tally.o__bucket AS u"
    " WHERE b.level = 1 AND u.level = 2 AND (u.k1, u.k2, u.k3) = (b.k1, b.k2, b.k3) AND b.k1 < 3",
}


def totals_of(app: Connection) -> dict[tuple[str, ...], list[Decimal]]:
    """Of every bucket, by its level and place."""
    found = app.execute("SELECT height::text || place, kept FROM tally.o__check()").fetchall()
    return {tuple(bucket): kept for bucket, kept in found}


@pytest.mark.parametrize("damage", BUCKETS.values(), ids=BUCKETS)
def test_buckets(app: Connection, engine: Engine, ordered: Tally, damage: LiteralString) -> None:
    rows: LiteralString = "SELECT ctid, xmin, level FROM tally.o__bucket WHERE k1 > 2 ORDER BY 1"
    untouched = app.execute(rows).fetchall()
    assert {level for *_, level in untouched} >= {1, 2}
    app.execute(damage)
    was = totals_of(app)
    (told,) = ordered.repair(engine, dry_run=True)
    (done,) = ordered.repair(engine)
    assert (told.groups, told.changes, told.unit) == (done.groups, done.changes, "buckets")
    assert done.groups == len(done.changes) > 0
    changes = {tuple(map(str, each.group.values())): (each.was, each.is_) for each in done.changes}
    is_ = totals_of(app)
    assert changes == {bucket: (was[bucket], is_[bucket]) for bucket in is_ if was[bucket] != is_[bucket]}
    assert serves_buckets(app, next(each for each in ordered.kept() if isinstance(each, Ordered)))
    assert_orders_exact(engine, ordered)
    if "delta" not in damage:
        assert app.execute(rows).fetchall() == untouched
    assert [each.groups for each in ordered.repair(engine)] == [0]
    for write in AFTERWARDS:
        app.execute(write)
        ordered.fold(engine)
        assert_orders_exact(engine, ordered)


@pytest.mark.parametrize("damage", BEYOND_REPAIR.values(), ids=BEYOND_REPAIR)
def test_what_cannot_be_repaired_is_refused(
    app: Connection, engine: Engine, ordered: Tally, damage: LiteralString
) -> None:
    app.execute(damage)
    damaged = app.execute("SELECT ctid, o FROM tally.o__bucket AS o ORDER BY 1").fetchall()
    assert ordered.verify(engine)[0].status == "drift"
    with pytest.raises(NotKept, match="buckets would still differ; nothing was done") as caught:
        ordered.repair(engine)
    assert caught.value.hint == "Run: tally backfill o --force"
    assert app.execute("SELECT ctid, o FROM tally.o__bucket AS o ORDER BY 1").fetchall() == damaged
    ordered.backfill(engine, force=True)
    assert_orders_exact(engine, ordered)


def test_command(
    app: Connection, engine: Engine, tally: Tally, database: URL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("TALLY_DSN", database.render_as_string(hide_password=False))
    monkeypatch.chdir(tmp_path)
    app.execute("UPDATE tally.g__state SET n = n + 7 WHERE k1 = 3")
    dry = ran(capsys, "repair", "--dry-run")
    assert "g: 1 group would be written anew" in dry.out
    assert "t: nothing to repair" in dry.out
    assert ran(capsys, "verify").code == 1
    done = ran(capsys, "repair", "g", "--json")
    (report,) = done.json["aggregates"]
    assert (done.code, report["name"], report["groups"]) == (0, "g", 1)
    change = {"group": {"place": 3}, "measure": "items", "was": 19, "is": 12}
    assert change in report["changes"]
    assert [line for line in dry.out.splitlines() if "place 3" in line and "19" in line and "12" in line]
    assert ran(capsys, "verify").code == 0


def _everything(app: Connection) -> list[Any]:
    tables = ("g__state", "g__delta", "g__facet1", "t__state", "t__delta", "t__facet1")
    query = SQL("SELECT ctid, xmin, o FROM {} AS o ORDER BY 1")
    return [app.execute(query.format(Identifier("tally", table))).fetchall() for table in tables]
