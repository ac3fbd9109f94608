"""Installations of every earlier layout are brought to the present one, and are then what a fresh install makes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, LiteralString

import pytest
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool

from tallystick import Tally
from tallystick.errors import InstallError, UsageError
from tallystick.maintain.upgrade import upgrade
from tallystick.store.aggregates import LAYOUT_VERSION
from tests.commands import ran
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.servers import Connection, Server
from tests.upgrade.catalog import catalog_of
from tests.upgrade.install import DEPENDENT, SOURCE, declared

LAYOUTS = range(1, LAYOUT_VERSION)
WRITES = "INSERT INTO sale SELECT i, i % 4 + 1, 'after', i % 9, 4.5, 0.5 FROM generate_series({0}, {0} + 9) AS s (i)"


def installed(layout: int) -> Tally:
    """What a fixture holds: mirrors and orders came with layout 3, counters with layout 2."""
    return declared(counters=layout >= 2, orders=layout >= 3)


ORDERED = """
SELECT shop, n, size, first FROM (
    SELECT shop, count(*) AS n, coalesce(sum(size), 0) AS size, (array_agg(id ORDER BY price DESC, id))[1] AS first
    FROM sale WHERE shop IS NOT NULL AND price IS NOT NULL GROUP BY shop
) AS s
WHERE (n, size, first, n - 1) IS DISTINCT FROM (
    tally.{0}_count(shop), tally.{0}_sum_size(shop), (SELECT id FROM tally.{0}_at(shop, 0)),
    tally.{0}_rank_of((SELECT id FROM sale AS l WHERE l.shop = s.shop ORDER BY price, id DESC LIMIT 1))
)
"""
VISITS: LiteralString = """
SELECT FROM (SELECT jsonb_object_agg(key, count) AS found FROM tally.visits) AS v
WHERE found IS DISTINCT FROM jsonb_build_object('a', 8, 'b', 4)
"""

BY_SHOP: LiteralString = """
SELECT shop, count(*), sum(price), min(size), max(size), count(DISTINCT item) FROM sale WHERE size > 1
GROUP BY shop ORDER BY shop
"""
OWNED: LiteralString = """
SELECT CASE relkind WHEN 'v' THEN 'VIEW ' ELSE 'TABLE ' END || oid::regclass FROM pg_class
WHERE relkind IN ('r', 'v') AND relnamespace IN ('tally'::regnamespace, 'public'::regnamespace)
UNION ALL SELECT 'SEQUENCE tally.epoch'
UNION ALL SELECT 'FUNCTION ' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'tally'::regnamespace
"""


class Stopped(Exception):
    """The upgrade ends here, as if its process had been killed."""


def wrong(connection: Connection, tally: Tally) -> list[Any]:
    """Rows by which what readers are given differs from the declared queries, in the connection's snapshot."""
    found: list[Any] = []
    for aggregate in tally:
        # Sums of floating point depend on the order of rows: the direct view defines them.
        query = "TABLE tally.by_item__direct" if aggregate.name == "by_item" else aggregate.definition
        ways = "(TABLE tally.{0} EXCEPT ALL ({1})) UNION ALL (({1}) EXCEPT ALL TABLE tally.{0})"
        found += connection.execute(ways.format(aggregate.name, query).encode()).fetchall()
    for name in tally.orders:
        found += connection.execute(ORDERED.format(name).encode()).fetchall()
    if tally.counters:
        found += connection.execute(VISITS).fetchall()
    return found


@pytest.fixture(params=LAYOUTS, ids=lambda layout: f"layout{layout}")
def layout(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def template(server: Server, layout: int) -> str:
    """A restored dump of what the code of that layout installed."""
    dump = Path(__file__).with_name(f"layout{layout}.sql")

    def restore(connection: Connection) -> None:
        connection.execute(dump.read_bytes())

    return server.template(f"layout{layout}", restore)


@pytest.fixture
def app(connect: Connect) -> Connection:
    return connect(autocommit=True)


@pytest.fixture
def fresh(server: Server, layout: int) -> Iterator[Connection]:
    """A database in which the same was installed by the present code."""
    name = server.create_database(server.template("empty"))
    with server.connect(name, autocommit=True) as connection:
        connection.execute(SOURCE)
        engine = create_engine(server.url(name), poolclass=NullPool)
        installed(layout).install(engine)
        connection.execute(DEPENDENT)
        yield connection
    server.drop_database(name)


def test_what_is_there_is_what_a_fresh_install_makes(
    app: Connection, engine: Engine, layout: int, fresh: Connection
) -> None:
    installed(layout).upgrade(engine)
    assert catalog_of(app) == catalog_of(fresh)


def test_reads_are_exact_at_every_step_of_an_upgrade_that_is_stopped_at_each(
    app: Connection, connect: Connect, engine: Engine, layout: int
) -> None:
    """Somebody writes and reads before each step; run again, it goes on."""
    tally, reader, first_ids = installed(layout), connect(autocommit=True), count(1000, 10)
    kept = [aggregate.name for aggregate in tally.kept()]
    old = connect()
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT 1")  # takes the snapshot, and locks nothing
    assert not wrong(reader, tally)

    for stop_at in count():
        steps = count()

        def step(_: str, steps: Iterator[int] = steps, stop_at: int = stop_at) -> None:
            app.execute(WRITES.format(next(first_ids)).encode())
            assert not wrong(reader, tally)
            if next(steps) == stop_at:
                raise Stopped

        try:
            tally.upgrade(engine, told=step)
        except Stopped:
            continue
        break
    assert stop_at > len(kept) + 1
    assert tally.upgrade(engine).aggregates == ()
    assert not wrong(reader, tally)

    tally.backfill(engine, only=kept)
    app.execute(WRITES.format(next(first_ids)).encode())
    assert not wrong(old, tally), "a snapshot from before the upgrade"
    assert not wrong(reader, tally)
    assert_exact(engine, tally)
    tally.fold(engine)
    assert all(report.is_exact for report in tally.verify(engine, only=kept))
    assert not wrong(reader, tally)
    if layout >= 3:
        copies = "SELECT id, coalesce(orders, 0), total FROM shop ORDER BY id"
        right = (
            "SELECT id, (SELECT count(*) FROM sale WHERE shop = s.id), (SELECT sum(price) FROM sale WHERE shop = s.id)"
        )
        assert app.execute(copies).fetchall() == app.execute(f"{right} FROM shop AS s ORDER BY id".encode()).fetchall()


def test_views_and_rights_of_others_stay(
    app: Connection, connect: Connect, database: URL, engine: Engine, layout: int, make_role: Callable[[], str]
) -> None:
    role = make_role()
    reads = "EXECUTE ON FUNCTION tally.by_price_count TO" if layout >= 3 else "SELECT ON tally.totals TO"
    views = "SELECT ON tally.by_shop, tally.by_shop__front, tally.by_shop__rest, report TO"
    for grant in ("USAGE ON SCHEMA tally TO", views, reads):
        app.execute(f"GRANT {grant} {role}".encode())
    installed(layout).upgrade(engine)
    reader = connect(role=role)
    assert reader.execute("TABLE tally.by_shop ORDER BY shop").fetchall() == app.execute(BY_SHOP).fetchall()
    top = installed(layout)["by_shop"].top("n", 7)
    with create_engine(database.set(username=role), poolclass=NullPool).connect() as of_reader:
        assert sorted(of_reader.execute(top).all(), key=str) == sorted(app.execute(BY_SHOP).fetchall(), key=str)
    counted = "SELECT count(*) FROM sale WHERE size > 1"
    assert reader.execute("SELECT sum(n) FROM report").fetchall() == app.execute(counted).fetchall()
    if layout >= 3:
        counted = "SELECT count(*) FROM sale WHERE shop = 1"
        assert reader.execute("SELECT tally.by_price_count(1)").fetchall() == app.execute(counted).fetchall()


def test_what_others_have_built_on_inner_objects_is_listed_before_anything_is_changed(
    app: Connection, engine: Engine, layout: int
) -> None:
    app.execute("CREATE VIEW peek AS SELECT count(*) FROM tally.by_shop__state")
    app.execute("CREATE VIEW switch AS SELECT name, serving FROM tally.aggregate")
    before = catalog_of(app)
    with pytest.raises(InstallError, match=r"view peek, view switch\. Nothing was changed\. .*tally upgrade"):
        installed(layout).upgrade(engine)
    assert catalog_of(app) == before
    app.execute("DROP VIEW peek, switch")
    assert installed(layout).upgrade(engine).before == layout


def test_two_at_once_share_the_work(app: Connection, engine: Engine, layout: int, fresh: Connection) -> None:
    tally = installed(layout)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(tally.upgrade, engine) for _ in range(2)]
        assert {run.result().after for run in runs} == {LAYOUT_VERSION}
    assert catalog_of(app) == catalog_of(fresh)
    assert app.execute("SELECT count(*) FROM tally.event WHERE what = 'upgrade'").fetchone() == (1,)
    assert not wrong(app, tally)


def test_writers_go_on(app: Connection, connect: Connect, engine: Engine, layout: int) -> None:
    """Writers neither fail nor wait for as long as a lock may be asked for, and each of their rows is counted."""
    tally, is_done = installed(layout), Event()

    def write(first: int) -> int:
        session = connect(autocommit=True)
        session.execute("SET lock_timeout = '5s'")
        for number in count(first):
            session.execute("INSERT INTO sale VALUES (%s, %s, 'busy', 5, 1.25, 0.5)", [number, number % 6 + 1])
            if is_done.is_set():
                return number - first + 1
        raise AssertionError

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, first) for first in (100_000, 200_000)]
        try:
            tally.upgrade(engine)
            tally.backfill(engine)
        finally:
            is_done.set()
        written = sum(writer.result() for writer in writers)
    assert app.execute("SELECT n FROM tally.by_item WHERE item = 'busy'").fetchone() == (written,)
    assert not wrong(app, tally)


def test_declarations_that_the_database_does_not_tell_are_asked_for(engine: Engine, layout: int) -> None:
    result = upgrade(engine, "tally") if layout < 3 else None
    if layout >= 3:
        with pytest.raises(UsageError, match=r"by_price, copied .*--app"):
            upgrade(engine, "tally")
        result = upgrade(engine, "tally", installed(layout).kept())
    assert result is not None
    assert result.aggregates == tuple(sorted(each.name for each in installed(layout).kept()))


def test_commands_name_the_upgrade(
    database: URL, layout: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TALLY_DSN", database.render_as_string(hide_password=False))
    app = f"tests.upgrade.applications:layout{layout}"
    told = ran(capsys, "doctor", "--json")
    what = f"has layout {layout}, this version works with {LAYOUT_VERSION}"
    finding = {"level": "error", "subject": "tally", "what": what, "remedy": "tally upgrade"}
    assert (told.code, told.json["findings"]) == (1, [finding])
    for command in (["status"], ["backfill"], ["plan", "--app", app], ["install", "--app", app]):
        told = ran(capsys, *command)
        assert told.code == 1
        assert f"layout {layout}, this version works with {LAYOUT_VERSION}.\nRun: tally upgrade" in told.err
    done = ran(capsys, "upgrade", "--app", app, "--json")
    assert (done.code, done.json["before"], done.json["after"]) == (0, layout, LAYOUT_VERSION)
    assert "already" in ran(capsys, "upgrade", "--app", app).out
    assert ran(capsys, "backfill", "by_shop").code == 0


def test_a_later_layout_is_refused(app: Connection, engine: Engine, layout: int) -> None:
    app.execute("UPDATE tally.layout SET version = %s", [LAYOUT_VERSION + 1])
    before = catalog_of(app)
    with pytest.raises(
        InstallError, match=f"has layout {LAYOUT_VERSION + 1}, this version works with {LAYOUT_VERSION}"
    ):
        installed(layout).upgrade(engine)
    assert catalog_of(app) == before


def test_an_aggregate_whose_source_is_gone_is_left_to_be_uninstalled(
    app: Connection, engine: Engine, layout: int
) -> None:
    app.execute("DROP TABLE sale CASCADE")
    tally = installed(layout)
    assert tally.upgrade(engine).aggregates == ()
    found = {(each.subject, each.what, each.remedy) for each in tally.doctor(engine)}
    gone = {(each.name, "its source table has been dropped", f"tally uninstall {each.name}") for each in tally.kept()}
    assert gone <= found
    tally.uninstall(engine, only=[each.name for each in tally.kept()])
    assert app.execute("SELECT count(*) FROM tally.aggregate").fetchone() == (0,)


def test_what_is_made_belongs_to_who_installed(
    app: Connection, engine: Engine, layout: int, make_role: Callable[[], str]
) -> None:
    """A superuser upgrades: the views that stay must be able to read what is made."""
    role = make_role()
    for grant in ("GRANT CREATE, USAGE ON SCHEMA public, tally TO", "ALTER SCHEMA tally OWNER TO"):
        app.execute(f"{grant} {role}".encode())
    for (name,) in app.execute(OWNED).fetchall():
        app.execute(f"ALTER {name} OWNER TO {role}".encode())
    tally = installed(layout)
    tally.upgrade(engine)
    owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'tally'::regnamespace"
    assert app.execute(owners.encode()).fetchall() == [(role,)]
    tally.backfill(engine)
    assert not wrong(app, tally)


def test_doctor_tells_of_an_upgrade_that_was_stopped(engine: Engine, layout: int) -> None:
    tally, waiting = installed(layout), set[str]()

    def stop_before_the_second(text: str) -> None:
        name, _, step = text.partition(": ")
        if step == "installing again":
            waiting.add(name)
            if len(waiting) == 2:
                raise Stopped

    with pytest.raises(Stopped):
        tally.upgrade(engine, told=stop_before_the_second)
    done = min(waiting)
    found = {each.subject: each.remedy for each in tally.doctor(engine) if each.level == "error"}
    assert found == {each.name: "tally upgrade" for each in tally.kept() if each.name != done}
    assert done not in tally.upgrade(engine).aggregates
    assert [each for each in tally.doctor(engine) if each.level == "error"] == []
