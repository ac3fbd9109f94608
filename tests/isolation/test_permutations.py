"""Short scripts of several sessions in every order in which their steps can meet: PostgreSQL's isolation tester.

After each step everyone asks the oracle, each in the transaction that it is in. A step may wait for a row or a table
that another session's own statement has locked; then its session's later steps follow as soon as it goes on. All cases
of a server share one database and its sessions, which saves most of the time: each starts with the same rows, checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, create_engine

from tallystick import Tally
from tests.backfills import begin
from tests.isolation.stage import Operation, declared
from tests.oracle import Oracle, told
from tests.servers import Connection, Server

Step = tuple[LiteralString, ...]  # statements that run one after the other
AGAIN: LiteralString = (
    "DELETE FROM message; INSERT INTO message (id, chat, size, author) OVERRIDING SYSTEM VALUE"
    " VALUES (1, 1, 10, 'ann'), (2, 1, 20, 'bob'), (3, 2, 5, 'ann')"
)
BEGINS: dict[str, LiteralString] = {
    "read committed": "BEGIN ISOLATION LEVEL READ COMMITTED",
    "repeatable read": "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "serializable": "BEGIN ISOLATION LEVEL SERIALIZABLE",
}
LIMITED: LiteralString = (
    "INSERT INTO message (chat, size, author) SELECT 1, 1, 'eve'"
    " WHERE (SELECT messages FROM tally.counts WHERE chat = 1) < 3"
)
OURS = ("fold", "backfill")
WAITS_FOR = "SELECT locktype, relation::regclass::text FROM pg_locks WHERE pid = %s AND NOT granted"
LOCKS_ALL = (
    "SELECT pid FROM pg_locks WHERE relation = 'message'::regclass AND mode = 'AccessExclusiveLock'"
    " ORDER BY granted DESC"
)
MY_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"


@dataclass(frozen=True)
class Scenario:
    """Scripts by session; beside them runs what `ours` names, one step each."""

    scripts: dict[str, tuple[Step, ...]]
    ours: tuple[str, ...] = ("fold",)
    has_old: bool = True  # a snapshot from before all steps looks on; it would keep a TRUNCATE waiting
    for_rows: tuple[str, ...] = ()  # sessions that change a row that another has changed
    may_conflict: bool = False  # SQLSTATE 40001 is an answer
    writers_ask: bool = True
    messages: int | None = None  # of chat 1, in the end

    def orders(self) -> Iterator[tuple[str, ...]]:
        """All but those that are no case of their own."""
        left = {name: len(steps) for name, steps in self.scripts.items()} | dict.fromkeys(self.ours, 1)
        are_alike = len(set(self.scripts.values())) < len(self.scripts)
        for order in _orders(left):
            # There is a fold before all steps and one after them anyway.
            if "fold" in (order[0], order[-1]):
                continue
            if are_alike and order[0] != next(iter(self.scripts)):
                continue
            yield order


def _orders(left: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """Every order of the steps in which each session keeps its own."""
    if not any(left.values()):
        yield ()
    for name in (name for name, count in left.items() if count):
        for rest in _orders({**left, name: left[name] - 1}):
            yield (name, *rest)


def _greatest(begin: LiteralString, *, writers_ask: bool) -> Scenario:
    """One takes the maximum away while the other brings a greater one. Neither reads, so neither may fail."""
    return Scenario(
        {
            "deletes": ((begin, "DELETE FROM message WHERE size = 20"), ("COMMIT",)),
            "inserts": ((begin, "INSERT INTO message (chat, size) VALUES (1, 30), (2, 5)"), ("COMMIT",)),
        },
        writers_ask=writers_ask,
    )


SCENARIOS = {
    "commit and rollback": Scenario(
        {
            "inserts": (("BEGIN", "INSERT INTO message (chat, size, author) VALUES (1, 7, 'cat')"), ("COMMIT",)),
            "moves": (("BEGIN", "UPDATE message SET chat = 2, size = 8, author = 'bob' WHERE id = 1"), ("ROLLBACK",)),
        }
    ),
    # Asking within them would make them readers, and a serializable reader may conflict.
    **{f"greatest, {name}": _greatest(begin, writers_ask=name != "serializable") for name, begin in BEGINS.items()},
    "prepared transaction": Scenario(
        {
            "prepares": (
                ("BEGIN", "UPDATE message SET chat = 2 WHERE id = 2", "DELETE FROM message WHERE id = 3"),
                ("PREPARE TRANSACTION 'permuted'",),
                ("COMMIT PREPARED 'permuted'",),
            )
        },
        ours=("fold", "backfill"),
    ),
    "truncate": Scenario(
        {
            "truncates": (
                ("BEGIN", "TRUNCATE message", "INSERT INTO message (chat, size, author) VALUES (1, 3, 'cat')"),
                ("COMMIT",),
            ),
            "reads": (("BEGIN", "SELECT count(*) FROM message"), ("COMMIT",)),
        },
        has_old=False,
    ),
    "distinct values move": Scenario(
        {
            "moves": (
                ("BEGIN", "UPDATE message SET author = 'bob' WHERE chat = 1"),
                ("UPDATE message SET author = 'cat' WHERE id = 2", "DELETE FROM message WHERE id = 1"),
                ("COMMIT",),
            )
        },
        ours=("fold", "backfill"),
    ),
    "same row": Scenario(
        {
            "first": (("BEGIN", "UPDATE message SET chat = 2, author = 'bob' WHERE id = 1"), ("COMMIT",)),
            "second": (("UPDATE message SET chat = chat + 1, size = size + 9 WHERE id = 1",),),
        },
        for_rows=("first", "second"),
    ),
    # Both find two messages and want one more; there may be three.
    "limit": Scenario(
        dict.fromkeys(("first", "second"), ((BEGINS["serializable"], LIMITED), ("COMMIT",))),
        may_conflict=True,
        writers_ask=False,
        messages=3,
    ),
}
CASES = [
    pytest.param(scenario, order, id=f"{name}: {' '.join(order)}")
    for name, scenario in SCENARIOS.items()
    for order in scenario.orders()
]


@dataclass
class Actor:
    """A connection with a thread for its statements, and an oracle over it."""

    watcher: Connection
    connection: Connection
    oracle: Oracle
    thread: ThreadPoolExecutor

    def start(self, step: Step) -> Operation[None]:
        return Operation(self.watcher, _application(self.connection), self.thread.submit(self._run, step))

    def _run(self, step: Step) -> None:
        for statement in step:
            self.connection.execute(statement)


def _application(connection: Connection) -> str:
    return connection.info.parameter_status("application_name") or ""


@dataclass
class World:
    """One database of a server, with sessions that are used by one case after another."""

    server: Server
    name: str
    tally: Tally
    opened: ExitStack
    actors: dict[str, Actor] = field(default_factory=dict)
    is_clean: bool = True

    def __post_init__(self) -> None:
        self.watcher = self._connect("watcher")
        url = self.server.url(self.name).update_query_dict({"application_name": "ours"})
        self.engine: Engine = create_engine(url, pool_size=1, max_overflow=0)
        self.opened.callback(self.engine.dispose)
        self.thread = self.opened.enter_context(ThreadPoolExecutor(max_workers=1))
        self.old, self.reader = self.actor("old"), self.actor("reader")

    def actor(self, name: str) -> Actor:
        if name not in self.actors:
            connection = self._connect(name)
            thread = self.opened.enter_context(ThreadPoolExecutor(max_workers=1))
            self.actors[name] = Actor(self.watcher, connection, Oracle(connection, self.tally), thread)
        return self.actors[name]

    def start_ours(self, name: str) -> Operation[None]:
        def run() -> None:
            if name == "fold":
                self.tally.fold(self.engine)
            else:
                self.tally.backfill(self.engine)

        return Operation(self.watcher, "ours", self.thread.submit(run))

    def begin_anew(self) -> None:
        """The same rows as in every case, folded."""
        self.is_clean = False
        self.watcher.execute(AGAIN)
        self.start_ours("fold").result()
        assert self.reader.oracle.differences() == []

    def close(self) -> None:
        self._end_all()
        self.opened.close()
        with self.server.connect(self.name, autocommit=True) as connection:
            for (gid,) in connection.execute(MY_PREPARED).fetchall():
                connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(gid))
        self.server.drop_database(self.name)

    def _end_all(self) -> None:
        """What a failed case has left waiting would keep its thread from ending."""
        self.watcher.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def _connect(self, name: str) -> Connection:
        connection = self.server.connect(self.name, autocommit=True, options=f"-c application_name={name}")
        self.opened.callback(connection.close)
        return connection


@pytest.fixture(scope="module")
def worlds(server: Server, template: str) -> Iterator[list[World]]:
    """The database in use, if there is one."""
    worlds: list[World] = []
    yield worlds
    for world in worlds:
        world.close()


@pytest.fixture
def world(worlds: list[World], server: Server, template: str) -> World:
    """The database of the cases before; a new one after a failure."""
    if worlds and not worlds[0].is_clean:
        worlds.pop().close()
    if not worlds:
        worlds.append(World(server, server.create_database(template), declared(), ExitStack()))
    worlds[0].begin_anew()
    return worlds[0]


@dataclass
class Play:
    """One order of a scenario's steps, being played."""

    world: World
    scenario: Scenario
    waiting: dict[str, Operation[None]] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)

    def run(self, order: tuple[str, ...]) -> None:
        scripts = {name: iter(steps) for name, steps in self.scenario.scripts.items()}
        if self.scenario.has_old:
            self.world.old.connection.execute(BEGINS["repeatable read"])
        self.ask()
        left = list(order)
        while left:
            turn = next((i for i, name in enumerate(left) if name not in self.waiting), None)
            assert turn is not None, f"all wait for each other: {self.waiting.keys()}"
            name = left.pop(turn)
            if name in OURS:
                self.settle(name, self.world.start_ours(name))
            else:
                step = next(scripts[name])
                if name not in self.given_up:
                    self.settle(name, self.world.actor(name).start(step))
            for other, operation in list(self.waiting.items()):
                self.settle(other, operation)
            self.ask()
        assert not self.waiting
        self.world.old.connection.execute("ROLLBACK")
        self.settle("fold", self.world.start_ours("fold"))
        self.ask()

    def settle(self, name: str, operation: Operation[None]) -> None:
        """See to the end of a step, or that it waits for what another session itself has locked."""
        self.waiting.pop(name, None)
        if operation.until_settled().is_waiting:
            self.waiting[name] = operation
            self.judge_wait(name, operation)
            return
        try:
            operation.result()
        except psycopg.errors.SerializationFailure:
            assert self.scenario.may_conflict, f"{name} has failed because of us"
            self.world.actor(name).connection.execute("ROLLBACK")
            self.given_up.add(name)

    def judge_wait(self, name: str, operation: Operation[None]) -> None:
        pids = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
        for pid in self.world.watcher.execute(pids, [operation.application]).fetchall():
            for kind, relation in self.world.watcher.execute(WAITS_FOR, pid).fetchall():
                if kind == "relation":
                    # A TRUNCATE is at work or waits, or there would be nothing to wait for.
                    assert relation == "message", f"{name} waits for {relation}"
                    assert self.world.watcher.execute(LOCKS_ALL).fetchall()
                else:
                    assert name in self.scenario.for_rows, f"{name} waits for a {kind}"

    def ask(self) -> None:
        """Everyone who can read the table finds kept equal to direct; outside a transaction all are like the reader."""
        names = ["reader"]
        for name in ("old", *(self.scenario.scripts if self.scenario.writers_ask else ())):
            status = self.world.actor(name).connection.info.transaction_status
            if name not in self.waiting and status == TransactionStatus.INTRANS:
                names.append(name)
        locked_by = self.world.watcher.execute(LOCKS_ALL).fetchone()
        for name in names:
            actor = self.world.actor(name)
            if locked_by in (None, (actor.connection.info.backend_pid,)):
                found: list[Any] = actor.oracle.differences()
                assert not found, f"{name}: {told(found)}"


@pytest.mark.parametrize(("scenario", "order"), CASES)
def test_permutation(world: World, scenario: Scenario, order: tuple[str, ...]) -> None:
    if "backfill" in order:
        begin(world.engine, world.tally)
    Play(world, scenario).run(order)
    if scenario.messages is not None:
        found = world.watcher.execute("SELECT count(*) FROM message WHERE chat = 1").fetchone()
        assert found == (scenario.messages,)
    world.is_clean = True


def test_the_orders_are_all_there_are() -> None:
    scripts: dict[str, tuple[Step, ...]] = {"a": (("1",), ("2",)), "b": (("3",),)}
    assert list(Scenario(scripts, ours=()).orders()) == [("a", "a", "b"), ("a", "b", "a"), ("b", "a", "a")]
    assert len(list(Scenario(scripts).orders())) == 6  # of 12, without a fold at either end
    assert len({case.id for case in CASES}) == len(CASES)
