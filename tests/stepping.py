"""Concurrency tests in steps: each statement runs until it has finished or waits for another's lock.

A test runs one statement at a time and asserts after each which of its sessions wait. Nothing sleeps: while a
statement runs, a second connection asks PostgreSQL whether it is blocked.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, LiteralString

from psycopg import Connection, sql
from psycopg.abc import Params

Rows = list[tuple[Any, ...]]
Statement = LiteralString | sql.SQL | sql.Composed

# Waiting for an autovacuum worker is no finding: it gives way. A prepared transaction blocks as pid 0.
BLOCKED = """
SELECT EXISTS (
    SELECT FROM unnest(pg_blocking_pids(%s)) AS blocker (pid)
    LEFT JOIN pg_stat_activity USING (pid)
    WHERE backend_type IS DISTINCT FROM 'autovacuum worker'
)
"""


@dataclass(eq=False)
class Step:
    """One statement: `waiting` tells how `run` left it, `result` ends it."""

    waiting: bool
    _future: Future[Rows]
    _deadline_s: float
    _error_seen: bool = False

    def result(self) -> Rows:
        """Wait until the statement is done; return its rows, raise its error, or TimeoutError."""
        self._error_seen = True
        return self._future.result(self._deadline_s)

    @property
    def rows(self) -> Rows:
        return self.result()


@dataclass
class Session:
    """A connection in autocommit mode (write BEGIN and COMMIT as steps), with a thread for its statements."""

    connection: Connection[tuple[Any, ...]]
    watcher: Connection[tuple[Any, ...]]
    deadline_s: float = 10.0
    _steps: list[Step] = field(default_factory=list)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=1))

    def run(self, statement: Statement, params: Params | None = None) -> Step:
        """Start a statement and return when it has finished or failed, or waits for another session."""
        assert all(step._future.done() for step in self._steps), "the last statement of this session still waits"
        step = Step(False, self._thread.submit(self._execute, statement, params), self.deadline_s)
        self._steps.append(step)
        deadline = monotonic() + self.deadline_s
        while not step.waiting:
            try:
                step._future.exception(timeout=0.005)
            except TimeoutError:
                step.waiting = self._is_blocked()
                if monotonic() > deadline:
                    raise
            else:
                break
        return step

    def close(self) -> None:
        """Cancel a statement that still waits, and raise the first error that no test has looked at."""
        abandoned = [step for step in self._steps if not step._future.done()]
        if abandoned:
            self.connection.cancel_safe(timeout=self.deadline_s)
        self._thread.shutdown()
        for step in self._steps:
            if step not in abandoned and not step._error_seen:
                step.result()

    def _execute(self, statement: Statement, params: Params | None) -> Rows:
        cursor = self.connection.execute(statement, params)
        return cursor.fetchall() if cursor.description else []

    def _is_blocked(self) -> bool:
        row = self.watcher.execute(BLOCKED, [self.connection.info.backend_pid]).fetchone()
        return row is not None and row[0]
