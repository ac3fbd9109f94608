"""A table of messages with aggregates over it, and operations of ours run beside the sessions of a stepped test."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Generic, LiteralString, TypeVar

from sqlalchemy import URL, Engine, create_engine

from tallystick import Tally
from tests.oracle import differences, told
from tests.servers import Connection
from tests.stepping import BLOCKED, Rows, Session

TABLE = """
CREATE TABLE message (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chat integer, size integer, author text);
INSERT INTO message (chat, size, author) VALUES (1, 10, 'ann'), (1, 20, 'bob'), (2, 5, 'ann')
"""
DECLARED = {
    "counts": "SELECT chat, count(*) AS messages, sum(size) AS bytes FROM message GROUP BY chat",
    "bests": "SELECT chat, min(size) AS least, max(size) AS greatest FROM message GROUP BY chat",
    "authors": "SELECT chat, count(DISTINCT author) AS authors FROM message GROUP BY chat",
    "totals": "SELECT count(*) AS messages, max(size) AS greatest, count(DISTINCT author) AS authors FROM message",
}
OpenSession = Callable[[], Session]
_Result = TypeVar("_Result")


def declared() -> Tally:
    tally = Tally()
    for name, query in DECLARED.items():
        tally.grouped(name, query)
    return tally


@dataclass
class Operation(Generic[_Result]):
    """An operation of ours in a thread, over connections that are known by their application's name."""

    watcher: Connection
    application: str
    _future: "Future[_Result]"
    _deadline_s: float = 10.0

    @property
    def is_waiting(self) -> bool:
        """Whether another session keeps it from going on."""
        pids = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        found = self.watcher.execute(pids, [self.application]).fetchall()
        return any(self.watcher.execute(BLOCKED, pid).fetchone() == (True,) for pid in found)

    @property
    def is_pausing(self) -> bool:
        """Whether it has found locked what it needs, and will try again."""
        query = "SELECT FROM pg_stat_activity WHERE application_name = %s AND wait_event = 'PgSleep'"
        return bool(self.watcher.execute(query, [self.application]).fetchall())

    def until_settled(self) -> "Operation[_Result]":
        """Return when it has ended, or waits for another session."""
        return self.until(lambda: self.is_waiting)

    def until_pausing(self) -> "Operation[_Result]":
        """Return when it has found locked what it needs, and will try again; it must not wait for anyone."""
        self.until(lambda: self.is_pausing)
        assert not self.is_waiting
        assert not self._is_done(), "it has ended"
        return self

    def until(self, condition: Callable[[], bool]) -> "Operation[_Result]":
        """Return when it has ended, or `condition` holds."""
        deadline = monotonic() + self._deadline_s
        while not self._is_done() and not condition():
            assert monotonic() < deadline, "neither ended nor as expected"
        return self

    def result(self) -> _Result:
        return self._future.result(self._deadline_s)

    def _is_done(self) -> bool:
        try:
            self._future.exception(timeout=0.002)
        except TimeoutError:
            return False
        return True


@dataclass
class Beside:
    """Starts operations of ours in threads, each over an engine of its own."""

    database: URL
    watcher: Connection
    opened: ExitStack
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def start(self, run: Callable[[Engine], _Result]) -> Operation[_Result]:
        """Start an operation and go on."""
        application = f"operation {next(self._numbers)}"
        arguments = {"application_name": application}
        engine = create_engine(self.database, connect_args=arguments)
        self.opened.callback(engine.dispose)
        thread = ThreadPoolExecutor(max_workers=1)
        self.opened.callback(thread.shutdown)
        return Operation(self.watcher, application, thread.submit(run, engine))

    def run(self, run: Callable[[Engine], _Result]) -> _Result:
        """Run an operation that must wait for nobody."""
        operation = self.start(run).until_settled()
        assert not operation.is_waiting, "it waits for another session"
        return operation.result()

    def end_all(self) -> None:
        """End what a failed test has left."""
        self.watcher.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'operation %'"
        )


def ok(session: Session, *statements: LiteralString) -> Rows:
    """Run statements none of which may wait; rows of the last."""
    rows: Rows = []
    for statement in statements:
        step = session.run(statement)
        assert not step.waiting, f"waits: {statement}"
        rows = step.rows
    return rows


def assert_exact_in(tally: Tally, *sessions: Session) -> None:
    """Each session, in whatever transaction it is, finds kept equal to direct."""
    for session in sessions:
        found = differences(session.connection, tally)
        assert not found, told(found)
