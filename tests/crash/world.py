"""An application under load with aggregates of every kind over its tables, and what must hold of them after a crash."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Condition, Event
from typing import LiteralString, cast

import psutil  # type: ignore[import-untyped]
import psycopg
from sqlalchemy import BigInteger, Column, Engine, Integer, MetaData, Numeric, Table, Text, Uuid, func, select

from tallystick import FoldLocked, RedefinitionRefused, Tally
from tallystick.embedded import Cluster
from tallystick.errors import ServerUnavailable
from tallystick.store.connection import is_lost, transaction
from tallystick.store.locks import lock_fold
from tests.oracle import assert_exact
from tests.order_oracle import OrderOracle
from tests.servers import Connection

WRITERS = 4
DEADLINE_S = 120.0
# The UNLOGGED table has no sequence: PostgreSQL leaves that of a promoted standby unusable.
TABLES: LiteralString = """
CREATE TABLE chat (id integer PRIMARY KEY, kind text, title text, messages integer, bytes numeric);
INSERT INTO chat SELECT i, 'kind ' || i % 3, 'chat ' || i FROM generate_series(1, 100) AS s (i);
CREATE TABLE message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chat_id integer REFERENCES chat, author text, size integer
);
INSERT INTO message (chat_id, author, size)
SELECT 1 + i % 99, 'author ' || i % 7, i % 50 FROM generate_series(1, 3000) AS s (i);
CREATE UNLOGGED TABLE visit (id uuid DEFAULT gen_random_uuid() PRIMARY KEY, page text, seconds integer);
INSERT INTO visit (page, seconds) SELECT 'page ' || i % 5, i FROM generate_series(1, 500) AS s (i);
CREATE TABLE added (token bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text, n integer);
"""
# A writer changes only rows of its own, so that writers do not deadlock among themselves.
WRITES: tuple[LiteralString, ...] = (
    "INSERT INTO message (chat_id, author, size) SELECT 1 + (%(r)s + i) %% 100, 'author ' || %(r)s %% 9, %(r)s + i"
    " FROM generate_series(1, 3) AS s (i)",
    "UPDATE message SET size = size + 1 WHERE id %% %(writers)s = %(w)s AND id %% 97 = %(r)s %% 97",
    "UPDATE message SET chat_id = 1 + %(r)s %% 100, author = 'moved' WHERE id %% %(writers)s = %(w)s"
    " AND id %% 199 = %(r)s %% 199",
    "DELETE FROM message WHERE id %% %(writers)s = %(w)s AND id %% 97 = %(r)s %% 97",
    "INSERT INTO visit (page, seconds) VALUES ('page ' || %(r)s %% 9, %(r)s::integer * %(writers)s + %(w)s)",
    "DELETE FROM visit WHERE seconds %% %(writers)s = %(w)s AND seconds %% 11 = %(r)s %% 11",
    "UPDATE chat SET title = title || '.', kind = 'kind ' || %(r)s %% 4 WHERE id = 1 + %(r)s %% 100",
)
ADD: LiteralString = """
WITH counted AS (INSERT INTO added (key, n) VALUES (%(key)s, %(n)s) RETURNING token)
SELECT token, tally.counter_add('clicks', %(key)s, %(n)s) FROM counted
"""
MISCOUNTED: LiteralString = """
SELECT key, count, n FROM tally.clicks FULL JOIN (SELECT key, sum(n) AS n FROM added GROUP BY key) AS a USING (key)
WHERE coalesce(count, 0) <> coalesce(n, 0)
"""
STALE: LiteralString = """
SELECT id, c.messages, v.messages, c.bytes, v.bytes FROM chat AS c LEFT JOIN tally.by_chat AS v ON v.chat_id = c.id
WHERE c.messages IS DISTINCT FROM coalesce(v.messages, 0) OR c.bytes IS DISTINCT FROM v.bytes
"""

AUTHORS: LiteralString = """
SELECT author, k.n, d.n FROM tally.authors AS k
FULL JOIN (SELECT author, count(*) AS n FROM message GROUP BY author) AS d USING (author)
WHERE k.n IS DISTINCT FROM d.n
"""
DAMAGE: dict[str, LiteralString] = {
    "by_author": "UPDATE tally.by_author__state SET n = n + 1 WHERE h = (SELECT max(h) FROM tally.by_author__state)",
    "by_size": "UPDATE tally.by_size__bucket AS b SET n = n + 1 WHERE level = 1 AND NOT EXISTS"
    " (SELECT FROM tally.by_size__bucket AS o WHERE o.level = 1 AND (o.k1, o.k2, o.k3) > (b.k1, b.k2, b.k3))",
}

metadata = MetaData()
chat = Table(
    "chat", metadata,
    Column("id", Integer, primary_key=True), Column("kind", Text), Column("messages", Integer),
    Column("bytes", Numeric),
)  # fmt: skip
message = Table(
    "message", metadata,
    Column("id", BigInteger, primary_key=True), Column("chat_id", Integer), Column("author", Text),
    Column("size", Integer),
)  # fmt: skip
visit = Table("visit", metadata, Column("id", Uuid, primary_key=True), Column("page", Text), Column("seconds", Integer))
added = Table("added", metadata, Column("key", Text), Column("n", Integer))


def logged() -> Tally:
    """Counts, sums, extremes, distinct values, copies in a parent, an order, and a counter."""
    tally = Tally()
    tally.grouped(
        "by_chat",
        select(message.c.chat_id, func.count().label("messages"), func.sum(message.c.size).label("bytes"))
        .group_by(message.c.chat_id),
        mirror={"messages": chat.c.messages, "bytes": chat.c.bytes},
    )  # fmt: skip
    tally.grouped(
        "by_author",
        "SELECT author, count(*) AS n, min(size) AS least, max(size) AS most, count(DISTINCT chat_id) AS chats"
        " FROM message GROUP BY author",
    )
    tally.grouped("totals", "SELECT count(*) AS n, max(size) AS most, count(DISTINCT author) AS authors FROM message")
    tally.ordered(
        "by_size", message, namespace=[message.c.author], key=[message.c.size], sums={"bytes": message.c.size}
    )
    tally.counter("clicks", direct=select(added.c.key, func.sum(added.c.n)).group_by(added.c.key))
    return tally


def declared() -> Tally:
    """The same, and aggregates over a table that is UNLOGGED."""
    tally = logged()
    tally.grouped("pages", "SELECT page, count(*) AS n, max(seconds) AS most FROM visit GROUP BY page")
    tally.grouped("visits", "SELECT count(*) AS n, sum(seconds) AS seconds FROM visit")
    tally.ordered("in_order", visit, sums={"seconds": visit.c.seconds})
    return tally


def coming_and_going() -> Tally:
    """An aggregate that is installed and removed meanwhile, over a table that is seldom written."""
    tally = Tally()
    tally.grouped("kinds", "SELECT kind, count(*) AS chats, max(title) AS last FROM chat GROUP BY kind")
    return tally


narrow, wide = Tally(), Tally()
narrow.grouped("authors", "SELECT author, count(*) AS n FROM message GROUP BY author")
wide.grouped(
    "authors",
    "SELECT author, count(*) AS n, max(size) AS most, count(DISTINCT chat_id) AS chats FROM message GROUP BY author",
)


def there_and_back(engine: Engine) -> None:
    """From the one definition to the other and back; what a crash has left under way is refused to the other one."""
    for each in (wide, narrow):
        try:
            each.redefine(engine)
        except RedefinitionRefused as refused:
            if "another redefinition is under way" not in refused.message:
                raise


def damage(engine: Engine) -> None:
    """Have a group of by_author and a bucket of by_size kept wrong, until that is repaired."""
    for name, statement in DAMAGE.items():
        with transaction(engine) as cursor:
            lock_fold(cursor, "tally", name)
            cursor.execute(statement)


@contextmanager
def until_lost() -> Iterator[None]:
    """End quietly when the connection is lost or there is none to be had; a statement that fails is an error."""
    try:
        yield
    except (psycopg.Error, ServerUnavailable) as error:
        if not is_lost(error):
            raise


def build(engine: Engine, connection: Connection) -> Tally:
    """Make the tables, and keep what is declared over them; closes the connection."""
    with connection:
        connection.execute(TABLES)
    tally = declared()
    tally.install(engine)
    tally.backfill(engine)
    return tally


class Load:
    """Writers in threads, each over a connection of its own, until they are stopped or lose their connections.

    `committed` holds the tokens of all transactions whose COMMIT was answered; `backends` serve them.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self.committed: set[int] = set()
        self._more = Condition()
        self._stopped = Event()
        self._threads = ThreadPoolExecutor(max_workers=WRITERS)
        connections = [connect() for _ in range(WRITERS)]
        self.backends = [connection.info.backend_pid for connection in connections]
        self._running = [
            self._threads.submit(self._write, connection, number, random.getrandbits(32))
            for number, connection in enumerate(connections)
        ]

    def until_committed(self, transactions: int) -> None:
        """Return when so many more transactions are committed."""
        with self._more:
            wanted = len(self.committed) + transactions
            assert self._more.wait_for(lambda: len(self.committed) >= wanted or self._has_ended(), DEADLINE_S)
        self._raise_what_failed(is_over=False)

    def stop(self) -> set[int]:
        """End the writers, after their transactions."""
        self._stopped.set()
        return self.end()

    def end(self) -> set[int]:
        """Wait for writers that have lost their connections; what is committed."""
        self._threads.shutdown()
        self._raise_what_failed(is_over=True)
        return self.committed

    def _has_ended(self) -> bool:
        return any(each.done() for each in self._running)

    def _raise_what_failed(self, *, is_over: bool) -> None:
        for each in self._running:
            if is_over or each.done():
                each.result(DEADLINE_S)

    def _write(self, connection: Connection, number: int, seed: int) -> None:
        chance = random.Random(seed)
        given = {"w": number, "writers": WRITERS}
        try:
            with until_lost():
                while not self._stopped.is_set():
                    token = self._transact(connection, chance, given)
                    with self._more:
                        self.committed.add(token)
                        self._more.notify_all()
        finally:
            connection.close()
            with self._more:
                self._more.notify_all()

    def _transact(self, connection: Connection, chance: random.Random, given: dict[str, int]) -> int:
        with connection.transaction():
            for write in chance.sample(WRITES, chance.randint(0, 3)):
                connection.execute(write, {**given, "r": chance.randint(1, 10**6)})
            row = connection.execute(ADD, {"key": chance.choice("abc"), "n": chance.randint(-5, 100)}).fetchone()
        assert row is not None
        return int(row[0])


class Repeated:
    """An operation of ours, again and again in a thread, until it is stopped or loses its connection.

    A server that recovers by itself may do so between two connections of the operation, which then loses none.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self._begun = Event()
        self._stopped = Event()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._running: Future[None] = self._thread.submit(self._repeat)

    def until_begun(self) -> None:
        assert self._begun.wait(DEADLINE_S)

    def stop(self) -> None:
        """End it after the run that is under way, if it has not lost its connection."""
        self._stopped.set()
        self._running.result(DEADLINE_S)
        self._thread.shutdown()

    def _repeat(self) -> None:
        with until_lost():
            while not self._stopped.is_set():
                self._begun.set()
                with suppress(FoldLocked):
                    self._run()


def cut_power(cluster: Cluster) -> None:
    """End all processes of a server at one moment."""
    postmaster = cluster.postmaster()
    assert postmaster is not None
    postmaster.suspend()  # from now on it starts none
    processes = [postmaster, *postmaster.children()]
    for end in (psutil.Process.suspend, psutil.Process.kill):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                end(process)
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE_S)
    assert not alive


def check(engine: Engine, tally: Tally, committed: set[int]) -> None:
    """All aggregates are exact, and all that was committed is there."""
    assert_exact(engine, tally)
    with engine.connect() as borrowed:
        connection = cast(Connection, borrowed.connection.driver_connection)
        OrderOracle(connection, tally).check()
        assert connection.execute(MISCOUNTED).fetchall() == []
        found = {token for (token,) in connection.execute("SELECT token FROM added").fetchall()}
    assert committed <= found, f"committed and lost: {sorted(committed - found)}"


def check_authors(engine: Engine) -> None:
    """By whichever definition it is installed, it is exact."""
    with engine.connect() as connection:
        assert connection.exec_driver_sql(AUTHORS).all() == []


def check_copies(engine: Engine, tally: Tally) -> None:
    """While nobody writes: after one more fold all are kept, and the copies in the parent are what the view says."""
    tally.fold(engine)
    assert {status.serving for status in tally.status(engine)} == {"kept"}
    with engine.connect() as connection:
        stale = connection.exec_driver_sql(STALE).all()
    assert stale == []
