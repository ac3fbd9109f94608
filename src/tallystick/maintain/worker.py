"""The worker: folds what is due, does what is scheduled, verifies a little, and tidies up, until it is told to stop.

Any number of workers may run, on any machines. What one does is claimed with an advisory lock of its transaction, so
that the others pass it over; a worker that is killed leaves nothing behind that another could not go on with. Without
any worker reads become slower, never wrong.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import psycopg
from sqlalchemy import URL, Engine, create_engine

from tallystick.errors import FoldLocked, SourceLocked, TallyError
from tallystick.maintain import counters, folding, schedule
from tallystick.maintain.audit import audit_step
from tallystick.maintain.backoff import Backoff
from tallystick.maintain.heartbeat import Heartbeat
from tallystick.maintain.stopping import Stop
from tallystick.store import backlog, events, schedules
from tallystick.store.aggregates import is_schema_installed
from tallystick.store.backlog import Waiting
from tallystick.store.connection import is_lost, lift_timeouts, transaction
from tallystick.store.locks import claim

OUTAGE_S = 30.0
"""The longest rest between two tries to reach the database."""
REST_S = 300.0
"""The longest rest of an aggregate whose fold fails."""
STALE_S = 60.0
"""Between two folds that are due for no other reason than that readers are served by the source."""
PURGE_EVERY_S = 3600.0
AUDIT_EVERY_S = 10.0
"""A part of some aggregate is verified as often as that, unless the share of time that it may take is used up."""
LOOK_SHARE = 0.02
"""Of the time, at most, is spent on looking: beside a long snapshot a look walks over all deltas folded since."""
LOOK_RARELY_S = 30.0
"""A look that takes long is repeated after so many seconds at the latest."""

_log = logging.getLogger("tallystick.worker")


@dataclass(frozen=True, slots=True)
class Settings:
    """When an aggregate is folded, and for how long events are kept.

    Args:
        interval_s: between two looks at what waits, in seconds.
        backlog: rows that make a fold due at once.
        max_age_s: what makes a fold due of any number of rows: how long they have waited, in seconds.
        keep_events: older events are deleted.
        audit: the share of the worker's time that goes into verifying, part by part; 0 for none.
    """

    interval_s: float = 1.0
    backlog: int = 1_000
    max_age_s: float = 5.0
    keep_events: timedelta = timedelta(days=90)
    audit: float = 0.01


@dataclass(slots=True)
class Done:
    """What a worker has done since it started, by aggregate."""

    folds: Counter[str] = field(default_factory=Counter)
    deltas: Counter[str] = field(default_factory=Counter)
    fold_s: dict[str, float] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    drifted: Counter[str] = field(default_factory=Counter)


def engine_for(url: URL) -> Engine:
    """An engine for a worker: one connection for the work, one for the heartbeat, and never a long wait for either."""
    known = {"application_name": "tally worker", "connect_timeout": "3"} | dict(url.query)
    return create_engine(url.set(query=known), pool_size=2, max_overflow=2)


class Worker:
    """One worker over one installation.

    Whatever fails is logged, counted and tried again later; the other aggregates go on meanwhile.
    """

    def __init__(self, engine: Engine, schema: str, settings: Settings, stop: Stop) -> None:
        self._engine, self._schema, self._settings, self._stop = engine, schema, settings, stop
        self.done = Done()
        self._doing: str | None = None
        self._resting = Backoff(REST_S)
        self._outage = Backoff(OUTAGE_S)
        self._stale_next: dict[str, float] = {}
        self._purge_next = 0.0
        self._audit_next = time.monotonic() + AUDIT_EVERY_S
        self._audited = ""

    def run(self) -> None:
        """Work until the stop is requested."""
        heartbeat = Heartbeat(self._engine, self._schema, lambda: self._doing)
        heartbeat.start()
        _log.info("started", extra={"schema": self._schema})
        try:
            while not self._stop.is_requested():
                self._stop.wait(self._round_or_rest())
        finally:
            self._stop.over()
            heartbeat.end()
        _log.info("stopped", extra={"folds": self.done.folds.total(), "deltas": self.done.deltas.total()})

    def _round_or_rest(self) -> float:
        """One round; for how many seconds to wait before the next."""
        try:
            look_s = self._round()
        except (TallyError, psycopg.Error) as error:
            if self._stop.is_requested():
                return 0
            self._engine.dispose()  # whatever else the pool holds is as dead as this one
            rest_s = self._outage.failed("database")
            _log.error("no work done", extra={"error": str(error).strip(), "next_try_s": round(rest_s, 1)})
            return rest_s
        self._outage.succeeded("database")
        return max(self._settings.interval_s, min(look_s / LOOK_SHARE, LOOK_RARELY_S))

    def _round(self) -> float:
        """Look, and do what is due; how long the look took, in seconds."""
        started = time.perf_counter()
        waiting = self._look()
        with transaction(self._engine) as cursor:
            backlog.note(cursor, self._schema, waiting)
            due = schedules.due(cursor, self._schema)
        look_s = time.perf_counter() - started
        for each in due:
            self._attempt(f"schedule {each.name}", each.name, partial(self._run_schedule, each.name))
        for found in sorted(waiting, key=lambda found: (found.is_stale, found.rows), reverse=True):
            if self._is_due(found):
                self._attempt(f"fold {found.name}", found.name, partial(self._fold, found))
        if time.monotonic() >= self._purge_next:
            self._attempt("purge", "purge", self._purge)
        if self._settings.audit and time.monotonic() >= self._audit_next:
            self._audit(sorted(found.name for found in waiting if not found.is_counter))
        return look_s

    def _look(self) -> list[Waiting]:
        """At all in one statement; if one of them is in ruins, at each by itself."""
        waiting: list[Waiting] = []

        def look_at(only: str | None) -> None:
            with transaction(self._engine, read_only=True) as cursor:
                waiting.extend(backlog.look(cursor, self._schema, self._settings.backlog, only=only))

        try:
            look_at(None)
        except psycopg.ProgrammingError:
            with transaction(self._engine, read_only=True) as cursor:
                names = backlog.names(cursor, self._schema)
            for name in names:
                self._attempt(f"look at {name}", name, partial(look_at, name))
        return waiting

    def _is_due(self, each: Waiting) -> bool:
        is_old = each.rows > 0 and each.age_s >= self._settings.max_age_s
        if each.rows >= self._settings.backlog or is_old:
            return True
        return each.is_stale and time.monotonic() >= self._stale_next.get(each.name, 0.0)

    def _attempt(self, what: str, subject: str, work: Callable[[], None]) -> None:
        """Work on one subject; its failure is its own, but a lost connection is everybody's.

        Raises:
            ServerUnavailable, psycopg.OperationalError: no connection.
        """
        if self._stop.is_requested() or self._resting.is_resting(what):
            return
        self._doing = what
        try:
            work()
        except (FoldLocked, SourceLocked):
            _log.debug("somebody else is at it", extra={"aggregate": subject})
        except Exception as error:
            if is_lost(error):
                raise
            if self._stop.is_requested():
                _log.info("cut short", extra={"task": what})
                return
            self.done.failures[subject] += 1
            rest_s = round(self._resting.failed(what), 1)
            is_known = isinstance(error, TallyError | psycopg.Error)
            told = {"task": what, "error": str(error).strip(), "next_try_s": rest_s}
            _log.error("failed", extra=told, exc_info=not is_known)
        else:
            self._resting.succeeded(what)
        finally:
            self._doing = None

    def _fold(self, each: Waiting) -> None:
        name = each.name
        if each.is_stale:
            self._stale_next[name] = time.monotonic() + STALE_S
        result = (counters.fold if each.is_counter else folding.fold)(self._engine, self._schema, name)
        with transaction(self._engine) as cursor:
            backlog.forget(cursor, self._schema, name)
        self.done.folds[name] += 1
        self.done.deltas[name] += result.deltas
        self.done.fold_s[name] = self.done.fold_s.get(name, 0.0) + result.elapsed_s
        told = {"aggregate": name, "deltas": result.deltas, result.unit: result.groups}
        _log.debug("folded", extra={**told, "elapsed_s": round(result.elapsed_s, 4)})
        if result.adopted:
            _log.info("counts new partitions", extra={"aggregate": name, "partitions": ", ".join(result.adopted)})

    def _audit(self, names: list[str]) -> None:
        """Verify a part of the aggregate whose turn it is; if it takes its time, the next has to wait for longer."""
        started = time.monotonic()
        if names:
            self._audited = next((name for name in names if name > self._audited), names[0])
            self._attempt(f"audit {self._audited}", self._audited, partial(self._audit_one, self._audited))
        took_s = time.monotonic() - started
        self._audit_next = started + max(AUDIT_EVERY_S, took_s / self._settings.audit)

    def _audit_one(self, name: str) -> None:
        with transaction(self._engine) as cursor:
            if not claim(cursor, self._schema, f"audit {name}"):
                return
            lift_timeouts(cursor)
            step = audit_step(self._engine, self._schema, name, budget_s=self._settings.audit * AUDIT_EVERY_S)
        report = step.report
        if report.drifted and step.is_stored:
            self.done.drifted[name] += report.drifted
            first = report.first[0].group
            _log.error("drift", extra={"aggregate": name, "drifted": report.drifted, "first": first})
        told = {"aggregate": name, "status": report.status, report.unit: report.groups, "is_last": step.is_last}
        _log.debug("audited", extra={**told, "elapsed_s": round(report.elapsed_s, 4)})

    def _run_schedule(self, name: str) -> None:
        outcome = schedule.run_if_due(self._engine, self._schema, name)
        if outcome is None:
            return
        done = outcome.schedule
        if done.task == "reset":
            told = {"schedule": name, "aggregate": done.aggregate, "keys": outcome.keys, "due_at": done.due_at}
            _log.info("reset", extra=told)
        for report in outcome.reports:
            level = logging.ERROR if report.drifted else logging.INFO
            said = {"aggregate": report.aggregate, "status": report.status, "drifted": report.drifted}
            _log.log(level, "verified", extra={"schedule": name, **said, report.unit: report.groups})
            self.done.drifted[report.aggregate] += report.drifted

    def _purge(self) -> None:
        gone = events.PURGED_AT_ONCE
        while gone == events.PURGED_AT_ONCE and not self._stop.is_requested():
            with transaction(self._engine) as cursor:
                if not is_schema_installed(cursor, self._schema) or not claim(cursor, self._schema, "purge"):
                    break
                gone = events.purge(cursor, self._schema, self._settings.keep_events)
        self._purge_next = time.monotonic() + PURGE_EVERY_S
