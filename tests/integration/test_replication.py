"""Logical replication into a table with aggregates, and what else sets session_replication_role or enables triggers.

The publisher is a server of the newest version, the subscriber the server under test. Once subscribed, a COMMIT at the
publisher returns when the subscriber has applied it: the subscription is the publisher's synchronous standby.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Timer
from typing import LiteralString

import pytest
from psycopg import sql
from psycopg.errors import FeatureNotSupported, ObjectNotInPrerequisiteState
from sqlalchemy import Engine

from tallystick import Tally
from tallystick.errors import MaintenanceRefused, NotWhole
from tallystick.maintain.doctor import Finding
from tests.conftest import RELEASES, Connect
from tests.oracle import Oracle, told
from tests.servers import Connection, Server, Servers

PLAIN: LiteralString = """
CREATE TABLE item (id bigint PRIMARY KEY, kind text, size integer, amount numeric, note text);
"""
PARTITIONED: LiteralString = """
CREATE TABLE item (id bigint PRIMARY KEY, kind text, size integer, amount numeric, note text) PARTITION BY RANGE (id);
CREATE TABLE item_low PARTITION OF item FOR VALUES FROM (MINVALUE) TO (100);
CREATE TABLE item_high PARTITION OF item FOR VALUES FROM (100) TO (MAXVALUE);
"""
ROWS: LiteralString = """
INSERT INTO item SELECT i, CASE WHEN i % 4 > 0 THEN 'k' || i % 4 END, i % 17, i * 0.25, 'note'
FROM generate_series(1, 200) AS s (i);
"""
CHANGES: tuple[LiteralString, ...] = (
    "INSERT INTO item VALUES (301, 'k1', 90, 1.50, 'greatest'), (302, 'new', -5, 0, NULL), (-3, NULL, NULL, NULL, '')",
    "UPDATE item SET note = 'of no aggregate' WHERE id <= 3",
    "UPDATE item SET amount = amount + 1.125, size = size + 1 WHERE id BETWEEN 90 AND 110",
    "UPDATE item SET amount = NULL, size = NULL WHERE id IN (5, 6)",
    "UPDATE item SET kind = 'k2' WHERE id IN (1, 4, 301)",
    "UPDATE item SET kind = NULL WHERE kind = 'new'",
    "UPDATE item SET id = id + 200 WHERE id IN (10, 11)",  # to the other partition, where there is one
    "DELETE FROM item WHERE size = 17 OR id = 301",
    "DELETE FROM item WHERE kind = 'k3'",
    "INSERT INTO item SELECT i, 'k3', i, 1, NULL FROM generate_series(500, 520) AS s (i)",
)
LOCAL: LiteralString = "INSERT INTO item VALUES (1001, 'k1', 1000, 1, 'local')"
EMPTIED: LiteralString = """
INSERT INTO item VALUES (800, 'gone', 1, 1, NULL); TRUNCATE item;
INSERT INTO item VALUES (7, 'k1', 3, 1, NULL), (700, NULL, 4, 2.5, NULL);
"""
SYNCHRONIZED: LiteralString = """
DO $$
BEGIN
    FOR attempt IN 1..1200 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r');
        PERFORM pg_sleep(0.05);
    END LOOP;
END
$$
"""
SETTINGS = """
wal_level = logical
synchronous_standby_names = 'subscribed'
logical_decoding_work_mem = 64kB
"""
BY_KIND = """
SELECT kind, count(*) AS n, sum(amount) AS total, min(size) AS least, max(size) AS most, count(DISTINCT size) AS sizes
FROM item GROUP BY kind
"""
ALL = "SELECT count(*) AS n, max(amount) AS most, count(DISTINCT kind) AS kinds FROM item"
CONTENTS: LiteralString = "SELECT * FROM item ORDER BY id"


@dataclass
class Kept:
    """The aggregates over the subscriber's item."""

    tally: Tally
    engine: Engine
    oracle: Oracle

    def check(self) -> None:
        found = self.oracle.differences()
        assert not found, told(found)

    def check_and_fold(self) -> None:
        """Exact before and after a fold that has something to do, and served by the kept half."""
        assert {status.serving for status in self.tally.status(self.engine)} == {"kept"}
        self.check()
        assert all(result.deltas > 0 for result in self.tally.fold(self.engine))
        self.check()
        assert all(report.is_exact for report in self.tally.verify(self.engine))

    def errors(self) -> list[Finding]:
        return [finding for finding in self.tally.doctor(self.engine) if finding.level == "error"]


Keep = Callable[..., Kept]


@pytest.fixture(scope="session")
def publisher() -> Iterator[Server]:
    """A server of the newest version that publishes, with nothing on it."""
    running = Servers()
    try:
        server = running.get(RELEASES[0])
        with (server.cluster.data / "postgresql.conf").open("a") as configuration:
            configuration.write(SETTINGS)
        server.cluster.halt()
        server.cluster.ensure()
        yield server
    finally:
        running.close()


@pytest.fixture
def subscriber(connect: Connect) -> Connection:
    return connect(autocommit=True)


@pytest.fixture
def keep(subscriber: Connection, engine: Engine, connect: Connect) -> Keep:
    """Run a script at the subscriber, then install and backfill."""

    def start(script: LiteralString = "SELECT") -> Kept:
        subscriber.execute(script)
        tally = Tally()
        tally.grouped("by_kind", BY_KIND)
        tally.grouped("all", ALL)
        tally.install(engine)
        tally.backfill(engine)
        return Kept(tally, engine, Oracle(connect(autocommit=True), tally))

    return start


@pytest.fixture
def upstream(publisher: Server) -> Iterator[Connection]:
    """A connection to a database of the publisher that is the test's own."""
    name = publisher.create_database("template1")
    with publisher.connect(name, autocommit=True) as connection:
        yield connection
    publisher.drop_database(name)


@dataclass
class Subscription:
    upstream: Connection
    subscriber: Connection

    def execute(self, statement: LiteralString) -> None:
        """Run a statement at the publisher, and return when it is applied, or in a minute, for the test to fail."""
        timer = Timer(60, self.upstream.cancel)
        timer.start()
        try:
            self.upstream.execute(statement)
        finally:
            timer.cancel()

    def is_equal(self) -> bool:
        return self.upstream.execute(CONTENTS).fetchall() == self.subscriber.execute(CONTENTS).fetchall()


Subscribe = Callable[..., Subscription]


@pytest.fixture(scope="session")
def impatient(server: Server) -> Iterator[None]:
    """The server under test starts a subscription's worker at once; else version 15 starts one in 5 s."""
    with server.connect(autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET wal_retrieve_retry_interval = '10ms'")
        connection.execute("SELECT pg_reload_conf()")
        yield
        connection.execute("ALTER SYSTEM RESET wal_retrieve_retry_interval")
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
def subscribe(publisher: Server, upstream: Connection, subscriber: Connection, impatient: None) -> Iterator[Subscribe]:
    """Subscribe to the publisher's item, given options of publication and subscription; ends with the test."""

    def start(
        published: LiteralString = "publish_via_partition_root = false", options: LiteralString = "copy_data = false"
    ) -> Subscription:
        upstream.execute(sql.SQL("CREATE PUBLICATION published FOR TABLE item WITH ({})").format(sql.SQL(published)))
        at = f"host={publisher.cluster.data} port=5432 user=postgres dbname={upstream.info.dbname}"
        create = sql.SQL("CREATE SUBSCRIPTION subscribed CONNECTION {} PUBLICATION published WITH ({})")
        subscriber.execute(create.format(at, sql.SQL(options)))
        subscriber.execute(SYNCHRONIZED)
        upstream.execute("SET synchronous_commit = remote_apply")
        return Subscription(upstream, subscriber)

    yield start
    subscriber.execute("DROP SUBSCRIPTION IF EXISTS subscribed")


def test_initial_synchronization(
    upstream: Connection, subscriber: Connection, keep: Keep, subscribe: Subscribe
) -> None:
    """Rows that the publisher has already are copied into a table whose aggregates are kept already."""
    upstream.execute(PLAIN + ROWS)
    kept = keep(PLAIN + LOCAL)
    subscription = subscribe(options="copy_data = true")
    assert subscriber.execute("SELECT n FROM tally.all").fetchall() == [(201,)]
    kept.check_and_fold()
    subscription.execute(CHANGES[0])
    assert subscriber.execute("SELECT n FROM tally.all").fetchall() == [(204,)]
    kept.check_and_fold()


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
@pytest.mark.parametrize("source", ["plain", "root", "leaves"])
def test_changes(
    upstream: Connection, subscriber: Connection, keep: Keep, subscribe: Subscribe,
    source: str, identity: LiteralString,
) -> None:  # fmt: skip
    """Every kind of change, into a table, a partitioned table as a whole, and its partitions by their own names."""
    script = PLAIN if source == "plain" else PARTITIONED
    tables: tuple[LiteralString, ...] = ("item",) if source == "plain" else ("item", "item_low", "item_high")
    for at in (upstream, subscriber):
        at.execute(script + ROWS)
        for table in tables:
            at.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(sql.SQL(table), sql.SQL(identity)))
    kept = keep()
    subscription = subscribe(f"publish_via_partition_root = {'true' if source == 'root' else 'false'}")
    for change in CHANGES:
        subscription.execute(change)
        kept.check()
    assert subscription.is_equal()
    kept.check_and_fold()

    subscription.execute(EMPTIED)
    assert subscription.is_equal()
    kept.check()
    if source == "leaves":  # each partition arrives truncated by itself
        assert all(len(status.uncounted) == 2 for status in kept.tally.status(kept.engine))
        with pytest.raises(NotWhole, match="was truncated by itself"):
            kept.tally.fold(kept.engine)
        kept.tally.backfill(kept.engine, force=True)
        subscription.execute("DELETE FROM item WHERE id = 7")
    kept.check_and_fold()


@pytest.mark.parametrize("script", [PLAIN, PARTITIONED], ids=["plain", "partitioned"])
def test_local_writes_beside(
    upstream: Connection, subscriber: Connection, keep: Keep, subscribe: Subscribe, script: LiteralString
) -> None:
    """The subscriber's own writes, before, between and after those that are applied, each counted once."""
    for at in (upstream, subscriber):
        at.execute(script + ROWS)
    kept = keep()
    subscription = subscribe()
    for number, change in enumerate(CHANGES):
        subscription.execute(change)
        subscriber.execute("INSERT INTO item VALUES (%s, 'local', %s, 1, NULL)", [-100 - number, number])
        subscriber.execute("UPDATE item SET kind = 'mine', note = 'n' WHERE id = %s", [20 + number])
        subscriber.execute("DELETE FROM item WHERE id = %s", [40 + number])
        kept.check()
        if number % 4 == 3:
            kept.check_and_fold()
    assert subscriber.execute("SELECT n FROM tally.by_kind WHERE kind = 'local'").fetchall() == [(len(CHANGES),)]
    subscription.execute("TRUNCATE item") if script == PLAIN else subscriber.execute("TRUNCATE item")
    subscriber.execute("INSERT INTO item VALUES (1, 'local', 1, 1, NULL)")
    subscription.execute("INSERT INTO item VALUES (-1, 'remote', 1, 1, NULL)")
    assert subscriber.execute("SELECT n FROM tally.all").fetchall() == [(2,)]
    kept.check_and_fold()


def test_a_table_of_another_owner(
    upstream: Connection, subscriber: Connection, keep: Keep, subscribe: Subscribe, make_role: Callable[[], str]
) -> None:
    """From version 16 on changes are applied with the rights of the table's owner, who has none to the aggregates."""
    for at in (upstream, subscriber):
        at.execute(PLAIN + ROWS)
    subscriber.execute(sql.SQL("ALTER TABLE item OWNER TO {}").format(sql.Identifier(make_role())))
    kept = keep()
    subscription = subscribe()
    for change in CHANGES:
        subscription.execute(change)
    kept.check_and_fold()
    subscription.execute(EMPTIED)
    assert subscription.is_equal()
    kept.check_and_fold()


def test_a_streamed_transaction(
    server: Server, upstream: Connection, subscriber: Connection, keep: Keep, subscribe: Subscribe
) -> None:
    """A transaction that is sent while it runs, a part of it rolled back; from version 16 on a worker applies it."""
    for at in (upstream, subscriber):
        at.execute(PLAIN + ROWS)
    kept = keep()
    how = "parallel" if server.release.major >= 16 else "on"
    subscription = subscribe(options=f"copy_data = false, streaming = {how}")
    subscription.execute("""
        BEGIN;
        INSERT INTO item SELECT i, 'bulk', i, 1, NULL FROM generate_series(1001, 4000) AS s (i);
        SAVEPOINT half;
        INSERT INTO item SELECT i, 'void', i, 1, NULL FROM generate_series(4001, 6000) AS s (i);
        ROLLBACK TO half;
        UPDATE item SET kind = 'moved', size = -1 WHERE id BETWEEN 1501 AND 2500;
        DELETE FROM item WHERE id BETWEEN 2001 AND 3000;
        COMMIT
    """)
    assert subscription.is_equal()
    found = subscriber.execute("SELECT kind, n FROM tally.by_kind WHERE n > 300 ORDER BY kind").fetchall()
    assert found == [("bulk", 1500), ("moved", 500)]
    kept.check_and_fold()


@pytest.mark.parametrize("script", [PLAIN, PARTITIONED], ids=["plain", "partitioned"])
def test_a_session_that_replays(subscriber: Connection, keep: Keep, script: LiteralString) -> None:
    """session_replication_role = replica in an ordinary session, changed within a transaction too."""
    kept = keep(script + ROWS)
    subscriber.execute("SET session_replication_role = replica")
    for change in CHANGES:
        subscriber.execute(change)
        kept.check()
    with subscriber.cursor().copy("COPY item (id, kind, size) FROM STDIN") as copy:
        copy.write(b"900\tcopied\t7\n901\tk1\t\\N\n")
    subscriber.execute("INSERT INTO item VALUES (900, 'x', 1), (902, 'x', 1) ON CONFLICT (id) DO UPDATE SET size = 99")
    subscriber.execute(
        "MERGE INTO item USING (VALUES (900), (901), (903)) AS m (id) ON item.id = m.id"
        " WHEN MATCHED AND item.id = 900 THEN DELETE WHEN MATCHED THEN UPDATE SET kind = 'merged'"
        " WHEN NOT MATCHED THEN INSERT VALUES (m.id, 'merged', 1, 1, NULL)"
    )
    kept.check_and_fold()
    with subscriber.transaction():
        for number, role in enumerate(("origin", "replica", "local", "replica", "origin")):
            subscriber.execute("SELECT set_config('session_replication_role', %s, true)", [role])
            subscriber.execute("INSERT INTO item VALUES (%s, 'mixed', 1)", [950 + number])
            subscriber.execute("DELETE FROM item WHERE id = %s", [120 + number])
    kept.check_and_fold()
    subscriber.execute(EMPTIED)
    assert subscriber.execute("SELECT n FROM tally.all").fetchall() == [(2,)]
    kept.check_and_fold()


@pytest.mark.parametrize("script", [PLAIN, PARTITIONED], ids=["plain", "partitioned"])
def test_triggers_disabled_and_enabled(subscriber: Connection, keep: Keep, script: LiteralString) -> None:
    """Afterwards every trigger fires in ordinary sessions, and only there; doctor names what mends that."""
    kept = keep(script + ROWS)
    assert kept.errors() == []
    subscriber.execute("ALTER TABLE item DISABLE TRIGGER ALL")
    assert {finding.what[-8:] for finding in kept.errors()} == {"disabled"}
    subscriber.execute("ALTER TABLE item ENABLE TRIGGER ALL")
    for change in CHANGES:
        subscriber.execute(change)
        kept.check()
    kept.check_and_fold()

    rows = ("delete_row", "insert_row") if script == PLAIN else ("delete", "insert")
    errors = kept.errors()
    for name in ("by_kind", "all"):
        of_table = [each.what.split('"')[1] for each in errors if each.subject == name and "public.item " in each.what]
        assert sorted(of_table) == [f"tally_{name}__{event}" for event in (*rows, "truncate", "update")]
    for finding in errors:
        assert "does not fire for replicated changes" in finding.what
        subscriber.execute(finding.remedy.partition("; then: ")[0].encode())
    assert kept.errors() == []
    subscriber.execute("SET session_replication_role = replica")
    subscriber.execute(EMPTIED)
    subscriber.execute("UPDATE item SET kind = 'k1' WHERE id = 700")
    subscriber.execute("DELETE FROM item WHERE id < 30")
    kept.check_and_fold()


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("ALTER TABLE whole ATTACH PARTITION item DEFAULT", "becoming a partition"),
        ("ALTER TABLE item INHERIT parent", "becoming an inheritance child"),
    ],
)
def test_a_table_with_aggregates_joins_no_tree(
    subscriber: Connection, keep: Keep, change: LiteralString, refused: str
) -> None:
    """Its statement triggers would miss what is written through the parent; PostgreSQL refuses, and names a trigger."""
    kept = keep(PLAIN + ROWS)
    subscriber.execute("CREATE TABLE parent (LIKE item); CREATE TABLE whole (LIKE item) PARTITION BY LIST (kind)")
    with pytest.raises((FeatureNotSupported, ObjectNotInPrerequisiteState), match=refused) as caught:
        subscriber.execute(change)
    assert 'trigger "tally_all__' in str(caught.value)
    subscriber.execute(CHANGES[0])
    kept.check_and_fold()


def test_a_publication_of_all_tables(subscriber: Connection, keep: Keep) -> None:
    """It takes in our tables too, and PostgreSQL refuses to change rows that it cannot name to a subscriber."""
    kept = keep(PLAIN + ROWS)
    subscriber.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    subscriber.execute(CHANGES[0])
    kept.check()
    for operation in (kept.tally.fold, partial(kept.tally.backfill, force=True)):
        with pytest.raises(MaintenanceRefused, match="publish the schemas of the application instead"):
            operation(kept.engine)
    assert "publication everything takes in our tables" in kept.tally.doctor(kept.engine)[-1].what
    kept.check()
    subscriber.execute("DROP PUBLICATION everything")
    kept.check_and_fold()
