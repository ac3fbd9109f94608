"""Verify by parts: one after the other and by samples, over keys of all kinds, finds what verify of the whole finds."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import URL, BigInteger, Column, Engine, Integer, MetaData, Numeric, Table

from tallystick import Tally
from tallystick.maintain import verify as verifying
from tallystick.maintain.audit import audit_step
from tallystick.maintain.verify import VerifyReport
from tallystick.store import aggregates, audit
from tallystick.store.connection import transaction
from tests.commands import Ran, ran
from tests.conftest import Connect
from tests.order_oracle import small_buckets
from tests.servers import Connection

# Key columns: their types, and 40 rows' values out of i.
KEYS: dict[str, tuple[LiteralString, LiteralString]] = {
    "integer": ("k integer", "nullif(i % 9, 0)"),
    "numeric of unlike spelling": (
        "k numeric",
        "CASE i % 8 WHEN 0 THEN NULL WHEN 1 THEN 'NaN' WHEN 2 THEN 1.0 WHEN 3 THEN 1.00 ELSE i % 8 - 5.5 END",
    ),
    "double": ("k float8", "CASE i % 6 WHEN 0 THEN '-0' WHEN 1 THEN 0 WHEN 2 THEN 'infinity' ELSE i % 6 / 3.0 END"),
    "text": ("k text", "CASE WHEN i % 7 > 0 THEN repeat(chr(96 + i % 7), i % 3) || '''%{}\\\"' END"),
    "text without case": ("k text COLLATE nocase", "CASE WHEN i % 2 = 0 THEN chr(97 + i % 8) ELSE chr(64 + i % 8) END"),
    "wide text": ("k text", "CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN repeat('w', 2500 + i % 8) ELSE 'n' || i % 4 END"),
    "timestamptz and date": (
        "k timestamptz, d date",
        "timestamptz '2024-03-01' + i % 5 * interval '13 hours', nullif(date '2024-02-09' + i % 3, '2024-02-10')",
    ),
    "interval": ("k interval", "i % 7 * interval '25 hours 1.5 seconds' - interval '3 days'"),
    "enum": ("k mood", "CASE WHEN i % 4 > 0 THEN (enum_range(NULL::mood))[i % 4] END"),
    "domain": ("k small, l small", "i % 3, nullif(i % 4, 2)"),
    "array": ("k integer[]", "ARRAY[i % 3, nullif(i % 4, 0)]"),
    "uuid and bytea": ("k uuid, b bytea", "md5((i % 6)::text)::uuid, decode(lpad((i % 5)::text, 2, '0'), 'hex')"),
    "padded": ("k character(3), v varchar(5)", "chr(97 + i % 3), nullif(chr(97 + i % 4), 'a')"),
}
NOCASE: LiteralString = "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
TYPES: LiteralString = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN small AS integer CHECK (VALUE < 100);
"""
ITEM = Table(
    "item", MetaData(), Column("id", BigInteger, primary_key=True), Column("place", Integer), Column("price", Numeric)
)  # fmt: skip
TWENTY: LiteralString = """
CREATE TABLE t (i integer PRIMARY KEY, k integer);
INSERT INTO t SELECT i, i % 20 FROM generate_series(1, 100) AS i
"""
DAMAGES: tuple[LiteralString, ...] = (
    "UPDATE tally.g__state SET n = n + 1 WHERE ctid IN (SELECT ctid FROM tally.g__state LIMIT 2)",
    "DELETE FROM tally.g__state WHERE ctid = (SELECT min(ctid) FROM tally.g__state)",
)
Run = Callable[..., Ran]


@pytest.fixture
def app(connect: Connect) -> Connection:
    return connect(autocommit=True)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "FIRST_SIZE", 2)


@pytest.mark.parametrize(("columns", "values"), KEYS.values(), ids=KEYS)
def test_parts_find_what_the_whole_finds(
    app: Connection, engine: Engine, small_parts: None, columns: LiteralString, values: LiteralString
) -> None:
    if "nocase" in columns:
        if app.execute("SELECT FROM pg_collation WHERE collname = 'und-x-icu'").fetchone() is None:
            pytest.skip("this server has no ICU")
        app.execute(NOCASE)
    app.execute(TYPES)
    app.execute(SQL("CREATE TABLE t (i integer PRIMARY KEY, {})").format(SQL(columns)))
    fill = SQL("INSERT INTO t SELECT i, {} FROM generate_series({}::integer, {}::integer) AS i")
    app.execute(fill.format(SQL(values), 1, 40))
    names = [row[0] for row in app.execute("SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass"
                                           " AND attnum > 1 ORDER BY attnum").fetchall()]  # fmt: skip
    tally = Tally()
    keys = SQL(", ").join(map(Identifier, names))
    tally.grouped(
        "g", SQL("SELECT {}, count(*) AS n, max(i) AS last FROM t GROUP BY {}").format(keys, keys).as_string()
    )
    tally.install(engine)
    tally.backfill(engine)
    app.execute(fill.format(SQL(values), 41, 60))  # some groups have deltas
    assert _pass(engine, "g") == _whole(engine, "g")
    assert _whole(engine, "g")[1] == []
    for damage in DAMAGES:
        app.execute(damage)
    whole = _whole(engine, "g")
    assert len(whole[1]) == 3
    assert _pass(engine, "g") == whole


def test_parts_of_an_aggregate_without_groups(app: Connection, engine: Engine) -> None:
    app.execute("CREATE TABLE t (i integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 9)")
    tally = Tally()
    tally.grouped("g", "SELECT count(*) AS n FROM t")
    tally.install(engine)
    tally.backfill(engine)
    assert _pass(engine, "g") == (1, [])
    app.execute("UPDATE tally.g__state SET n = 4")
    assert _pass(engine, "g") == _whole(engine, "g")
    (found,) = tally.verify(engine, sample=3)
    assert [drift.diff for drift in found.first] == [{"n": -5}]


@pytest.fixture
def ordered(app: Connection, engine: Engine) -> Iterator[Tally]:
    """Items of several places, in two orders, with buckets in three levels."""
    app.execute(
        "CREATE TABLE item (id bigint PRIMARY KEY, place integer, price numeric);"
        " INSERT INTO item SELECT i, i % 3, nullif(i % 11, 0) * 1.5 FROM generate_series(1, 90) AS i"
    )
    tally = Tally()
    tally.ordered("by_price", ITEM, namespace=[ITEM.c.place], key=[ITEM.c.price.desc()], sums={"worth": ITEM.c.price})
    tally.ordered("by_id", ITEM)
    with small_buckets():
        tally.install(engine)
        tally.backfill(engine)
        yield tally


def test_parts_of_buckets(app: Connection, engine: Engine, ordered: Tally, small_parts: None) -> None:
    app.execute("INSERT INTO item SELECT i, i % 4, i % 7 FROM generate_series(91, 120) AS i")
    for name in ("by_price", "by_id"):
        assert _whole(engine, name)[0] > 20
        assert _pass(engine, name) == _whole(engine, name)
        assert _whole(engine, name)[1] == []
    app.execute(
        "UPDATE tally.by_price__bucket SET n = n + 1 WHERE level = 2 AND k1 = 1;"
        " DELETE FROM tally.by_id__bucket WHERE ctid = (SELECT ctid FROM tally.by_id__bucket WHERE level = 1 LIMIT 1)"
    )
    for name in ("by_price", "by_id"):
        whole = _whole(engine, name)
        assert whole[1]
        assert _pass(engine, name) == whole


AT_A_PLACE: LiteralString = """
CREATE TEMP TABLE chosen AS SELECT k1 AS id FROM tally.by_id__bucket WHERE level = 1
UNION SELECT k3 FROM tally.by_price__bucket WHERE level = 1
"""


@pytest.mark.parametrize(
    "unnoticed",
    [
        "DELETE FROM item WHERE id IN (TABLE chosen)",
        "UPDATE item SET price = price + 1 WHERE id IN (TABLE chosen)",
        "INSERT INTO item SELECT 1000 + id, place, price FROM item WHERE id IN (TABLE chosen)",
        "UPDATE item SET place = 7",
        "DELETE FROM item",
    ],
)
def test_all_in_one_pass_or_each_by_the_index(
    app: Connection, engine: Engine, ordered: Tally, small_parts: None, unnoticed: LiteralString
) -> None:
    """A bucket ends where its place is: what stands there is in the next one, whichever way items are read."""
    app.execute(AT_A_PLACE)
    app.execute("ALTER TABLE item DISABLE TRIGGER USER; " + unnoticed)
    assert _whole(engine, "by_price")[1]
    for name in ("by_price", "by_id"):
        assert _pass(engine, name) == _whole(engine, name)


def test_samples(app: Connection, engine: Engine, ordered: Tally) -> None:
    """As many as there are, and one more for what lies behind the last, are the whole; fewer are as many groups."""
    app.execute(TWENTY)
    ordered.grouped("g", "SELECT k, count(*) AS n FROM t GROUP BY k")
    ordered.install(engine, only=["g"])
    ordered.backfill(engine, only=["g"])
    (few,) = ordered.verify(engine, only=["g"], sample=5)
    assert few.is_exact
    assert few.groups in (4, 5)  # without the end, or with it
    app.execute("DELETE FROM tally.g__state WHERE k1 IN (0, 7, 19); UPDATE tally.by_id__bucket SET n = n + 1")
    for name in ("g", "by_id", "by_price"):
        (found,) = ordered.verify(engine, only=[name], sample=1000)
        assert (found.groups, found.drifted, found.status) == _summary(ordered.verify(engine, only=[name])[0])


def test_a_pass_is_resumed_and_totals_are_of_all_of_it(app: Connection, engine: Engine, small_parts: None) -> None:
    """Parts are made while writers go on, and what was changed since lies in later ones or in earlier ones."""
    app.execute(TWENTY)
    tally = Tally()
    tally.grouped("g", "SELECT k, count(*) AS n FROM t GROUP BY k")
    tally.install(engine)
    tally.backfill(engine)
    app.execute("UPDATE tally.g__state SET n = 0 WHERE k1 = 1")
    first = audit_step(engine, "tally", "g", which="asked")
    assert (first.groups, first.drifted, first.is_last) == (2, 1, False)
    app.execute("UPDATE t SET k = k + 10 WHERE k < 3; INSERT INTO t VALUES (200, -5)")
    tally.fold(engine)
    worker = audit_step(engine, "tally", "g")  # a pass of its own, from the start
    assert (worker.groups, worker.drifted) == (1, 1)
    (report,) = tally.verify(engine, rolling=True)
    assert (report.drifted, report.status, report.first) == (1, "drift", ())
    (again,) = tally.verify(engine, rolling=True)
    assert (again.groups, again.drifted) == (tally.verify(engine)[0].groups, tally.verify(engine)[0].drifted)


def test_two_sessions_in_one_pass(app: Connection, engine: Engine, small_parts: None) -> None:
    """Both have begun with the same part; one of them records it."""
    app.execute("CREATE TABLE t (i integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 9)")
    tally = Tally()
    tally.grouped("g", "SELECT i, count(*) AS n FROM t GROUP BY i")
    tally.install(engine)
    tally.backfill(engine)
    with transaction(engine) as cursor:
        before = audit.progress(cursor, "tally", "g", "worker")
    step = audit_step(engine, "tally", "g")
    assert step.is_stored
    with transaction(engine) as cursor:
        assert not audit.advance(cursor, "tally", "g", "worker", before, before)
        assert audit.progress(cursor, "tally", "g", "worker").position == ["2"]


def test_drift_is_an_event_once_for_each_part_that_has_one(app: Connection, engine: Engine, small_parts: None) -> None:
    app.execute("CREATE TABLE t (i integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 9)")
    tally = Tally()
    tally.grouped("g", "SELECT i, count(*) AS n FROM t GROUP BY i")
    tally.install(engine)
    tally.backfill(engine)
    app.execute("DELETE FROM tally.g__state WHERE k1 IN (3, 4, 8)")
    _pass(engine, "g")
    found = app.execute("SELECT detail FROM tally.event WHERE what = 'drift' ORDER BY id").fetchall()
    assert sum(detail["drifted"] for (detail,) in found) == 3
    tally.uninstall(engine)
    assert app.execute("SELECT count(*) FROM tally.audit").fetchone() == (0,)


def test_a_part_follows_the_time_that_the_last_one_took(app: Connection, engine: Engine) -> None:
    app.execute("CREATE TABLE t (i integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 3000)")
    tally = Tally()
    tally.grouped("g", "SELECT i, count(*) AS n FROM t GROUP BY i")
    tally.install(engine)
    tally.backfill(engine)
    sizes: list[int] = []
    for budget_s in (0.0, 3600.0):
        audit_step(engine, "tally", "g", budget_s=budget_s)
        sizes += app.execute("SELECT size FROM tally.audit").fetchone() or ()
    assert sizes == [500, 1000]


def test_nothing_is_kept_yet(app: Connection, engine: Engine) -> None:
    app.execute("CREATE TABLE t (i integer PRIMARY KEY)")
    tally = Tally()
    tally.grouped("g", "SELECT i, count(*) AS n FROM t GROUP BY i")
    tally.install(engine)
    step = audit_step(engine, "tally", "g")
    assert (step.report.status, step.is_last) == ("building", True)
    assert [report.status for report in tally.verify(engine, rolling=True)] == ["building"]


@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres, MDY"])
def test_positions_outlive_the_settings_of_a_session(
    app: Connection, engine: Engine, small_parts: None, style: LiteralString
) -> None:
    app.execute(
        "CREATE TABLE t (i integer PRIMARY KEY, d timestamptz); INSERT INTO t"
        " SELECT i, timestamptz '2024-02-01 12:00:00.5' + i * interval '1 day' FROM generate_series(1, 30) AS i"
    )
    tally = Tally()
    tally.grouped("g", "SELECT d, count(*) AS n FROM t GROUP BY d")
    tally.install(engine)
    tally.backfill(engine)
    groups, drifts = 0, 0
    for number in range(40):
        setting = SQL("ALTER DATABASE {} SET DateStyle = {}").format(
            Identifier(str(engine.url.database)), style if number % 2 else "ISO"
        )
        app.execute(setting)
        engine.dispose()  # whoever is there keeps the old one
        step = audit_step(engine, "tally", "g", budget_s=0)
        groups, drifts = groups + step.report.groups, drifts + step.report.drifted
        if step.is_last:
            break
    assert (groups, drifts) == (30, 0)


def test_command(
    app: Connection, engine: Engine, database: URL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("TALLY_DSN", database.render_as_string(hide_password=False))
    monkeypatch.chdir(tmp_path)
    app.execute(TWENTY)
    tally = Tally()
    tally.grouped("g", "SELECT k, count(*) AS n, sum(i) AS s FROM t GROUP BY k")
    tally.install(engine)
    tally.backfill(engine)
    assert "g: exact, 20 groups" in ran(capsys, "verify", "--rolling").out
    assert "g: exact, 21 groups" not in ran(capsys, "verify", "--sample", "100").out
    assert ran(capsys, "verify", "--sample", "3", "--rolling").code == 2
    app.execute("UPDATE tally.g__state SET n = n + 3 WHERE k1 < 11; DELETE FROM tally.g__state WHERE k1 = 19")
    shown = ran(capsys, "verify", "--rolling")
    assert shown.code == 1
    assert "g: DRIFT in 12 of 20 groups" in shown.out
    assert "g: drifting groups (first 10 of 12)" in shown.out
    (report,) = ran(capsys, "verify", "g", "--json").json["aggregates"]
    assert (report["groups"], report["drifted"], report["status"], len(report["first"])) == (20, 12, "drift", 10)
    assert report["first"][0]["diff"] == {"n": 3}


def _pass(engine: Engine, name: str) -> tuple[int, list[str]]:
    """Groups, and those that drift, of a pass in the smallest parts."""
    groups, drifts = 0, list[str]()
    while True:
        step = audit_step(engine, "tally", name, budget_s=0)
        assert step.report.groups <= 6
        groups += step.report.groups
        drifts += _told(step.report)
        if step.is_last:
            assert (step.groups, step.drifted) == (groups, len(drifts))
            return groups, sorted(drifts)


def _whole(engine: Engine, name: str) -> tuple[int, list[str]]:
    with transaction(engine, snapshot=True) as cursor:
        report = verifying.compare(cursor, "tally", aggregates.get(cursor, "tally", name), shown=None)
    return report.groups, sorted(_told(report))


def _told(report: VerifyReport) -> list[str]:
    rows: list[Any] = [[drift.group, drift.kept, drift.direct] for drift in report.first]
    return [json.dumps(row, default=str).lower() for row in rows]  # of equal keys, either may be shown


def _summary(report: VerifyReport) -> tuple[int, int, str]:
    return report.groups, report.drifted, report.status
