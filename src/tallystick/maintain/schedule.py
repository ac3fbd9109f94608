"""Schedules: tasks that are done once at each due time, by whichever worker comes first.

A task's effect and the note that it is done are one transaction, so that there is neither one without the other. Due
times that were missed while no worker ran are made up for by doing the task once; then it is due at the next time that
lies ahead. All times are in UTC, by the clock of the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cronsim import CronSim, CronSimError
from sqlalchemy import Engine

from tallystick.errors import NotInstalled, UsageError
from tallystick.maintain import counters as counting
from tallystick.maintain import verify as verifying
from tallystick.maintain.verify import VerifyReport
from tallystick.store import aggregates, counters, events, schedules
from tallystick.store.connection import Cursor, lift_timeouts, transaction
from tallystick.store.locks import claim
from tallystick.store.schedules import Schedule


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task has done: `keys` that were reset, or what `reports` of verified aggregates say."""

    schedule: Schedule
    keys: int = 0
    reports: tuple[VerifyReport, ...] = ()


def next_time(cron: str, after: datetime) -> datetime:
    """The first time of a cron expression after another, which must have a time zone.

    Raises:
        UsageError: it is no cron expression, or there is no such time.
    """
    try:
        return next(CronSim(cron, after))
    except (CronSimError, StopIteration) as error:
        said = str(error).lower() or "no such day in many years"
        raise UsageError(
            f'"{cron}" is no cron expression: {said}.',
            hint='Write minute, hour, day of month, month and day of week, in UTC: "0 0 * * *" is every midnight.',
        ) from None


def add(
    engine: Engine, schema: str, name: str, cron: str, task: str, aggregate: str | None = None, key: str | None = None
) -> Schedule:
    """Schedule a task, for the first time that lies ahead.

    Args:
        cron: minute, hour, day of month, month and day of week, in UTC.
        task: "reset" of a counter, "verify" of an aggregate or of all.
        aggregate: what the task is about.
        key: of a counter, the only key to reset.
    Raises:
        UsageError: there is a schedule of this name, no such time or task, or it is about nothing.
        NotInstalled: what it is about is not installed.
    """
    if not name or "\0" in name:
        raise UsageError("a schedule needs a name.", hint="Pass a word such as midnight.")
    with transaction(engine) as cursor:
        _check_task(cursor, schema, task, aggregate, key)
        schedule = Schedule(name, cron, task, aggregate, key, next_time(cron, schedules.now(cursor)))
        if not schedules.add(cursor, schema, schedule):
            raise UsageError(f'there is a schedule "{name}".', hint=f"Run first: tally schedule remove {name}")
        told = {"schedule": name, "cron": cron, "task": task, "key": key}
        events.record(cursor, schema, "schedule add", aggregate, **told)
    return schedule


def remove(engine: Engine, schema: str, name: str) -> None:
    """Remove a schedule.

    Raises:
        UsageError: there is none of this name.
    """
    with transaction(engine) as cursor:
        names = [schedule.name for schedule in schedules.every(cursor, schema)]
        if name not in names or not schedules.remove(cursor, schema, name):
            raise UsageError(
                f'there is no schedule "{name}" (there are: {", ".join(names) or "none"}).',
                hint="Run: tally schedule list",
            )
        events.record(cursor, schema, "schedule remove", schedule=name)


def every(engine: Engine, schema: str) -> list[Schedule]:
    """All schedules by name."""
    with transaction(engine, read_only=True) as cursor:
        return schedules.every(cursor, schema)


def run_if_due(engine: Engine, schema: str, name: str) -> Outcome | None:
    """Do a schedule's task if it is due and nobody else is at it.

    A verification takes snapshots of its own, over a second connection, and records each aggregate when it is compared.

    Raises:
        NotInstalled: what it is about is not installed any more. It stays due.
    """
    with transaction(engine) as cursor:
        if not claim(cursor, schema, f"schedule {name}"):
            return None
        schedule = schedules.if_due(cursor, schema, name)
        if schedule is None:
            return None
        lift_timeouts(cursor)
        told = {"schedule": name, "due_at": schedule.due_at.isoformat()}
        if schedule.task == "reset" and schedule.aggregate is not None:
            counters.get(cursor, schema, schedule.aggregate)
            outcome = Outcome(schedule, keys=counters.reset(cursor, schema, schedule.aggregate, schedule.key))
            events.record(cursor, schema, "reset", schedule.aggregate, **told, keys=outcome.keys)
        else:
            outcome = Outcome(schedule, reports=_verify(engine, schema, schedule.aggregate, told))
        schedules.move_on(cursor, schema, name, next_time(schedule.cron, schedules.now(cursor)))
        return outcome


def _check_task(cursor: Cursor, schema: str, task: str, aggregate: str | None, key: str | None) -> None:
    if task not in ("reset", "verify"):
        raise UsageError(f'there is no task "{task}".', hint="Tasks are reset and verify.")
    if key is not None and task != "reset":
        raise UsageError(f"a key has no meaning for {task}.", hint="Leave it out.")
    if not aggregates.is_schema_installed(cursor, schema):
        raise NotInstalled(f'nothing is installed in schema "{schema}".', hint="Run: tally install")
    if task == "reset":
        if aggregate is None:
            raise UsageError("which counter is to be reset?", hint="Name it.")
        counters.get(cursor, schema, aggregate)
    elif aggregate is not None and aggregate not in _comparable(cursor, schema):
        raise NotInstalled(
            f'there is nothing to verify of the name "{aggregate}" in schema "{schema}".',
            hint="Name an aggregate that is installed, or a counter that is declared with a direct query.",
        )


def _comparable(cursor: Cursor, schema: str) -> dict[str, bool]:
    """What can be verified, and whether it is a counter."""
    with_direct = [found.name for found in counters.every(cursor, schema) if found.definition is not None]
    return {found.name: False for found in aggregates.every(cursor, schema)} | dict.fromkeys(with_direct, True)


def _verify(engine: Engine, schema: str, name: str | None, told: dict[str, str]) -> tuple[VerifyReport, ...]:
    with transaction(engine, read_only=True) as cursor:
        known = _comparable(cursor, schema)
    return tuple(
        _verify_one(engine, schema, each, told, is_counter=known.get(each, False))
        for each in ([name] if name is not None else known)
    )


def _verify_one(engine: Engine, schema: str, name: str, told: dict[str, str], *, is_counter: bool) -> VerifyReport:
    """Verify and record it; once more, if others have found the opposite, or mended it, meanwhile."""
    while True:
        with transaction(engine, read_only=True) as cursor:
            since = events.last_of_drift(cursor, schema, name)
        report = (counting.verify if is_counter else verifying.verify)(engine, schema, name)
        with transaction(engine) as cursor:
            if not events.is_contradicted(cursor, schema, name, since, drifts=report.drifted > 0):
                found = {"status": report.status, report.unit: report.groups, "drifted": report.drifted}
                events.record(cursor, schema, "verify", name, **told, **found)
                return report
